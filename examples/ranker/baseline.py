"""The baseline ranker's features: user, ad, both together, co-visitation and popularity, each as of its row's time.

What a team has before LEADRE. One pass through what happened, in order of time: a row sees what happened before it, and
nothing that happened at its own instant.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import Engine, text

from leadre.store.records.database import transaction

USER = ("u_impressions", "u_positives", "u_click_rate", "u_days_since", "u_ads", "u_contents", "u_age", "u_arpu")
AD = ("a_impressions", "a_positives", "a_click_rate", "a_recent", "a_days_known", "a_category_rate", "a_bid")
BOTH = (
    *("ua_impressions", "ua_positives", "ua_same_first", "ua_same_second", "ua_same_advertiser"),
    *("ua_days_since_second", "ua_contents_first", "ua_contents_second"),
)
CO_VISITATION = ("cv_sum", "cv_max", "cv_last", "cv_second")
CODES = ("c_first", "c_second", "c_advertiser", "c_sex", "c_residence", "c_consumption", "c_occupation")
"""Codes of texts: categories to a ranker, not numbers."""
NAMES = (*USER, *AD, *BOTH, *CO_VISITATION, *CODES)
RECENT = 10
"""Positive ads of a user whose followers count (ours)."""
HALF_LIFE_DAYS = 7.0
"""Of recent popularity (ours)."""
_DAY_US = 86_400_000_000
_PRIOR = 20.0


@dataclass(slots=True)
class _Of:
    """What is known of a user, or of an ad."""

    impressions: int = 0
    positives: int = 0
    at: int = 0
    recent: float = 0.0
    known: int = -1
    newest: deque[int] = field(default_factory=lambda: deque(maxlen=RECENT))
    counts: defaultdict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))
    last: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What happened, and who and what there is: read once, for any rows.

    Args:
        events: `at` (Unix us), `kind` (0 impression, 1 positive, 2 content), `user_id`, `item_id`, by time.
        ads: by ad id: first and second category, advertiser (codes), bid.
        users: by user id: age, arpu, and codes of sex, residence, consumption level, occupation.
        contents: the code of the category of a content item, where an ad category of that name exists.
    """

    events: tuple[NDArray[np.int64], ...]
    ads: dict[int, tuple[int, int, int, float]]
    users: dict[int, tuple[float, float, int, int, int, int]]
    contents: dict[int, int]


def read_past(database: Engine, *, until: datetime) -> Past:
    """Read everything that happened before an instant."""
    with transaction(database) as connection:
        ads = pd.read_sql(
            text("SELECT ad_id, first_category, second_category, advertiser_id, bid FROM ads"), connection
        )
        users = pd.read_sql(
            text("SELECT user_id, age, arpu, sex, residence, consumption_level, occupation FROM users"), connection
        )
        contents = pd.read_sql(text("SELECT content_id, category FROM content_items"), connection)
        events = pd.read_sql(
            text("""
                SELECT (extract(epoch FROM occurred_at) * 1000000)::bigint AS at, 0 AS kind, user_id, ad_id AS item_id
                FROM impressions WHERE occurred_at < :until
                UNION ALL
                SELECT (extract(epoch FROM occurred_at) * 1000000)::bigint, CASE domain WHEN 'ad' THEN 1 ELSE 2 END,
                       user_id, item_id
                FROM behaviors WHERE occurred_at < :until AND action IN ('click', 'conversion', 'watch', 'search')
                ORDER BY 1, 2, 3, 4
            """),
            connection,
            params={"until": until},
        )
    firsts = {name: code for code, name in enumerate(sorted(ads["first_category"].unique()))}
    seconds = {name: code for code, name in enumerate(sorted(ads["second_category"].unique()))}
    advertisers = pd.factorize(ads["advertiser_id"])[0]
    ad_columns = (ads["first_category"].map(firsts), ads["second_category"].map(seconds), advertisers, ads["bid"])
    codes = [pd.factorize(users[name])[0] for name in ("sex", "residence", "consumption_level", "occupation")]
    user_columns = (pd.to_numeric(users["age"]).fillna(-1.0), users["arpu"], *codes)
    of_content = {name: (seconds.get(name, -1), firsts.get(name, -1)) for name in contents["category"].unique()}
    return Past(
        events=tuple(events[name].to_numpy(np.int64) for name in ("at", "kind", "user_id", "item_id")),
        ads=dict(zip(ads["ad_id"].tolist(), zip(*(list(of) for of in ad_columns), strict=True), strict=True)),
        users=dict(zip(users["user_id"].tolist(), zip(*(list(of) for of in user_columns), strict=True), strict=True)),
        contents={
            content: second if second >= 0 else -2 - first  # a name of the second level, or else of the first
            for content, (second, first) in zip(
                contents["content_id"].tolist(), contents["category"].map(of_content), strict=True
            )
        },
    )


