"""Gathers what a report shows from the database, Redis and LEADRE_HOME. What is not there is left out. LEADRE §5."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leadre.errors import ArtifactIncomplete, ConfigError, LeadreError, Unavailable
from leadre.indexing.ad_index import AdIndex
from leadre.pipelines.doctor.examine import examine
from leadre.pipelines.feature_quality.check import Bounds, FeatureQuality, check_features
from leadre.pipelines.results import Result, read_figures, read_results
from leadre.report.comparison import COMPARED_USERS, Comparison, index_drift, overlap
from leadre.report.content import Report
from leadre.report.trace import trace_user
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.retrieval.refresh_queue_stats import QueueStats
from leadre.settings import Settings
from leadre.store.features.client import FeatureClient
from leadre.store.quality.two_releases import pairs_of_lists
from leadre.store.records.catalog import row_counts
from leadre.store.records.database import connect, transaction
from leadre.store.release.records import ReleaseRow, list_releases, named_release

if TYPE_CHECKING:
    from sqlalchemy import Engine


def gather(
    settings: Settings,
    release: str | None = None,
    *,
    user: int | str | None = None,
    benchmarks: Path | None = None,
    now: datetime,
) -> Report:
    """Gather a report on a release.

    Args:
        settings: where things run.
        release: its name; None: the live one.
        user: whose story; None: a user with many behaviors.
        benchmarks: folder of what `benchmarks/*.py --json` printed; None: none is shown.
        now: the instant of the user's story and of the features.

    Raises:
        ConfigError: no such release, or none is live.
        Unavailable: a server does not answer.
    """
    database = connect(settings.database_url, application_name="leadre report")
    features = FeatureClient(settings.feature_repo, environment=settings.feast_environment())
    try:
        with transaction(database) as connection:
            row = named_release(connection, release)
            rows = {row.release: row for row in list_releases(connection)}
            counts = row_counts(connection)
        tuned = rows.get(f"{row.release}-sft")
        return Report(
            release=row.release,
            live=row.status == "live",
            index_version=row.index_version,
            now=datetime.now(UTC),
            counts=counts,
            recipe=row.recipe,
            quality=AdIndex.load(settings.indexes / row.index_version).quality,
            curves=_curves(Path(row.uri)),
            evaluation=row.metrics,
            before_dpo=tuned.metrics if tuned else None,
            features=_quality(database, features, now=now),
            trace=trace_user(settings, user, now=now, features=features) if row.status == "live" else None,
            results=read_results(settings.home),
            simulation=_simulation(settings.home),
            benchmarks=_benchmarks(benchmarks),
            health=examine({**os.environ, **_variables(settings)})[0],
            queue=_queue(settings),
            comparison=_comparison(database, settings, row, list(rows.values()), now=now),
        )
    finally:
        features.close()
        database.dispose()


def _variables(settings: Settings) -> dict[str, str]:
    """Return the variables that these settings would be read from."""
    return {
        "LEADRE_HOME": str(settings.home),
        "LEADRE_DATABASE_URL": settings.database_url,
        "LEADRE_REDIS_URL": settings.redis_url,
        "LEADRE_FEATURE_REPO": str(settings.feature_repo),
    }


def _curves(folder: Path) -> Sequence[Mapping[str, Any]]:
    with suppress(FileNotFoundError):
        found: list[Mapping[str, Any]] = json.loads((folder / "curves.json").read_text())
        return found
    return ()


def _quality(database: Engine, features: FeatureClient, *, now: datetime) -> FeatureQuality:
    """Measure the features; where that fails the page says why, and has all its other parts."""
    try:
        return check_features(database, features.store, now=now, bounds=Bounds())
    except LeadreError as error:
        return FeatureQuality(now=now, samples=(f"The features could not be checked: {error}",))


def _simulation(home: Path) -> Mapping[str, Any] | None:
    path = home / "simulation" / "result.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _benchmarks(folder: Path | None) -> Sequence[Result]:
    if folder is None:
        return ()
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder: benchmarks are read from one, a file bench_X.json of each")
    return read_figures(folder)


def _queue(settings: Settings) -> QueueStats | None:
    with suppress(Unavailable):
        return RefreshQueue.connect(settings.redis_url).stats()
    return None


def _comparison(
    database: Engine, settings: Settings, row: ReleaseRow, rows: Sequence[ReleaseRow], *, now: datetime
) -> Comparison | None:
    """Compare a release with the one promoted before it; None where there was none."""
    if row.promoted_at is None:
        return None
    earlier = [other for other in rows if other.promoted_at is not None and other.promoted_at < row.promoted_at]
    before = max(earlier, key=lambda other: (other.promoted_at or row.promoted_at, other.sequence), default=None)
    if before is None:
        return None
    since = min(row.promoted_at, now) - timedelta(days=1)  # `now` may be in the past; a day's partitions are few
    with transaction(database) as connection:
        pairs = pairs_of_lists(connection, row.release, before.release, since=since, size=COMPARED_USERS)
    drift = None
    with suppress(ArtifactIncomplete, FileNotFoundError):
        drift = index_drift(
            AdIndex.load(settings.indexes / row.index_version), AdIndex.load(settings.indexes / before.index_version)
        )
    return Comparison(
        against=before.release,
        promoted_at=before.promoted_at,
        evaluation=before.metrics,
        drift=drift,
        users=len(pairs),
        overlap=overlap(pairs),
    )
