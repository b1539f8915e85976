"""Prompt augmentation: one sequence becomes several samples.

LEADRE §4.2.2: several wordings (`templates.WORDINGS`), profile reordering (`render`'s `profile_seed`), and the reuse of
positive interactions, here.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from leadre.prompts.templates import WORDINGS
from leadre.recipe import PromptRecipe

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """How one sample's prompt is written: arguments of `render`."""

    wording: int
    profile_seed: int | None


def target_positions(is_ad: Sequence[bool], *, reuse: bool) -> list[int]:
    """Return the positions of a sequence that become targets, newest first; a target's history is all before it.

    Args:
        is_ad: for each positive behavior, oldest first, whether it is an ad's.
        reuse: every ad (§4.2.2, "Ad Positive Interaction Reuse"), else the last one alone.
    """
    positions = [at for at in range(len(is_ad) - 1, -1, -1) if is_ad[at]]
    return positions if reuse else positions[:1]


def reuse_positives(sequence: Sequence[Item], is_ad: Sequence[bool]) -> list[tuple[Sequence[Item], Item]]:
    """Return the paper's samples, newest first: [c1, a2, a3, c4, a5] gives ([c1, a2, a3, c4], a5), ([c1, a2], a3), …

    The paper prints its third sample as ⟨[c1, a2]⟩, without a target; we read ⟨[c1], a2⟩.
    """
    return [(sequence[:at], sequence[at]) for at in target_positions(is_ad, reuse=True)]


def variation(recipe: PromptRecipe, *, seed: int) -> Variation:
    """Draw how a training sample's prompt is written; the same seed gives the same variation."""
    draw = random.Random(seed)  # noqa: S311 - augmentation, not a secret
    wording = draw.randrange(min(recipe.templates, len(WORDINGS)))
    return Variation(wording=wording, profile_seed=draw.randrange(2**31) if recipe.reorder_profile else None)
