"""Decoding by hand: prompts and filters of some users under the live release, and nothing stored.

LEADRE §3.4, §4.4.1: what a nearline worker hands its engine. For `leadre decode`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from leadre.decoding.engine import Engine
from leadre.decoding.load import Precision
from leadre.domain.identity import id_of, ids_of
from leadre.domain.retrieval import Beam
from leadre.errors import ConfigError, InvalidInput
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie.live_mask import LiveMask
from leadre.pipelines.engine import engine_of_release
from leadre.recipe import load_recipe
from leadre.retrieval.retriever import Retriever
from leadre.settings import EngineKind, Settings
from leadre.store.features.client import FeatureClient
from leadre.store.records.database import connect, transaction
from leadre.store.records.events import recent_users
from leadre.store.records.source_ids import user_source_ids
from leadre.store.release.records import ReleaseRow, named_release
from leadre.training.learner.release_folder import load_prompt_encoder, seen_of

if TYPE_CHECKING:
    from sqlalchemy import Engine as Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What an engine is asked for some users.

    Args:
        release: the live one's name.
        engine: the release's, over its index's newest revision.
        users: as their owner names them.
        prompts: one a user, in token ids.
        masks: the ads that each user may get; all None when nothing was filtered.
    """

    release: str
    engine: Engine
    users: tuple[int | str, ...]
    prompts: tuple[tuple[int, ...], ...]
    masks: tuple[LiveMask | None, ...]

    def decode(self, *, beam_width: int) -> list[list[Beam]]:
        """Return each user's ads, best first."""
        return self.engine.generate(self.prompts, beam_width=beam_width, filters=self.masks)


def prepare(
    settings: Settings,
    users: Sequence[int | str] | int,
    *,
    now: datetime,
    kind: EngineKind,
    precision: Precision = "fp32",
    filtered: bool = True,
) -> Prepared:
    """Load the live release and make users' prompts of what the feature store holds.

    Args:
        settings: where things run.
        users: different users, as their owner names them; or a number: so many of those with the newest behaviors.
        now: the instant; later behaviors are not seen.
        kind: which engine.
        precision: of its weights and activations.
        filtered: only ads that run now, accept the user, and are not left out as the user's own; otherwise every ad of
            the index.

    Raises:
        ConfigError: no release is live, or no user has a behavior.
        InvalidInput: a user is not in the catalog.
        ArtifactIncomplete, ReleaseMismatch: the live release cannot be loaded.
        Unavailable: a server does not answer.
    """
    database = connect(settings.database_url, application_name="leadre decode")
    try:
        with transaction(database) as connection:
            live = named_release(connection)
            user_ids = recent_users(connection, now=now, limit=users) if isinstance(users, int) else ids_of(users)
            names = user_source_ids(connection, user_ids)
        if not isinstance(users, int) and (unknown := [user for user in users if id_of(user) not in names]):
            raise InvalidInput(f"user {unknown[0]!r} is not in the catalog; `leadre import` loads users")
        if not user_ids:
            raise ConfigError(f"nobody has a behavior before {now.isoformat()}: import behaviors, or set --now")
        features = FeatureClient(settings.feature_repo, settings.feast_environment())
        retriever = retriever_of(live, settings, database=database, features=features, kind=kind, precision=precision)
        if filtered:
            with transaction(database) as connection:
                retriever.inventory.refresh(connection)
        contexts = features.contexts(user_ids, now=now)
        features.close()
        masks: list[LiveMask | None] = [None] * len(contexts)
        if filtered:
            masks = retriever.loaded.filters(contexts, inventory=retriever.inventory, now=now)
        return Prepared(
            release=live.release,
            engine=retriever.loaded.engine,
            users=tuple(names[user_id] for user_id in user_ids),
            prompts=tuple(tuple(retriever.encoder.encode(retriever.prompt(context))) for context in contexts),
            masks=tuple(masks),
        )
    finally:
        database.dispose()


def retriever_of(
    row: ReleaseRow,
    settings: Settings,
    *,
    database: Database,
    features: FeatureClient,
    kind: EngineKind | None = None,
    precision: Precision | None = None,
) -> Retriever:
    """Load a release over its index's newest revision.

    Args:
        row: the release.
        settings: where things run.
        database: the system of record.
        features: the feature store.
        kind: another engine than the settings'.
        precision: another one than the settings'.

    Raises:
        ArtifactIncomplete, ReleaseMismatch, ConfigError: it cannot be loaded.
    """
    folder, index = Path(row.uri), AdIndex.load(settings.indexes / row.index_version)
    return Retriever(
        database=database,
        features=features,
        engine=engine_of_release(settings, folder, index=index, kind=kind, precision=precision),
        encoder=load_prompt_encoder(folder),
        index=index,
        recipe=load_recipe(folder / "recipe.toml"),
        release=row.release,
        beam_width=settings.beam_width,
        seen=seen_of(folder),
        most_tokens=settings.refresh_tokens,
    )
