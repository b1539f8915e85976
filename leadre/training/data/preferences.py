"""Preference pairs: of two ads that a user is likely to click or convert, the one with the higher eCPM is chosen.

LEADRE §4.3.2. Likely ads are known from the log (the user clicked both) or from the model (it generated both).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from leadre.domain.behavior import Impression
from leadre.prompts.fit_length import PromptEncoder
from leadre.training.data.examples import TrainingData

MINIMUM_GAIN = 1.2
"""A chosen ad earns at least this many times what the rejected one does: smaller differences are noise (ours)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceExample:
    """A prompt and two responses, as token ids."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """Two ads that a user is likely to click: `chosen` earns more. The prompt is that of a position in the sequence."""

    user: int
    position: int
    chosen: int
    rejected: int


def from_impressions(
    impressions: Iterable[Impression], data: TrainingData, *, user_numbers: Mapping[int, int]
) -> list[Preference]:
    """Pair the ads that a user clicked or converted.

    The context is the one before the earlier of the two; what was shown from a user's first held-out ad on is left out.

    Args:
        impressions: in any order.
        data: users by number, their sequences and targets.
        user_numbers: from user id to the number in `data`.
    """
    liked: dict[int, list[Impression]] = {}
    for shown in impressions:
        number = user_numbers.get(shown.user_id)
        if number is not None and (shown.clicked or shown.converted) and data.sid_of(shown.ad_id) is not None:
            liked.setdefault(number, []).append(shown)
    pairs = []
    for user, shows in liked.items():
        position_of = {
            (data.sequences[user][at].item_id, _instant(data.sequences[user][at].occurred_at)): at
            for at in data.targets[user]
        }
        placed = [(position_of.get((shown.ad_id, _instant(shown.occurred_at)), -1), shown) for shown in shows]
        known = sorted((pair for pair in placed if pair[0] >= 0), key=lambda pair: pair[0])
        # Neighbours in time only: later ads answer to intents that the earlier context cannot show.
        for (position, earlier), (_, later) in pairwise(known):
            better, worse = (earlier, later) if earlier.ecpm > later.ecpm else (later, earlier)
            if better.ad_id != worse.ad_id and better.ecpm >= MINIMUM_GAIN * worse.ecpm:
                pairs.append(Preference(user=user, position=position, chosen=better.ad_id, rejected=worse.ad_id))
    return pairs


def from_candidates(
    candidates: Sequence[tuple[int, int, Sequence[int]]],
    ecpm: Mapping[int, float],
    data: TrainingData,
    *,
    pairs_each: int,
    seed: int,
) -> list[Preference]:
    """Pair ads that the fine-tuned model generated for one context: both likely, one earning more.

    The ad that the user did click there counts as likely too, and is never the rejected one: that holds the hit ratio.

    Args:
        candidates: (user number, position of a target, ad ids best first) for each context.
        ecpm: of each ad.
        data: knows the targets.
        pairs_each: pairs of one context at most.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    pairs = []
    for user, position, generated in candidates:
        clicked = data.sequences[user][position].item_id
        ads = [clicked, *(ad for ad in generated if ad != clicked)]
        worth: NDArray[np.float64] = np.array([ecpm.get(ad, 0.0) for ad in ads])
        better, worse = np.nonzero(worth[:, None] >= MINIMUM_GAIN * np.maximum(worth[None, 1:], 1e-12))
        for pick in rng.permutation(len(better))[:pairs_each]:
            chosen, rejected = ads[int(better[pick])], ads[int(worse[pick]) + 1]
            pairs.append(Preference(user=user, position=position, chosen=chosen, rejected=rejected))
    return pairs


def encode_pairs(
    pairs: Sequence[Preference], data: TrainingData, encoder: PromptEncoder, *, limit: int, seed: int
) -> list[PreferenceExample]:
    """Return at most `limit` pairs, drawn by `seed`, as token ids; the prompt is the serving form."""
    order = np.random.default_rng(seed).permutation(len(pairs))[:limit]
    prompts: dict[tuple[int, int], tuple[int, ...]] = {}
    examples = []
    for at in sorted(order.tolist()):
        pair = pairs[at]
        key = (pair.user, pair.position)
        if key not in prompts:
            prompts[key] = tuple(encoder.encode(data.prompt(*key, augment=False)))
        chosen, rejected = data.sid_of(pair.chosen), data.sid_of(pair.rejected)
        if chosen is None or rejected is None:
            continue
        ids = encoder.vocabulary.sid_ids
        examples.append(
            PreferenceExample(prompt=prompts[key], chosen=tuple(ids(chosen)), rejected=tuple(ids(rejected)))
        )
    return examples


def _instant(time: datetime) -> int:
    """Return milliseconds since 1970: sequences keep times as floats, which round microseconds."""
    return round(time.timestamp() * 1000)
