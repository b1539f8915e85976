"""The retriever: users in, retrieval lists out and stored. What a nearline worker does with a batch.

LEADRE §4.4.1: read contexts from the feature store, render prompts, generate S-IDs under the trie, write features.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from leadre.decoding.engine import Engine
from leadre.domain.retrieval import RetrievalList
from leadre.domain.users import Context
from leadre.evaluation.baselines import Seen
from leadre.indexing.ad_index import AdIndex
from leadre.prompts.fit_length import PromptEncoder
from leadre.prompts.render import Prompt
from leadre.recipe import Recipe
from leadre.retrieval.inventory import Inventory
from leadre.retrieval.loaded_release import LoadedRelease
from leadre.store.features.client import FeatureClient
from leadre.store.records.database import session, transaction
from leadre.store.records.known.given import summarize_given

if TYPE_CHECKING:
    from sqlalchemy import Engine as Database

LIVE_ADS_AGE = timedelta(seconds=10)
"""How long a paused ad may still be retrieved: what changed in the catalog is read after this (ours)."""


class Retriever:
    """One release at work: its index, its prompt encoder, its engine.

    Args:
        database: the system of record.
        features: the feature store.
        engine: generates under `index`.
        encoder: writes prompts in the engine's token ids.
        index: the ads and their S-IDs.
        recipe: the release's; says what a prompt holds.
        release: its name, written beside every list.
        beam_width: ads a user.
        seen: what the release's lists do with a user's own ads.
        inventory: what is known of the ads' states, `Inventory.over` this index; None reads them all first.
        most_tokens: prompt tokens that the engine gets at once; None: all of a batch.
    """

    def __init__(
        self,
        *,
        database: Database,
        features: FeatureClient,
        engine: Engine,
        encoder: PromptEncoder,
        index: AdIndex,
        recipe: Recipe,
        release: str,
        beam_width: int,
        seen: Seen = "keep",
        inventory: Inventory | None = None,
        most_tokens: int | None = None,
    ) -> None:
        self.release = release
        self.index = index
        self.encoder = encoder
        self.loaded = LoadedRelease(
            release=release, engine=engine, encoder=encoder, index=index, recipe=recipe, seen=seen
        )
        self._database, self._features, self.beam_width = database, features, beam_width
        self.inventory = inventory or Inventory(index)
        self._inventory_at: datetime | None = None
        self._most_tokens = most_tokens

    def refresh(self, user_ids: Sequence[int], *, now: datetime, release_epoch: int = 0) -> list[RetrievalList]:
        """Retrieve ads for users as of `now`, and store the lists with their features.

        The users' summaries and sequences are computed anew first, so that a list rests on the newest behaviors.

        Args:
            user_ids: different users; one without any history gets a list as well.
            now: the instant; later behaviors are not seen.
            release_epoch: `ReleaseRow.sequence` of the release, which a promotion changes without loading it anew; 0
                unless given (ours): its lists give way to those of any promotion.

        Returns:
            One list a user, in the order given; an empty one when no ad may be shown to the user.

        Raises:
            Unavailable: PostgreSQL or Redis does not answer.
            FeatureRowMismatch: the feature store lost a user.
        """
        if not user_ids:
            return []
        with session(self._database) as connection:
            window_days = self.loaded.recipe.prompt.window_days
            # A behavior that arrives from here on may be in the list though it does not say so. The other way round it
            # would be missing from a list that claims it.
            sequences = summarize_given(connection, user_ids, now=now, window_days=window_days).known
        self._features.refresh_user_features(user_ids, now=now)
        contexts = self._features.contexts(user_ids, now=now)
        self.read_inventory(now)
        lists = self.loaded.lists(
            contexts,
            inventory=self.inventory,
            beam_width=self.beam_width,
            now=now,
            most_tokens=self._most_tokens,
            release_epoch=release_epoch,
            behavior_sequences=sequences,
        )
        self._features.push_lists(lists, index=self.index)
        return lists

    def prompt(self, context: Context) -> Prompt:
        """Return the prompt that the release's recipe makes of a context."""
        return self.loaded.prompt(context)

    def read_inventory(self, now: datetime) -> None:
        """Read what changed in the catalog, unless that was done less than `LIVE_ADS_AGE` before `now`.

        Raises:
            Unavailable: PostgreSQL does not answer.
        """
        if self._inventory_at is None or not timedelta() <= now - self._inventory_at < LIVE_ADS_AGE:
            with transaction(self._database) as connection:
                self.inventory.refresh(connection)
            self._inventory_at = now
