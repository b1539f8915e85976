"""A release in memory: contexts in, retrieval lists out. What serving now and decoding the past have in common.

LEADRE §3.4, §4.4.1: render prompts, generate S-IDs under the trie, for the ads that may be shown.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import Histogram

from leadre.decoding.engine import Engine
from leadre.domain.retrieval import Beam, RetrievalList
from leadre.domain.semantic_id import SemanticId
from leadre.domain.users import Context
from leadre.errors import UnknownAd
from leadre.evaluation.baselines import Seen
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask
from leadre.prompts.fit_length import PromptEncoder
from leadre.prompts.render import Prompt, render
from leadre.recipe import Recipe
from leadre.retrieval.inventory import Inventory
from leadre.retrieval.own_ads import own_rows, without
from leadre.traces import traced

INFERENCE_SECONDS = Histogram(
    "leadre_inference_seconds_per_user",
    "Of one call of the engine, a user.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedRelease:
    """A release's model over its index.

    Args:
        release: its name, written beside every list.
        engine: generates under `index`.
        encoder: writes prompts in the engine's token ids.
        index: the ads and their S-IDs.
        recipe: the release's; says what a prompt holds.
        seen: what its lists do with a user's own ads.
    """

    release: str
    engine: Engine
    encoder: PromptEncoder
    index: AdIndex
    recipe: Recipe
    seen: Seen = "keep"

    @traced("engine")
    def lists(
        self,
        contexts: Sequence[Context],
        *,
        inventory: Inventory,
        beam_width: int,
        now: datetime,
        most_tokens: int | None = None,
        release_epoch: int = 0,
        behavior_sequences: Mapping[int, int] | None = None,
    ) -> list[RetrievalList]:
        """Return the list of each user as of `now`, an empty one when no ad may be shown to the user.

        Args:
            contexts: as of `now`, of different users.
            inventory: which ads of `index` may be shown to whom.
            beam_width: ads a user.
            now: when the lists are generated.
            most_tokens: prompt tokens that the engine gets at once; None: all.
            release_epoch: `ReleaseRow.sequence` of the live release; 0, unless given, marks lists of the past.
            behavior_sequences: of users, how many positive behaviors were known when their contexts were read; 0 of
                others (ours).

        Raises:
            InvalidInput: as `Engine.generate`.
        """
        prompts = [self.encoder.encode(self.prompt(context)) for context in contexts]
        filters = self.filters(contexts, inventory=inventory, now=now)
        beams: list[list[Beam]] = []
        for part in parts_of([len(prompt) for prompt in prompts], most_tokens):
            began = time.perf_counter()
            beams += self.engine.generate(prompts[part], beam_width=beam_width, filters=filters[part])
            INFERENCE_SECONDS.observe((time.perf_counter() - began) / (part.stop - part.start))
        sequences = behavior_sequences or {}
        return [
            RetrievalList(
                user_id=context.profile.user_id,
                release=self.release,
                index_version=self.index.version,
                generated_at=now,
                event_at=context.newest_behavior_at,
                beams=tuple(found),
                release_epoch=release_epoch,
                behavior_sequence=sequences.get(context.profile.user_id, 0),
            )
            for context, found in zip(contexts, beams, strict=True)
        ]

    def filters(self, contexts: Sequence[Context], *, inventory: Inventory, now: datetime) -> list[LiveMask | None]:
        """Return the ads that each user may get: those that may be shown, without own ones where they are left out."""
        masks = [inventory.mask(context.profile, now) for context in contexts]
        days = self.recipe.prompt.window_days
        own = own_rows(contexts, seen=self.seen, index=self.index, window_days=days)
        return without(masks, own, leaves=len(self.index))

    def prompt(self, context: Context) -> Prompt:
        """Return the prompt that the release's recipe makes of a context."""
        return render(context, recipe=self.recipe.prompt, sid_of=self._sid_of)

    def _sid_of(self, ad_id: int) -> SemanticId | None:
        try:
            return self.index.sid(ad_id)
        except UnknownAd:
            return None


def parts_of(lengths: Sequence[int], most_tokens: int | None) -> Iterator[slice]:
    """Yield runs of prompts that together have at most so many tokens, or are one prompt.

    Args:
        lengths: of the prompts, in tokens.
        most_tokens: None makes one run of all.
    """
    first = tokens = 0
    for place, length in enumerate(lengths):
        if most_tokens is not None and place > first and tokens + length > most_tokens:
            yield slice(first, place)
            first, tokens = place, 0
        tokens += length
    if lengths:
        yield slice(first, len(lengths))
