"""Training examples: token ids, and which of them the loss reads.

LEADRE §4.3.1. Examples are token ids from the start: TRL never sees a prompt's text. Only an S-ID's codes are
supervised; its length is fixed, so no end of sequence is learned or needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any, Literal

import numpy as np
from datasets import Dataset

from leadre.domain.ads import Ad
from leadre.domain.behavior import Behavior
from leadre.domain.semantic_id import SemanticId
from leadre.domain.users import Context
from leadre.errors import UnknownAd
from leadre.evaluation.baselines import Seen
from leadre.indexing.texts.description import describe
from leadre.prompts.augment import variation
from leadre.prompts.fit_length import TargetedPrompt
from leadre.prompts.render import Prompt, Text, render, render_explicit
from leadre.recipe import PromptRecipe
from leadre.training.data.contexts import ContextBuilder

IGNORED = -100
"""The label of a token that is not supervised (PyTorch's convention)."""

NO_TARGETS = -1
"""First target of a sample that teaches no next ad."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One sample: token ids, and the positions among them that the loss reads, ascending.

    `first_target` is the number of its first supervised ad among all targets of the training data
    (`TrainingData.first_targets`), from which the others count on; `NO_TARGETS` of a sample that has none of them.
    """

    input_ids: tuple[int, ...]
    supervised: tuple[int, ...]
    first_target: int = NO_TARGETS


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """What the tasks make examples of.

    Args:
        ads: the ads of the index.
        sequences: for each user the positive behaviors of both domains, oldest first.
        targets: for each user the positions of `sequences` that may be learned; nothing at or after a held-out ad.
        contexts: what was known before each position.
        sid_of: S-ID of an ad; None when the index does not hold it.
        recipe: how prompts look.
        seed: of augmentation.
        validation: (user, position) of the ads that are held out for validation.
        seen: what lists do with a user's own ads (leadre.retrieval.own_ads).
    """

    ads: Sequence[Ad]
    sequences: Sequence[Sequence[Behavior]]
    targets: Sequence[Sequence[int]]
    contexts: ContextBuilder
    sid_of: Callable[[int], SemanticId | None]
    recipe: PromptRecipe
    seed: int
    validation: Sequence[tuple[int, int]] = ()
    seen: Seen = "keep"

    def first_targets(self) -> list[int]:
        """Return, for each user, how many targets the users before it have: the number of its own first one."""
        return [0, *accumulate(map(len, self.targets))][:-1]

    def answer(self, user: int, position: int) -> SemanticId:
        """Return the S-ID of the ad at a target position.

        Raises:
            UnknownAd: the index does not hold it, so it should not have been a target.
        """
        ad_id = self.sequences[user][position].item_id
        sid = self.sid_of(ad_id)
        if sid is None:
            problem = f"ad {ad_id} is a training target but not in the index; leave it out of `targets`"
            raise UnknownAd(problem).about(ads=[ad_id])
        return sid

    def context(self, user: int, position: int) -> Context:
        """Return what was known of the user at the moment of the behavior at `position`, and without it."""
        return self.contexts.context(user, position, self.sequences[user][position].occurred_at)

    def prompt(self, user: int, position: int, *, titles: bool = False, augment: bool = True) -> Prompt:
        """Return the prompt that asks for the ad at `position`, as of the moment of that ad.

        Args:
            user: number of the user.
            position: the target's, in the user's sequence.
            titles: write ads as titles in place of S-IDs.
            augment: draw wording and profile order; else the serving form.
        """
        drawn = variation(self.recipe, seed=hash((self.seed, user, position)))
        return render(
            self.context(user, position),
            recipe=self.recipe,
            sid_of=self.sid_of,
            describe="title" if titles else "sid",
            wording=drawn.wording if augment else 0,
            profile_seed=drawn.profile_seed if augment else None,
        )


def corpus(data: TrainingData, *, users: int) -> Iterator[str]:
    """Yield the text that a tokenizer for these prompts learns from, each segment as often as prompts repeat it.

    Args:
        data: its ads' descriptions are all read, and the newest prompts of some users.
        users: how many, evenly spread.
    """
    chosen = [user for user, positions in enumerate(data.targets) if positions]
    for user in chosen[:: max(1, len(chosen) // users)]:
        for titles in (False, True):
            yield from _texts(data.prompt(user, data.targets[user][-1], titles=titles))
    for ad in data.ads:
        yield from _texts(render_explicit(describe(ad), recipe=data.recipe))


def with_response(ids: Sequence[int], response: Sequence[int], *, target: int = NO_TARGETS) -> Example:
    """Return the example that learns `response`, the target of that number, after the prompt `ids`."""
    supervised = tuple(range(len(ids), len(ids) + len(response)))
    return Example(input_ids=(*ids, *response), supervised=supervised, first_target=target)


def with_all_targets(prompt: TargetedPrompt, response: Sequence[int], *, target: int = NO_TARGETS) -> Example:
    """Return the example that learns every ad of the prompt's sequence and the response, in one pass.

    Args:
        prompt: its ads are the targets before the response's, without a gap.
        response: the last target's S-ID.
        target: the last target's number.
    """
    inside = tuple(at for at, level in enumerate(prompt.levels) if level >= 0)
    last = with_response(prompt.ids, response)
    first = target - len(inside) // len(response) if target != NO_TARGETS else NO_TARGETS
    return Example(input_ids=last.input_ids, supervised=inside + last.supervised, first_target=first)


def to_dataset(examples: Sequence[Example], *, targets: Literal["leave_out", "number"] = "leave_out") -> Dataset:
    """Return the examples as the trainer reads them: `input_ids`, and `labels` that are -100 where not supervised.

    With `targets="number"` there is the column `first_target` too.
    """
    labels = []
    for example in examples:
        ids = np.array(example.input_ids, np.int64)
        row = np.full(len(ids), IGNORED, np.int64)
        chosen = np.array(example.supervised, np.int64)
        row[chosen] = ids[chosen]
        labels.append(row)
    columns: dict[str, Any] = {"input_ids": [np.array(e.input_ids, np.int64) for e in examples], "labels": labels}
    if targets == "number":
        columns["first_target"] = [example.first_target for example in examples]
    return Dataset.from_dict(columns).with_format("numpy")


def _texts(prompt: Prompt) -> Iterator[str]:
    for segment in chain(prompt.head, *prompt.behaviors, prompt.tail):
        if isinstance(segment, Text):
            yield segment.text
