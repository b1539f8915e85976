"""Build the ad index from the catalog, and add the catalog's new ads to it.

LEADRE §3.2, §3.3: describe, encode, fit codebooks, assign S-IDs, publish and record (leadre.pipelines.index.publish).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leadre.domain.ads import Ad
from leadre.domain.identity import outward
from leadre.errors import InvalidInput, NoFreeCode
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.build import add_ads, index_ads, version_of
from leadre.indexing.texts.description import clean, describe
from leadre.indexing.texts.embedding_store import EmbeddingStore
from leadre.indexing.texts.encoder import Progress, encode
from leadre.pipelines.histories import sasrecs_beside
from leadre.pipelines.index.fit_codebooks import fit_codebooks, learnable_histories
from leadre.pipelines.index.publish import BuiltIndex, is_whole, open_index, publish_built, publish_grown
from leadre.recipe import EvaluationRecipe, IndexRecipe
from leadre.store.records.catalog import read_ads
from leadre.store.records.database import connect, transaction
from leadre.store.records.indexes import ads_without_sid, lock_index, oldest_open_transaction

logger = logging.getLogger(__name__)

_WORTH_STORING = 10_000  # embeddings of fewer new ads are sooner computed again than kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """What `add_new_ads` did.

    Args:
        index: the newest revision.
        ads: how many ads joined it.
        nameless: ads, as their owner names them, that got no S-ID because they have no name.
        crowded: ads that got none because too many ads share their codes.
        changed_until: for the next call's `changed_since`.
    """

    index: AdIndex
    ads: int = 0
    nameless: tuple[int | str, ...] = ()
    crowded: tuple[int | str, ...] = ()
    changed_until: int


def build_index(
    *,
    database_url: str,
    indexes: Path,
    recipe: IndexRecipe,
    now: datetime,
    held_out: EvaluationRecipe | None = None,
    progress: Progress | None = None,
) -> AdIndex:
    """Build the index of all ads of the catalog, live or not, on this machine (see leadre.pipelines.index.scale_out).

    The version is derived from the ads and the recipe, with the signal "collaborative" also from the histories:
    building again from the same ones finds the index there and records what is not recorded. Embeddings are kept beside
    `indexes`: a build that was killed goes on where it was, and one with other codebooks encodes only what is new.

    Args:
        database_url: the system of record.
        indexes: folder of index artifacts.
        recipe: how ads get S-IDs.
        now: when the S-IDs became true; the signal "collaborative" reads no later behavior.
        held_out: its split says which ads of the histories the signal "collaborative" must not see; None: the default.
        progress: called with what is being done, how much is done, and how much there is.

    Raises:
        InvalidInput: an empty catalog, an ad without a name, an embedding that is not finite, or a collaborative signal
            without histories.
        ConfigError: the encoder cannot be loaded, or the recipe does not fit its embeddings.
        Unavailable: the database does not answer.
    """
    database = connect(database_url, application_name="leadre index build")
    try:
        with transaction(database) as connection:
            ads = read_ads(connection)
            learnt = (
                learnable_histories(connection, held_out or EvaluationRecipe(), now=now)
                if recipe.signal != "text"
                else None
            )
        if not ads:
            raise InvalidInput("the catalog holds no ads; import some first: `leadre import`")
        version = version_of(ads, recipe, histories=learnt.digest() if learnt else b"")
        built = None
        if not is_whole(indexes / version):
            texts = [describe(ad) for ad in ads]
            embeddings = embed(texts, recipe, store=embedding_store(indexes, recipe), progress=progress)
            quantiser, hidden = fit_codebooks(
                ads, embeddings, learnt, recipe=recipe, kept=sasrecs_beside(indexes), progress=progress
            )
            index = index_ads(ads, embeddings, quantiser, version=version, assignment=recipe.assignment, hidden=hidden)
            built = BuiltIndex(index=index, quantiser=quantiser, recipe=recipe)
        return publish_built(database, indexes / version, built=built, now=now)
    finally:
        database.dispose()


def add_new_ads(
    *,
    database_url: str,
    indexes: Path,
    version: str,
    now: datetime,
    changed_since: int = 0,
    progress: Progress | None = None,
) -> Addition:
    """Give S-IDs to the catalog's ads that have none in this version, from its frozen codebooks.

    Any number of processes may call it: they encode side by side and change the index one after the other. Recording
    and publishing succeed or fail together; should the very last step fail, the next call makes it good. An ad without
    a name, or one that no disambiguation code is left for, is left out, so that it holds up no other.

    Args:
        database_url: the system of record.
        indexes: folder of index artifacts.
        version: the index.
        now: when the new S-IDs became true.
        changed_since: what an earlier call returned as `changed_until`: look only at ads that changed since then.
        progress: as in `build_index`.

    Raises:
        ArtifactIncomplete: no such index, or an older copy of it.
        ReleaseMismatch: the folder holds another version.
        InvalidInput: an embedding that is not finite or of another width.
        Unavailable: the database does not answer.
    """
    folder = indexes / version
    present = open_index(folder)
    database = connect(database_url, application_name="leadre index add")
    try:
        with transaction(database) as connection:
            until = oldest_open_transaction(connection)
            found = ads_without_sid(connection, version, changed_since=changed_since)
        nameless = tuple(outward(ad.source_id) for ad in found if not clean(ad.name))
        if nameless:
            logger.warning("ads_without_name", extra={"ads": len(nameless), "first_ad": nameless[0]})
        wanted = [ad for ad in found if clean(ad.name)]
        if not wanted:
            return Addition(index=present.index, nameless=nameless, changed_until=until)
        new = _unknown(present.index, wanted)
        store = embedding_store(indexes, present.recipe) if len(new) >= _WORTH_STORING else None
        embeddings = embed([describe(ad) for ad in new], present.recipe, store=store, progress=progress)
        with transaction(database) as connection:
            lock_index(connection, version)
            newest = open_index(folder)  # another process may have added some of them meanwhile
            rows = np.flatnonzero(newest.index.rows(_ids(new)) < 0)
            grown, crowded = _grown(newest, [new[row] for row in rows.tolist()], embeddings[rows])
            placed = [ad for ad in wanted if ad.ad_id not in crowded]
            publish_grown(connection, folder, grown, ad_ids=_ids(placed), now=now)
        return Addition(
            index=AdIndex.load(folder),
            ads=len(rows) - len(crowded),
            nameless=nameless,
            crowded=tuple(outward(ad.source_id) for ad in new if ad.ad_id in crowded),
            changed_until=until,
        )
    finally:
        database.dispose()


def embedding_store(indexes: Path, recipe: IndexRecipe) -> EmbeddingStore:
    """Return where the embeddings of the recipe's encoder are kept: a folder beside the indexes."""
    root = indexes.parent / "embeddings"
    return EmbeddingStore.of(root, encoder=recipe.encoder, pooling=recipe.pooling, instruction=recipe.instruction)


