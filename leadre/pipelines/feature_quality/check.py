"""Feature quality: are the features that rankers read there, fresh, and like those that they were trained on?

LEADRE §4.4.1, §5.3. Everything is measured on samples, whose sizes are said; every bound is ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leadre.derivation import LIST_TTL_S, unpack
from leadre.derivation.user_side import user_numbers
from leadre.evaluation.drift import MUCH_DRIFT
from leadre.pipelines.feature_quality.drift import drift_figures, read_training_set
from leadre.pipelines.feature_quality.figures import Figure, Histogram
from leadre.serving.metrics import Gauge
from leadre.store.quality.samples import (
    ActiveUsers,
    active_users,
    newest_lists,
    newest_times,
    online_records,
    online_times,
    some_ads,
    summarized,
)
from leadre.store.records.database import transaction
from leadre.store.release.records import live_release

if TYPE_CHECKING:
    from feast import FeatureStore
    from sqlalchemy import Connection
    from sqlalchemy import Engine as Database

SAMPLE = 10_000
"""Users looked at: a share of them is right to half a per cent (ours)."""
KEYS = 1_000
"""Keys of each view compared with the online store (ours)."""
FOLLOWING = ("interest_summary", "ad_behavior_sequence", "content_behavior_sequence", "retrieved_ads")
"""The views that follow behaviors. Profiles, ads and S-IDs may be old and right."""
TTL = timedelta(seconds=LIST_TTL_S)

_MEND = {
    "age_seconds": "look whether the workers of `maintenance` and `retrieval` run; `leadre summarize` writes summaries",
    "online_behind_ratio": "run `leadre materialize`, and look whether the worker of `maintenance` does",
    "list_coverage_ratio": "start nearline workers (-Q retrieval); `leadre refresh USER` makes one user's list now",
    "summary_coverage_ratio": "run `leadre summarize`",
    "short_lists_ratio": "too few ads may be shown: see `leadre ads show AD`; `leadre decode USER --all` filters none",
    "live_index_ratio": "lists of another index wait for a refresh of their users: `leadre refresh USER`, or go back: "
    "`leadre release rollback`",
    "neutral_users_ratio": "neutral_ratio says why: without a list or expired: start nearline workers; corrupted: "
    "refresh the user; from_the_future: look at the workers' clocks",
}

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What is still well. All ours.

    Args:
        max_age_s: seconds since the newest row of a view that follows behaviors.
        grace_s: seconds after which a row has to be online, and a behavior in a summary and a list: two rounds of the
            scheduled materialization.
        max_behind: share of keys that are missing online, or older there.
        min_lists: share of active users with a list that is not older than ttl.
        min_summaries: share of active users with an interest summary.
        min_length: ads of a list that is not short.
        max_short: share of short lists.
        min_live: share of lists made under the live release's index.
        max_neutral: share of active users of whom a ranker reads neutral values.
        max_psi: drift of a feature (`leadre.evaluation.drift`).
        min_rows: rows below which drift is not judged: chance alone moves the index of two samples of 500 by .036.
    """

    max_age_s: float = 86_400.0
    grace_s: float = 600.0
    max_behind: float = 0.01
    min_lists: float = 0.9
    min_summaries: float = 0.95
    min_length: int = 5
    max_short: float = 0.1
    min_live: float = 0.8
    max_neutral: float = 0.2
    max_psi: float = MUCH_DRIFT
    min_rows: int = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureQuality:
    """What was measured.

    Args:
        now: as of when.
        samples: how many users, ads and rows were looked at, in words.
        figures: everything measured, in the order of a page; none when nobody was active.
        histograms: distributions over the lists of active users.
    """

    now: datetime
    samples: tuple[str, ...]
    figures: tuple[Figure, ...] = ()
    histograms: tuple[Histogram, ...] = ()

    @property
    def out(self) -> tuple[Figure, ...]:
        """The figures that are out of their bounds."""
        return tuple(figure for figure in self.figures if figure.out)

    def gauges(self, what: str) -> list[Gauge]:
        """Return the measured figures as Prometheus shows them, and when and how often they were out of bounds.

        Args:
            what: was checked.
        """
        of_check: list[Gauge] = [
            ("leadre_feature_checked_timestamp_seconds", (("what", what),), self.now.timestamp()),
            ("leadre_feature_out_of_bounds", (("what", what),), float(len(self.out))),
        ]
        return of_check + [
            (f"leadre_feature_{figure.name}", tuple(figure.of.items()), figure.value)
            for figure in self.figures
            if figure.value is not None
        ]

    def of(self, name: str) -> tuple[Figure, ...]:
        """Return the figures of a name."""
        return tuple(figure for figure in self.figures if figure.name == name)


