"""What an evaluation asks an engine: every evaluated user's prompt and filter as of the test ad, without it.

LEADRE §5.1.1. Two orders: the data's own, and with ties shuffled, which changes the prompts of some users. Several
engines may answer the same questions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from leadre.decoding.engine import Engine
from leadre.domain.semantic_id import SemanticId
from leadre.errors import InvalidInput, ReleaseMismatch
from leadre.evaluation.baselines import Histories, Seen
from leadre.evaluation.ranking import ABSENT
from leadre.evaluation.split import Split, swap, swapped
from leadre.indexing.ad_index import AdIndex
from leadre.pipelines.histories import TrainingHistories, ad_histories, split_of, training_histories
from leadre.prompts.fit_length import PromptEncoder
from leadre.prompts.render import render
from leadre.recipe import EvaluationRecipe
from leadre.retrieval.own_ads import own_rows, without
from leadre.store.records.events import Sequences
from leadre.training.data.contexts import ContextBuilder

Progress = Callable[[str, int, int | None], None]
Lists = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Ads best first, padded with `ABSENT`, int64[n, K]: in the data's own order, and with ties shuffled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """The questions of one evaluation, and what is needed to answer them without an engine.

    Args:
        data: the behaviors in either order.
        split: of the n users that are evaluated.
        learnt: what training may see of all users.
        before: either order's ads before each user's test ad.
        again: which of the n users have another prompt when ties are shuffled, int64[m].
        prompts: n of the data's order, then the m others.
        own: of each prompt, rows of the index that are left out.
        index: the ads.
    """

    data: tuple[Sequences, Sequences]
    split: Split
    learnt: TrainingHistories
    before: tuple[Histories, Histories]
    again: NDArray[np.int64]
    prompts: list[list[int]]
    own: list[NDArray[np.int64]]
    index: AdIndex

    @property
    def targets(self) -> Lists:
        """The test ad of each user in either order, int64[n] each."""
        canonical, shuffled = (data.item_ids[self.split.test] for data in self.data)
        return canonical, shuffled

    def answers(
        self, engine: Engine, *, width: int, batch: int, what: str = "users evaluated", progress: Progress | None
    ) -> Lists:
        """Return the lists of an engine.

        Args:
            engine: over the index.
            width: beams.
            batch: prompts decoded at once.
            what: said in the progress.
            progress: called with what is done.

        Raises:
            ReleaseMismatch: the engine generates S-IDs of another index.
        """
        check_index(engine, self.index)
        lists = np.full((len(self.prompts), width), ABSENT, np.int64)
        order = sorted(range(len(self.prompts)), key=lambda at: len(self.prompts[at]))  # those of like length together
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            found = engine.generate(
                [self.prompts[at] for at in rows],
                beam_width=width,
                filters=without([None] * len(rows), [self.own[at] for at in rows], leaves=len(self.index)),
            )
            for row, beams in zip(rows, found, strict=True):
                lists[row, : len(beams)] = [beam.ad_id for beam in beams]
            if progress is not None:
                progress(what, start + len(rows), len(order))
        canonical = lists[: len(self.split.users)]
        shuffled = canonical.copy()
        shuffled[self.again] = lists[len(canonical) :]
        return canonical, shuffled


def ask(
    sequences: Sequences,
    contexts: ContextBuilder,
    *,
    index: AdIndex,
    encoder: PromptEncoder,
    recipe: EvaluationRecipe,
    seen: Seen,
) -> Questions:
    """Make the questions.

    Args:
        sequences: all users' positive behaviors.
        contexts: over them.
        index: the ads.
        encoder: of the release; its recipe says what a prompt holds.
        recipe: who is evaluated on what.
        seen: what the release's lists do with a user's own ads.

    Raises:
        InvalidInput: no user has enough ad behaviors to be evaluated.
    """
    everyone = split_of(sequences, recipe)
    if len(everyone.users) == 0:
        raise InvalidInput(
            "no user has 3 clicks or conversions on ads (with evaluation.split='global_time', 2 before the cut and 1 "
            "after it); import behaviors before evaluating"
        )
    split = _sample(everyone, recipe.max_users, seed=recipe.seed)
    chosen = swapped(split, seed=recipe.seed)
    again = np.flatnonzero(chosen)
    shuffled = replace(
        sequences,
        item_ids=swap(sequences.item_ids, split, chosen),
        actions=swap(sequences.actions, split, chosen),
    )
    sids = {ad_id: index.sid_at(row) for row, ad_id in enumerate(index.ad_ids.tolist())}
    prompts, own = _asked(contexts, sequences, split, encoder=encoder, sids=sids, seen=seen, index=index)
    more, their = _asked(
        contexts.over(shuffled), shuffled, split.take(again), encoder=encoder, sids=sids, seen=seen, index=index
    )
    before = [ad_histories(data, data.offsets[split.users], split.test) for data in (sequences, shuffled)]
    return Questions(
        data=(sequences, shuffled),
        split=split,
        learnt=training_histories(sequences, everyone),
        before=(before[0], before[1]),
        again=again,
        prompts=prompts + more,
        own=own + their,
        index=index,
    )


def check_index(engine: Engine, index: AdIndex) -> None:
    """Refuse an engine over another index.

    Raises:
        ReleaseMismatch: as it says.
    """
    if engine.index_version != index.version:
        raise ReleaseMismatch(
            f"the engine generates ads of index {engine.index_version}, evaluation has {index.version}; load that one"
        )


def _sample(split: Split, users: int, *, seed: int) -> Split:
    if not 0 < users < len(split.users):
        return split
    return split.take(np.sort(np.random.default_rng(seed).permutation(len(split.users))[:users]))


def _asked(
    contexts: ContextBuilder,
    sequences: Sequences,
    split: Split,
    *,
    encoder: PromptEncoder,
    sids: Mapping[int, SemanticId],
    seen: Seen,
    index: AdIndex,
) -> tuple[list[list[int]], list[NDArray[np.int64]]]:
    prompts, own = [], []
    for user, test in zip(split.users.tolist(), split.test.tolist(), strict=True):
        now = datetime.fromtimestamp(float(sequences.occurred_at_s[test]), UTC)
        context = contexts.context(user, test - int(sequences.offsets[user]), now)
        prompts.append(encoder.encode(render(context, recipe=encoder.recipe, sid_of=sids.get)))
        own += own_rows([context], seen=seen, index=index, window_days=encoder.recipe.window_days)
    return prompts, own
