"""A user's own ads: whether lists leave them out, and the filters that do it.

Ours; the paper decodes over all live ads (LEADRE §3.4). A product is bought once, an ad is clicked twice: the training
histories say which it is. Validation while training, calibration, evaluation, lists of the past and serving all ask
here. A user's own ads are the clicked and converted ones of the context, as far as they lie in the window of the
prompt: all of them, not only those that the prompt has room for, because the LLM need not have read an ad for the user
to have it. What is older than the window the feature store does not hold, so no list could leave it out when served
(it holds the newest 512 of them).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leadre.domain.behavior import Domain, window_start
from leadre.domain.users import Context
from leadre.evaluation.baselines import Histories, Seen
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask
from leadre.recipe import DecodingRecipe

Rows = NDArray[np.int64]


def seen_policy(recipe: DecodingRecipe, train: Histories) -> Seen:
    """Return what becomes of own ads: what the recipe says, with "auto" what the training histories say."""
    return train.seen if recipe.seen == "auto" else recipe.seen


def own_rows(contexts: Sequence[Context], *, seen: Seen, index: AdIndex, window_days: int) -> list[Rows]:
    """Return the rows of the index, int64 each, that are left out of each user's list; none where own ads are kept.

    Args:
        contexts: as of the instants of the lists.
        seen: the release's.
        index: the ads.
        window_days: of the release's prompts.
    """
    if seen == "keep":
        return [np.empty(0, np.int64)] * len(contexts)
    own = []
    for context in contexts:
        oldest = window_start(context.now, days=window_days)
        own.append(
            [
                known.behavior.item_id
                for known in context.behaviors
                if known.behavior.domain is Domain.AD and known.behavior.occurred_at >= oldest
            ]
        )
    ends = np.cumsum([0, *map(len, own)])
    rows = index.rows(np.array([ad for ads in own for ad in ads], np.int64))
    return [part[part >= 0] for part in np.split(rows, ends[1:-1])]


def without(masks: Sequence[LiveMask | None], own: Sequence[Rows], *, leaves: int) -> list[LiveMask | None]:
    """Return each user's filter without the own ads; filters of users who have none stay the same objects.

    Args:
        masks: which ads each user may get; None: every one.
        own: of each user, rows of the index.
        leaves: ads of the index.
    """
    every = LiveMask.full(leaves) if None in masks and any(map(len, own)) else None
    given = [every if mask is None else mask for mask in masks]
    return [
        mask.without(rows) if mask is not None and len(rows) else before
        for before, mask, rows in zip(masks, given, own, strict=True)
    ]
