"""From a user's context to a prompt: segments of text, S-IDs and the learnable token.

LEADRE §4.2.1. Text stays text and S-IDs stay codes until `PromptEncoder` turns each into ids by its own way: whatever
a title says, it cannot become an S-ID.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from itertools import chain
from typing import Literal

from leadre.domain.behavior import Domain, window_start
from leadre.domain.semantic_id import SemanticId
from leadre.domain.users import Context, ContextBehavior, InterestSummary, Profile
from leadre.errors import InvalidInput
from leadre.prompts import templates
from leadre.prompts.templates import WORDINGS, Part
from leadre.recipe import PromptRecipe

MAX_TITLE = 256
"""Characters kept of a title, a category or a profile field."""
MAX_DESCRIPTION = 2048
"""Characters kept of an ad's description."""
_DAY = timedelta(days=1)
# Controls, format characters that hide or reorder text, lone surrogates, and the field separator.
_NOISE = re.compile(r"[\x00-\x20\x7f-\xa0\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff^]+")


@dataclass(frozen=True, slots=True)
class Text:
    """Text, trusted or not: always encoded by a tokenizer without added tokens."""

    text: str


@dataclass(frozen=True, slots=True)
class Sid:
    """An S-ID, spliced in by token id."""

    sid: SemanticId


@dataclass(frozen=True, slots=True)
class Learnable:
    """The soft-prompt token."""


