"""Build the ad index from the catalog, and add the catalog's new ads to it.

LEADRE §3.2, §3.3: describe, encode, fit codebooks, assign S-IDs, save, record.

Each revision of an index is an artifact of its own, `<version>-r<revision>`; `<version>` is a symbolic link to the
newest one. Who opens `<version>` gets a whole revision, before the link moves or after.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import numpy as np
from numpy.typing import NDArray

from leadre.artifacts import open_artifact, write_artifact
from leadre.domain.ads import Ad
from leadre.errors import InvalidInput
from leadre.indexing.ad_index import KIND, AdIndex
from leadre.indexing.build import add_ads, index_ads, version_of
from leadre.indexing.description import describe
from leadre.indexing.encoder import Progress, encode
from leadre.indexing.fit import fit_quantiser
from leadre.indexing.quantiser import Quantiser
from leadre.recipe import IndexRecipe
from leadre.store.catalog import read_ads
from leadre.store.database import connect, transaction
from leadre.store.releases import record_index, record_sids

QUANTISER, RECIPE = "quantiser.safetensors", "recipe.json"
_KEPT_REVISIONS = 2  # the newest one, and the one that somebody may be opening while it is replaced


class _Columns(TypedDict):
    ad_ids: NDArray[np.int64]
    sids: list[str]
    codes: NDArray[np.int32]
    embeddings: NDArray[np.float32]


def build_index(
    *, database_url: str, indexes: Path, recipe: IndexRecipe, now: datetime, progress: Progress | None = None
) -> AdIndex:
    """Build the index of all ads of the catalog, live or not.

    The version is derived from the ads and the recipe: building again from the same ones finds the index there and
    only records it anew.

    Args:
        database_url: the system of record.
        indexes: folder of index artifacts.
        recipe: how ads get S-IDs.
        now: when the S-IDs became true.
        progress: called with what is being done, how much is done, and how much there is.

    Raises:
        InvalidInput: an empty catalog, or an ad without a name.
        ConfigError: the encoder cannot be loaded, or the recipe does not fit its embeddings.
        Unavailable: the database does not answer.
    """
    database = connect(database_url, application_name="leadre index build")
    try:
        with transaction(database) as connection:
            ads = read_ads(connection)
        if not ads:
            raise InvalidInput("the catalog holds no ads; import some first: `leadre import`")
        version = version_of(ads, recipe)
        folder = indexes / version
        if not folder.exists():
            embeddings = _embed(ads, recipe, progress)
            quantiser = fit_quantiser(embeddings, recipe, progress=progress)
            _publish(index_ads(ads, embeddings, quantiser, version=version), quantiser, recipe, indexes)
        index = AdIndex.load(folder)
        with transaction(database) as connection:
            record_index(connection, version, uri=str(folder), recipe=_plain(recipe), quality=index.quality)
            record_sids(connection, version, **_columns(index, np.arange(len(index))), event_at=now)
        return index
    finally:
        database.dispose()


def add_new_ads(
    *, database_url: str, indexes: Path, version: str, now: datetime, progress: Progress | None = None
) -> AdIndex:
    """Give S-IDs to the catalog's ads that the index does not hold, from its frozen codebooks.

    Recording and publishing the new revision succeed or fail together. Call it from one process at a time.

    Args:
        database_url: the system of record.
        indexes: folder of index artifacts.
        version: the index.
        now: when the new S-IDs became true.
        progress: as in `build_index`.

    Returns:
        The new revision; the present one when no ad is new.

    Raises:
        ArtifactIncomplete: no such index.
        InvalidInput: an ad without a name, or no disambiguation code left for one.
        Unavailable: the database does not answer.
    """
    folder = indexes / version
    index, quantiser, recipe = open_index(folder)
    database = connect(database_url, application_name="leadre index add")
    try:
        with transaction(database) as connection:
            ads = read_ads(connection)
        known = index.rows(np.array([ad.ad_id for ad in ads], np.int64)) >= 0
        new = [ad for ad, is_known in zip(ads, known.tolist(), strict=True) if not is_known]
        if not new:
            return index
        grown = add_ads(index, new, embeddings=_embed(new, recipe, progress), quantiser=quantiser)
        with transaction(database) as connection:
            record_index(connection, version, uri=str(folder), recipe=_plain(recipe), quality=grown.quality)
            rows = grown.rows(np.array([ad.ad_id for ad in new], np.int64))
            record_sids(connection, version, **_columns(grown, rows), event_at=now)
            _publish(grown, quantiser, recipe, indexes)  # last: a failure here undoes the recording
        return AdIndex.load(folder)
    finally:
        database.dispose()


def open_index(folder: Path) -> tuple[AdIndex, Quantiser, IndexRecipe]:
    """Open an index with what is needed to add ads to it.

    Raises:
        ArtifactIncomplete: no index there, or a file of it is missing or altered.
    """
    revision = folder.resolve()  # all three from one revision
    open_artifact(revision, kind=KIND)
    recipe = msgspec.convert(json.loads((revision / RECIPE).read_text()), IndexRecipe)
    return AdIndex.load(revision), Quantiser.load(revision / QUANTISER), recipe


def _embed(ads: Sequence[Ad], recipe: IndexRecipe, progress: Progress | None) -> NDArray[np.float32]:
    return encode([describe(ad) for ad in ads], encoder=recipe.encoder, progress=progress)


def _plain(recipe: IndexRecipe) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(recipe)
    return plain


def _columns(index: AdIndex, rows: NDArray[np.int64]) -> _Columns:
    return {
        "ad_ids": index.ad_ids[rows],
        "sids": [str(index.sid_at(row)) for row in rows.tolist()],
        "codes": index.codes[rows],
        "embeddings": index.embeddings[rows],
    }


def _publish(index: AdIndex, quantiser: Quantiser, recipe: IndexRecipe, indexes: Path) -> None:
    """Write the revision, then move the link onto it in one step, then remove revisions nobody opens any more."""
    folder = indexes / f"{index.version}-r{index.revision}"

    def write(unfinished: Path) -> None:
        index.write_into(unfinished)
        quantiser.save(unfinished / QUANTISER)
        (unfinished / RECIPE).write_bytes(msgspec.json.format(msgspec.json.encode(recipe)))

    write_artifact(folder, kind=KIND, facts=index.facts(), write=write, replace=True)
    link = indexes / f".{index.version}.link"
    link.unlink(missing_ok=True)
    link.symlink_to(folder.name)
    link.replace(indexes / index.version)  # atomic
    for revision in range(index.revision - _KEPT_REVISIONS, -1, -1):
        old = indexes / f"{index.version}-r{revision}"
        if not old.exists():
            break
        shutil.rmtree(old)