def embed(
    texts: Sequence[str], recipe: IndexRecipe, *, store: EmbeddingStore | None, progress: Progress | None
) -> NDArray[np.float32]:
    """Return the embeddings x_a of descriptions, float32[N, d]. See `leadre.indexing.texts.encoder.encode`."""
    return encode(
        texts,
        encoder=recipe.encoder,
        pooling=recipe.pooling,
        instruction=recipe.instruction,
        store=store,
        progress=progress,
    )


def _grown(built: BuiltIndex, ads: Sequence[Ad], embeddings: NDArray[np.float32]) -> tuple[BuiltIndex, set[int]]:
    """Return the index with the ads in it, and the ids of those that found no free code."""
    crowded: set[int] = set()
    while len(crowded) < len(ads):
        fit = [row for row, ad in enumerate(ads) if ad.ad_id not in crowded]
        try:
            index = add_ads(
                built.index,
                [ads[row] for row in fit],
                embeddings=embeddings[fit],
                quantiser=built.quantiser,
                assignment=built.recipe.assignment,
            )
        except NoFreeCode as error:
            first = next(outward(ad.source_id) for ad in ads if ad.ad_id == error.ad_ids[0])
            logger.warning("ads_without_code", extra={"ads": len(error.ad_ids), "first_ad": first})
            crowded.update(error.ad_ids)
        else:
            return built.grown(index), crowded
    return built, crowded


def _unknown(index: AdIndex, ads: Sequence[Ad]) -> list[Ad]:
    rows = index.rows(_ids(ads))
    return [ad for ad, row in zip(ads, rows.tolist(), strict=True) if row < 0]


def _ids(ads: Sequence[Ad]) -> NDArray[np.int64]:
    return np.array([ad.ad_id for ad in ads], np.int64)
