"""A user: what is known, the prompt, the list as it is online, the ranker's features, and how fresh all of it is.

LEADRE §4.2.1 (context, prompt), §4.4.1 (list), §5.3 (features). No decoding: the search has a page of its own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from leadre.console.answers import page
from leadre.console.pages.asked import Named, named
from leadre.console.sight import Sight
from leadre.errors import Unavailable
from leadre.explain import AdLabel, ad_labels, prompt_parts
from leadre.serving.http.messages import Answer, Request
from leadre.store.features.list_reader import RetrievedRow
from leadre.store.records.catalog import profiles
from leadre.store.records.database import session
from leadre.store.records.source_ids import holders

TARGETS = 12
"""Ads of the list whose item-side features are shown (ours)."""
ITEM_SIDE = (
    *("hit", "rank", "probability", "longest_shared_prefix"),
    *("prefix_mass_1", "prefix_mass_2", "prefix_mass_3", "prefix_mass_4"),
    *("first_category_mass", "second_category_mass", "advertiser_mass", "max_cosine", "mean_cosine"),
)
"""Features that differ from target ad to target ad, in the order of the page; docs/features.md lists all."""
USER_SIDE = (
    *("retrieved_count", "top_probability", "entropy", "category_concentration", "expected_ecpm", "list_age_s"),
    *("categories", "category_probabilities", "release", "index_version"),
)
"""Features of the list, likewise."""


def show(sight: Sight, request: Request) -> Answer:
    """Show a user.

    Raises:
        InvalidInput: no id.
        Unavailable: a server does not answer, or the feature store is not open yet.
    """
    user, now = named(request, "id"), sight.clock()
    with session(sight.database) as connection:
        known = holders(connection, [user.number])["users"]
        source = profiles(connection, [user.number]).get(user.number)
    if user.number not in known:
        return page("nobody.html", status=404, here="", kind="user", name=user.name)
    return page("user.html", here="user", tab="known", user=user, profile=source, **_online(sight, user, now=now))


def _online(sight: Sight, user: Named, *, now: datetime) -> dict[str, Any]:
    """Return what the online store has; while it cannot be asked, why."""
    try:
        features = sight.features
    except Unavailable as error:
        return {"context": None, "trouble": str(error)}
    (context,) = features.contexts([user.number], now=now)
    (row,) = features.retrieval_lists([user.number])
    retriever = sight.retriever
    prompt = retriever.prompt(context) if retriever else None
    asked = list(row.ad_ids) if row else []
    with session(sight.database) as connection:
        labels = ad_labels(connection, asked)
    targets = asked[:TARGETS]
    values = features.ranker_features(user.number, targets, now=now) if targets else {}
    return {
        "context": context,
        "trouble": sight.trouble,
        "behaviors": context.behaviors[::-1],
        "counts": Counter(entry.behavior.domain.value for entry in context.behaviors),
        "prompt": list(prompt_parts(prompt)) if prompt else [],
        "prompt_tokens": len(retriever.encoder.encode(prompt)) if retriever and prompt else 0,
        "row": row,
        "list_age_s": (now - row.generated_at).total_seconds() if row else None,
        "stale": bool(row and retriever and row.release != retriever.loaded.release),
        "entries": _entries(row, labels) if row else [],
        "user_side": {name: values[name][0] for name in USER_SIDE if name in values},
        "item_side": _per_target(values, targets, labels),
        "item_columns": [name for name in ITEM_SIDE if name in values],
        "times": {
            view: (at, None if at is None else (now - at).total_seconds())
            for view, at in features.row_times(user.number).items()
        },
    }


def _entries(row: RetrievedRow, labels: Mapping[int, AdLabel]) -> list[dict[str, Any]]:
    weights = [math.exp(score) for score in row.log_probabilities]
    total = sum(weights) or 1.0
    return [
        {"label": labels[ad_id], "sid": sid, "probability": weight, "share": weight / total}
        for ad_id, sid, weight in zip(row.ad_ids, row.sids, weights, strict=True)
    ]


def _per_target(
    values: Mapping[str, Sequence[Any]], targets: Sequence[int], labels: Mapping[int, AdLabel]
) -> list[dict[str, Any]]:
    columns = [name for name in ITEM_SIDE if name in values]
    return [
        {"label": labels[ad_id], "cells": [values[name][at] for name in columns]} for at, ad_id in enumerate(targets)
    ]
