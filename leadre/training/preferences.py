"""Preference pairs: of two ads that a user is likely to click or convert, the one with the higher eCPM is chosen.

LEADRE §4.3.2. Likely ads are known from the log (the user clicked both) or from the model (it generated both).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from leadre.domain.behavior import Impression
from leadre.prompts.fit_length import PromptEncoder
from leadre.training.examples import TrainingData

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
        position_of: dict[tuple[int, datetime], int] = {
            (data.sequences[user][at].item_id, data.sequences[user][at].occurred_at): at for at in data.targets[user]
        }
        known = [
            (position_of[shown.ad_id, shown.occurred_at], shown)
            for shown in shows
            if (shown.ad_id, shown.occurred_at) in position_of
        ]
        known.sort(key=lambda pair: pair[0])
        # Neighbours in time: later ads answer to intents that the earlier context cannot show.
        for (position, earlier), (_, later) in zip(known, known[1:], strict=False):
            if earlier.ad_id == later.ad_id:
                continue
            better, worse = (earlier, later) if earlier.ecpm > later.ecpm else (later, earlier)
            if better.ecpm >= MINIMUM_GAIN * worse.ecpm:
                pairs.append(Preference(user=user, position=position, chosen=better.ad_id, rejected=worse.ad_id))
    return pairs


def from_candidates(
    candidates: Sequence[tuple[int, int, Sequence[int]]], ecpm: Mapping[int, float], *, pairs_each: int, seed: int
) -> list[Preference]:
    """Pair ads that the fine-tuned model generated for one context: both likely, one earning more.

    Args:
        candidates: (user number, position, ad ids best first) for each context.
        ecpm: of each ad.
        pairs_each: pairs of one context at most.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    pairs = []
    for user, position, ads in candidates:
        worth: NDArray[np.float64] = np.array([ecpm.get(ad, 0.0) for ad in ads])
        better, worse = np.nonzero(worth[:, None] >= MINIMUM_GAIN * np.maximum(worth[None, :], 1e-12))
        for pick in rng.permutation(len(better))[:pairs_each]:
            chosen, rejected = ads[int(better[pick])], ads[int(worse[pick])]
            pairs.append(Preference(user=user, position=position, chosen=chosen, rejected=rejected))
    return pairs


def ecpm_of_ads(impressions: Iterable[Impression], bids: Mapping[int, float]) -> dict[int, float]:
    """Return each ad's mean eCPM over its impressions; one never shown gets its bid times the usual eCPM of a bid.

    Args:
        impressions: the log.
        bids: of every ad.
    """
    totals: dict[int, float] = {}
    counts: dict[int, int] = {}
    for shown in impressions:
        totals[shown.ad_id] = totals.get(shown.ad_id, 0.0) + shown.ecpm
        counts[shown.ad_id] = counts.get(shown.ad_id, 0) + 1
    means = {ad: total / counts[ad] for ad, total in totals.items()}
    paid = sum(bids.get(ad, 0.0) for ad in means)
    rate = sum(means.values()) / paid if paid else 1.0
    return {ad: means.get(ad, rate * bid) for ad, bid in bids.items()} | means


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