Segment = Text | Sid | Learnable


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt in three pieces, so that it can be shortened: `behaviors` are oldest first and may be dropped."""

    head: tuple[Segment, ...]
    behaviors: tuple[tuple[Segment, ...], ...] = ()
    tail: tuple[Segment, ...]

    def text(self) -> str:
        """Return the prompt as the paper prints it, for humans."""
        return "".join(_written(segment) for segment in chain(self.head, *self.behaviors, self.tail))


def render(
    context: Context,
    *,
    recipe: PromptRecipe,
    sid_of: Callable[[int], SemanticId | None],
    describe: Literal["sid", "title"] = "sid",
    wording: int = 0,
    profile_seed: int | None = None,
) -> Prompt:
    """Write the main task's prompt.

    Args:
        context: the user at an instant; times are printed in whole days before `context.now`.
        recipe: which parts, in which order; with the template "one_pass" the summary follows the sequence.
        sid_of: S-ID of an ad id, or None when the index does not hold it (its title is printed instead).
        describe: "title" prints ads' titles in place of their S-IDs: the implicit alignment task (§4.3.1).
        wording: 0 is the paper's, up to `len(templates.WORDINGS) - 1` (§4.2.2).
        profile_seed: shuffle the profile's parts by this seed (§4.2.2); None keeps the paper's order.

    Raises:
        InvalidInput: no such wording.
    """
    if not 0 <= wording < len(WORDINGS):
        raise InvalidInput(f"wording {wording} is not one of the {len(WORDINGS)}; use 0 to {len(WORDINGS) - 1}")
    words = WORDINGS[wording]
    kept = list(_kept_behaviors(context, recipe))
    parts: dict[Part, tuple[Segment, ...]] = {
        "profile": _profile(context.profile, profile_seed),
        "summary": _summary(context.summary, recipe) if recipe.summary else (),
        "sequence": (Text(templates.SEQUENCE),) if kept else (),
    }
    order = ("profile", "sequence", "summary") if recipe.template == "one_pass" else words.order
    present = [part for part in order if parts[part]]

    head: list[Segment] = [Text(words.opening)]
    head += [Learnable()] if recipe.learnable_token else []
    head += [Text(words.role)]
    tail: list[Segment] = []
    piece = head
    for part in present:
        piece += parts[part]
        if part == "sequence":
            piece = tail
        if part != present[-1]:
            piece.append(Text(templates.AFTER_PART[part]))
    tail.append(Text(words.question + templates.RESPONSE))

    last = len(kept) - 1
    behaviors = tuple(
        (*_behavior(shown, context, sid_of if describe == "sid" else None), *((Text("; "),) if at < last else ()))
        for at, shown in enumerate(kept)
    )
    return Prompt(head=tuple(head), behaviors=behaviors, tail=tuple(tail))


def render_explicit(description: str, *, recipe: PromptRecipe) -> Prompt:
    """Write the explicit alignment task's prompt: an ad's description in, its S-ID expected (§4.3.1).

    Args:
        description: the ad's description, as the index encodes it; cut after `MAX_DESCRIPTION` characters.
        recipe: says whether the learnable token leads.
    """
    lead: tuple[Segment, ...] = (Learnable(),) if recipe.learnable_token else ()
    before, after = Text(templates.EXPLICIT_BEFORE), Text(templates.EXPLICIT_AFTER + templates.RESPONSE)
    return Prompt(head=(*lead, before, Text(clean(description, limit=MAX_DESCRIPTION))), tail=(after,))


@lru_cache(maxsize=65_536)
def clean(text: str, *, limit: int = MAX_TITLE) -> str:
    """Return untrusted text on one line, without control characters and separators, cut after `limit` characters.

    No Unicode normalisation: it would turn look-alikes into the real thing.
    """
    return _NOISE.sub(" ", text[: 4 * limit]).strip()[:limit].rstrip()


def _kept_behaviors(context: Context, recipe: PromptRecipe) -> Iterator[ContextBehavior]:
    oldest = window_start(context.now, days=recipe.window_days)
    for shown in context.behaviors:
        behavior = shown.behavior
        in_time = oldest <= behavior.occurred_at <= context.now
        if in_time and behavior.positive and (recipe.content or behavior.domain is Domain.AD):
            yield shown


def _profile(profile: Profile, seed: int | None) -> tuple[Segment, ...]:
    age = templates.AGE.format(profile.age) if profile.age is not None else ""
    phrases = [f"{age} {clean(profile.sex)}".strip()]
    for template, value in (
        (templates.RESIDENCE, profile.residence),
        (templates.EDUCATION, profile.education_level),
        (templates.OCCUPATION, profile.occupation),
        (templates.CONSUMPTION, profile.consumption_level),
    ):
        known = clean(value)
        phrases.append(template.format(known) if known else "")
    present = [phrase for phrase in phrases if phrase]
    if seed is not None:
        random.Random(seed).shuffle(present)  # noqa: S311 - augmentation, not a secret
    return tuple(Text(f"{', ' * (at > 0)}{phrase}") for at, phrase in enumerate(present))


def _summary(summary: InterestSummary, recipe: PromptRecipe) -> tuple[Segment, ...]:
    categories = _counted(templates.SUMMARY, summary.liked[: recipe.summary_categories])
    spus = _counted(templates.SUMMARY_SPUS, summary.liked_spus[: recipe.summary_spus])
    return (*categories, *((Text("; "),) if categories and spus else ()), *spus)


def _counted(lead: str, names: Sequence[tuple[str, int]]) -> tuple[Segment, ...]:
    shown = [(clean(name), count) for name, count in names if clean(name)]
    if not shown:
        return ()
    # Name and count are segments of their own: both repeat over users, so the encoder remembers them.
    pieces = [(name, templates.SUMMARY_COUNT.format(count=count)) for name, count in shown]
    text = chain.from_iterable(
        (name, f"{count}{'; ' * (at < len(pieces))}") for at, (name, count) in enumerate(pieces, 1)
    )
    return (Text(lead), *map(Text, text))


def _behavior(
    shown: ContextBehavior, context: Context, sid_of: Callable[[int], SemanticId | None] | None
) -> tuple[Segment, ...]:
    behavior = shown.behavior
    days = (context.now - behavior.occurred_at) // _DAY
    when = Text(templates.SEQUENCE_TIME.format(days=days, behavior_type=templates.BEHAVIOR_TYPES[behavior.action]))
    sid = sid_of(behavior.item_id) if sid_of is not None and behavior.domain is Domain.AD else None
    return (when, Text(clean(shown.title)) if sid is None else Sid(sid))


def _written(segment: Segment) -> str:
    match segment:
        case Text(text):
            return text
        case Sid(sid):
            return str(sid)
        case Learnable():
            return templates.LEARNABLE