def features(past: Past, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the features of rows (`user_id`, `ad_id`, `event_timestamp`), in their order: columns `NAMES`."""
    at_us = rows["event_timestamp"].dt.as_unit("us").astype("int64").to_numpy()
    order = np.argsort(at_us, kind="stable").tolist()
    found = np.zeros((len(rows), len(NAMES)))
    state = _State(past)
    user_ids, ad_ids = rows["user_id"].tolist(), rows["ad_id"].tolist()
    place, (when, kinds, users, items) = 0, (of.tolist() for of in past.events)
    for row in order:
        while place < len(when) and when[place] < at_us[row]:
            state.happen(when[place], kinds[place], users[place], items[place])
            place += 1
        found[row] = state.row(int(at_us[row]), user_ids[row], ad_ids[row])
    return pd.DataFrame(found, columns=list(NAMES), index=rows.index)


class _State:
    """What is known at an instant."""

    def __init__(self, past: Past) -> None:
        self._past = past
        self._users: defaultdict[int, _Of] = defaultdict(_Of)
        self._ads: defaultdict[int, _Of] = defaultdict(_Of)
        self._firsts: defaultdict[int, _Of] = defaultdict(_Of)
        self._together: defaultdict[int, defaultdict[int, float]] = defaultdict(lambda: defaultdict(float))
        self._together_second: defaultdict[int, defaultdict[int, float]] = defaultdict(lambda: defaultdict(float))
        self._all = _Of()

    def happen(self, at: int, kind: int, user_id: int, item_id: int) -> None:
        """Take in one event."""
        user = self._users[user_id]
        if kind == 2:
            user.counts["content", self._past.contents.get(item_id, -1)] += 1
            user.counts["contents", 0] += 1
            return
        ad = self._ads[item_id]
        first, second, advertiser, _ = self._past.ads[item_id]
        if ad.known < 0:
            ad.known = at
        if kind == 0:
            for of in (user, ad, self._firsts[first], self._all):
                of.impressions += 1
            user.counts["shown", item_id] += 1
            return
        for of in (user, ad, self._firsts[first], self._all):
            of.positives += 1
        ad.recent = ad.recent * 0.5 ** ((at - ad.at) / _DAY_US / HALF_LIFE_DAYS) + 1.0
        ad.at = at
        for name, code in (("ad", item_id), ("first", first), ("second", second), ("advertiser", advertiser)):
            user.counts[name, code] += 1
        for other in set(user.newest) - {item_id}:
            self._together[other][item_id] += 1.0
            self._together[item_id][other] += 1.0
            other_second = self._past.ads[other][1]
            self._together_second[other_second][second] += 1.0
        user.newest.append(item_id)
        user.last[second] = at
        user.at = at

    def row(self, at: int, user_id: int, ad_id: int) -> tuple[float, ...]:
        """Return the features of one row, in the order of `NAMES`."""
        user, ad = self._users[user_id], self._ads[ad_id]
        first, second, advertiser, bid = self._past.ads[ad_id]
        age, arpu, *codes = self._past.users[user_id]
        rate = (self._all.positives + 1.0) / (self._all.impressions + _PRIOR)
        of_first = self._firsts[first]
        recent = ad.recent * 0.5 ** ((at - ad.at) / _DAY_US / HALF_LIFE_DAYS)
        positives = max(1, user.positives)
        contents = max(1, user.counts["contents", 0])
        return (
            float(user.impressions),
            float(user.positives),
            (user.positives + _PRIOR * rate) / (user.impressions + _PRIOR),
            _days(at, user.at),
            float(len(set(user.newest))),
            float(user.counts["contents", 0]),
            age,
            arpu,
            float(ad.impressions),
            float(ad.positives),
            (ad.positives + _PRIOR * rate) / (ad.impressions + _PRIOR),
            recent,
            _days(at, max(0, ad.known)),
            (of_first.positives + _PRIOR * rate) / (of_first.impressions + _PRIOR),
            bid,
            float(user.counts["shown", ad_id]),
            float(user.counts["ad", ad_id]),
            user.counts["first", first] / positives,
            user.counts["second", second] / positives,
            user.counts["advertiser", advertiser] / positives,
            _days(at, user.last.get(second, 0)),
            user.counts["content", -2 - first] / contents,
            user.counts["content", second] / contents,
            *self._co_visitation(user, ad_id, second),
            *(float(code) for code in (first, second, advertiser, *codes)),
        )

    def _co_visitation(self, user: _Of, ad_id: int, second: int) -> tuple[float, float, float, float]:
        """Return how often the ad went together with the user's newest ones: cosines of counts, and of categories."""
        beside, popular = self._together[ad_id], max(1, self._ads[ad_id].positives)
        cosines = [
            beside.get(other, 0.0) / (popular * max(1, self._ads[other].positives)) ** 0.5 for other in user.newest
        ]
        of_second = self._together_second[second]
        followed = [of_second.get(self._past.ads[other][1], 0.0) for other in user.newest]
        total = max(1.0, sum(of_second.values()))
        return sum(cosines), max(cosines, default=0.0), cosines[-1] if cosines else 0.0, sum(followed) / total


def _days(at: int, since: int) -> float:
    return (at - since) / _DAY_US if since > 0 else -1.0