def check_features(
    database: Database,
    store: FeatureStore,
    *,
    now: datetime,
    bounds: Bounds,
    training_set: Path | None = None,
    sample: int = SAMPLE,
    what: frozenset[str] = frozenset({"state", "drift"}),
    progress: Progress | None = None,
) -> FeatureQuality:
    """Measure the features' quality as of `now`.

    Args:
        database: the system of record.
        store: Feast's.
        now: later rows do not exist yet, but for what the online store has.
        bounds: what is well.
        training_set: folder of `leadre dataset ranking` to compare the day before `now` with; None compares it with
            the week before that day.
        sample: users looked at.
        what: "state" for freshness, coverage and distributions; "drift", which costs more, for the index by feature.
        progress: called with what is measured, how much of it is done, and of how much.

    Raises:
        Unavailable: PostgreSQL or Redis does not answer.
        InvalidInput: the training set cannot be read.
    """
    report = progress or (lambda *_: None)
    settled = now - timedelta(seconds=bounds.grace_s)
    reference = read_training_set(training_set, rows=10 * sample) if training_set else None
    with transaction(database) as connection:
        users = active_users(connection, since=now - TTL, now=settled, size=sample)
        if not len(users.ids):
            said = f"nobody had a positive behavior in the {TTL.days} days before {now.isoformat()}: set --now"
            return FeatureQuality(now=now, samples=(said,))
        samples = [f"{len(users.ids):,} of {users.total:,} users with a positive behavior in {TTL.days} days"]
        figures: list[Figure] = []
        histograms: tuple[Histogram, ...] = ()
        if "state" in what:
            keys = {"user_id": users.ids[:KEYS], "ad_id": some_ads(connection, size=KEYS)}
            samples.append(
                f"of these {len(keys['user_id']):,}, and {len(keys['ad_id']):,} ads, beside their rows online"
            )
            figures += _freshness(connection, store, keys, now=now, bounds=bounds, report=report)
            report("lists", 0, len(users.ids))
            of_lists, histograms = _lists(connection, users, now=now, bounds=bounds)
            figures += of_lists
            figures += _neutral(online_records(store, users.ids), now=now, bounds=bounds)
            report("lists", len(users.ids), len(users.ids))
        if "drift" in what:
            report("drift", 0, 1)
            drifted, rows = drift_figures(
                connection,
                now=now,
                reference=reference,
                sample=sample,
                max_psi=bounds.max_psi,
                min_rows=bounds.min_rows,
            )
            report("drift", 1, 1)
            figures += drifted
            samples += rows
    return FeatureQuality(now=now, samples=tuple(samples), figures=tuple(figures), histograms=histograms)


def _freshness(
    connection: Connection,
    store: FeatureStore,
    keys: Mapping[str, NDArray[np.int64]],
    *,
    now: datetime,
    bounds: Bounds,
    report: Progress,
) -> list[Figure]:
    figures = []
    views = sorted(store.list_feature_views(), key=lambda view: str(view.name))
    for done, view in enumerate(views):
        report("views", done, len(views))
        of, ids = {"view": view.name}, keys[view.join_keys[0]]
        stored = newest_times(connection, view, ids, until=now)
        online = online_times(store, view, ids)
        age = now.timestamp() - np.nanmax(stored) if np.isfinite(stored).any() else None
        figures.append(
            Figure(
                name="age_seconds",
                of=of,
                value=age,
                at_most=bounds.max_age_s if view.name in FOLLOWING else None,
                mend=_MEND["age_seconds"],
            )
        )
        settled = stored <= now.timestamp() - bounds.grace_s
        behind = settled & ~(online >= stored - 1)  # Feast keeps whole seconds of some rows
        lag = np.where(behind, stored - online, 0.0)
        figures += [
            Figure(
                name="online_behind_ratio",
                of=of,
                value=_share(behind[settled]),
                at_most=bounds.max_behind,
                mend=_MEND["online_behind_ratio"],
            ),
            Figure(name="online_lag_seconds", of=of, value=float(np.nanmax(lag)) if np.isfinite(lag).any() else None),
        ]
    report("views", len(views), len(views))
    return figures


