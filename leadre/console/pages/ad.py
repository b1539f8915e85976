"""An ad: its state, its S-ID, the ads that share most of it, and users whose lists hold it. LEADRE §3.2, §4.4.1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from leadre.console.answers import page
from leadre.console.pages.asked import named
from leadre.console.sight import Sight
from leadre.domain.ads import Ad
from leadre.domain.semantic_id import code_token
from leadre.domain.users import Profile
from leadre.errors import LeadreError, Unavailable
from leadre.explain import ad_labels
from leadre.explain.shown import Reason, reasons
from leadre.indexing.ad_index import AdIndex
from leadre.serving.http.messages import Answer, Request
from leadre.store.features.list_reader import RetrievedRow
from leadre.store.quality.listed import listed_users
from leadre.store.records.catalog import read_ads
from leadre.store.records.database import session
from leadre.store.records.source_ids import user_source_ids

NEIGHBOURS, USERS_ASKED, USERS_SHOWN = 20, 2_000, 30
"""Ads beside this one; users whose lists are read to find those that hold it, and how many of them are shown (ours)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Below:
    """The ads that begin with the ad's first `depth` codes: how many, and the token of the last of these codes."""

    depth: int
    token: str
    prefix: str
    ads: int


def show(sight: Sight, request: Request) -> Answer:
    """Show an ad.

    Raises:
        InvalidInput: no id.
        Unavailable: a server does not answer.
    """
    asked, now = named(request, "id"), sight.clock()
    with session(sight.database) as connection:
        ad = next(iter(read_ads(connection, ad_ids=[asked.number])), None)
    if ad is None:
        return page("nobody.html", status=404, here="", kind="ad", name=asked.name)
    return page(
        "ad.html",
        here="ad",
        ad=ad,
        asked=asked,
        against=against(ad, now=now),
        **_in_the_index(sight, ad),
        **_retrieved_by(sight, ad),
    )


def against(ad: Ad, *, now: datetime) -> list[Reason]:
    """Return what keeps an ad from everybody, its targeting left out."""
    return [reason for reason in reasons(ad, Profile(user_id=0), now=now) if reason.kind != "targeting"]


def _in_the_index(sight: Sight, ad: Ad) -> dict[str, Any]:
    try:
        index = sight.index().index
    except LeadreError as error:
        return {"sid": None, "no_sid": str(error), "path": [], "neighbours": []}
    row = int(index.rows(np.array([ad.ad_id], np.int64))[0])
    if row < 0:
        said = f"index {index.version} does not hold it; `leadre index add` gives new ads their S-IDs"
        return {"sid": None, "no_sid": said, "path": [], "neighbours": []}
    near = neighbours(index, row)
    with session(sight.database) as connection:
        labels = ad_labels(connection, [int(index.ad_ids[other]) for _, other in near])
    return {
        "sid": str(index.sid_at(row)),
        "no_sid": "",
        "version": index.version,
        "path": path(index, row),
        "neighbours": [
            {"shared": shared, "sid": str(index.sid_at(other)), "label": labels[int(index.ad_ids[other])]}
            for shared, other in near
        ],
    }


def path(index: AdIndex, row: int) -> list[Below]:
    """Return how many ads begin as an ad's S-ID does, code by code."""
    codes = index.codes[row].tolist()
    found = []
    for depth in range(1, len(codes) + 1):
        low, high = leaves_below(index, codes[:depth])
        token, prefix = code_token(depth - 1, codes[depth - 1]), "-".join(map(str, codes[:depth]))
        found.append(Below(depth=depth, token=token, prefix=prefix, ads=high - low))
    return found


def neighbours(index: AdIndex, row: int, *, most: int = NEIGHBOURS) -> list[tuple[int, int]]:
    """Return (codes shared, row) of the ads that share the longest beginnings with a row's S-ID, nearest first."""
    codes = index.codes[row].tolist()
    found: list[tuple[int, int]] = []
    inner_low, inner_high = row, row + 1
    for depth in range(len(codes) - 1, 0, -1):
        low, high = leaves_below(index, codes[:depth])
        before, after = range(inner_low - 1, low - 1, -1), range(inner_high, high)
        wanted = most - len(found)
        nearest = sorted([*before[:wanted], *after[:wanted]], key=lambda other: (abs(other - row), other))[:wanted]
        found += [(depth, other) for other in nearest]
        inner_low, inner_high = low, high
        if len(found) >= most:
            break
    return found


def leaves_below(index: AdIndex, prefix: list[int]) -> tuple[int, int]:
    """Return the rows whose S-IDs begin with some codes, [low, high); (0, 0) where none does."""
    depth = len(prefix)
    nodes = index.trie.find(np.array([prefix], np.int64).reshape(1, depth))
    if nodes[0] < 0:
        return 0, 0
    low, high = index.trie.leaf_range(depth, nodes)
    return int(low[0]), int(high[0])


def _retrieved_by(sight: Sight, ad: Ad) -> dict[str, Any]:
    """Return who retrieves the ad, of so many users as are asked for their lists."""
    try:
        features = sight.features
    except Unavailable as error:
        return {"holders": [], "holding": 0, "lists": 0, "no_lists": str(error)}
    with session(sight.database) as connection:
        rows = features.retrieval_lists(listed_users(connection, limit=USERS_ASKED))
        holding = sorted((held for held in map(_of(ad), rows) if held), key=lambda held: held["rank"])
        names = user_source_ids(connection, [held["user_id"] for held in holding[:USERS_SHOWN]])
    shown = [{**held, "user": names.get(held["user_id"], held["user_id"])} for held in holding[:USERS_SHOWN]]
    return {
        "holders": shown,
        "holding": len(holding),
        "lists": sum(row is not None for row in rows),
        "no_lists": "",
    }


def _of(ad: Ad) -> Any:
    def held(row: RetrievedRow | None) -> dict[str, Any] | None:
        if row is None or ad.ad_id not in row.ad_ids:
            return None
        place = row.ad_ids.index(ad.ad_id)
        weight = math.exp(row.log_probabilities[place])
        return {
            "user_id": row.user_id,
            "rank": place + 1,
            "probability": weight,
            "at": row.generated_at,
            "release": row.release,
        }

    return held