def _lists(
    connection: Connection, users: ActiveUsers, *, now: datetime, bounds: Bounds
) -> tuple[list[Figure], tuple[Histogram, ...]]:
    stored = newest_lists(connection, users.ids, after=now - TTL, until=now)
    lists = unpack(stored.records)
    numbers = user_numbers(lists, lists.present)
    read = {name: numbers[name][lists.present] for name in ("retrieved_count", "top_probability", "entropy")}
    live = live_release(connection)
    made = Counter(zip(stored.index_versions, stored.releases, strict=True))
    of_live = [version == live.index_version for version in stored.index_versions] if live else []
    figures = [
        Figure(
            name="list_coverage_ratio",
            value=len(stored.records) / len(users.ids),
            at_least=bounds.min_lists,
            mend=_MEND["list_coverage_ratio"],
        ),
        Figure(
            name="summary_coverage_ratio",
            value=_share(summarized(connection, users.ids, now=now)),
            at_least=bounds.min_summaries,
            mend=_MEND["summary_coverage_ratio"],
        ),
        Figure(
            name="short_lists_ratio",
            value=_share(read["retrieved_count"] < bounds.min_length),
            at_most=bounds.max_short,
            mend=_MEND["short_lists_ratio"],
        ),
        *(
            Figure(name=name, of={"quantile": f"{quantile:g}"}, value=float(np.quantile(values, quantile)))
            for name, values in read.items()
            if len(values)
            for quantile in (0.1, 0.5, 0.9)
        ),
        Figure(
            name="live_index_ratio",
            value=_share(np.array(of_live)) if live else 0.0 if made else None,
            at_least=bounds.min_live,
            mend=_MEND["live_index_ratio"],
        ),
        *(
            Figure(name="lists_ratio", of={"index_version": version, "release": release}, value=times / made.total())
            for (version, release), times in sorted(made.items())
        ),
    ]
    longest = int(read["retrieved_count"].max(initial=0))
    most = float(read["entropy"].max(initial=0)) or 1.0
    edges = {
        "retrieved_count": np.arange(longest + 2) - 0.5,
        "top_probability": np.linspace(0, 1, 21),
        "entropy": np.linspace(0, most, 21),
    }
    return figures, tuple(
        Histogram(
            name=name, edges=tuple(edges[name].tolist()), counts=tuple(np.histogram(values, edges[name])[0].tolist())
        )
        for name, values in read.items()
        if len(values)
    )


def _neutral(records: list[bytes | None], *, now: datetime, bounds: Bounds) -> list[Figure]:
    """Say of how many users a ranker reads neutral values now, and why."""
    lists = unpack(records)
    age = now.timestamp() - lists.generated_at_s
    without = np.array([record is None for record in records], dtype=np.bool_)
    there = lists.present & (lists.counts > 0)
    why: dict[str, NDArray[Any]] = {
        "no_list": without,
        "corrupted": ~without & ~lists.present,
        "empty": lists.present & ~there,
        "expired": there & (age > LIST_TTL_S),
        "from_the_future": there & (age < 0),
    }
    return [
        Figure(
            name="neutral_users_ratio",
            value=_share(np.any(list(why.values()), axis=0)),
            at_most=bounds.max_neutral,
            mend=_MEND["neutral_users_ratio"],
        ),
        *(Figure(name="neutral_ratio", of={"why": reason}, value=_share(users)) for reason, users in why.items()),
    ]


def _share(of: NDArray[np.bool_]) -> float | None:
    return float(of.mean()) if len(of) else None
