"""`leadre report`: one page on a release."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from leadre.cli.command import command
from leadre.cli.session import SourceId, connection, features, now_option, settings
from leadre.cli.terminal import console, json_option, print_json
from leadre.errors import ConfigError, LeadreError
from leadre.settings import Settings

if TYPE_CHECKING:
    from leadre.pipelines.feature_quality.check import FeatureQuality


@command()
@click.argument("release", required=False)
@click.option("--user", type=SourceId(), help="Whose walk to show; by default a user with many behaviors.")
@now_option
@json_option
def report(release: str | None, *, user: int | str | None, now: datetime, as_json: bool) -> None:
    """Write report.html on a release (the live one unless named): index, training, quality, one user's walk.

    Example: leadre report --user user_5
    """
    path = make_report(settings(), release, user=user, now=now)
    if as_json:
        print_json({"path": path})
    else:
        console.print(f"[green]✓[/] wrote {path}", soft_wrap=True)


def make_report(found: Settings, release: str | None, *, user: int | str | None, now: datetime) -> Path:
    """Write the report on a release.

    Raises:
        ConfigError: no such release, or none is live.
        Unavailable: a server does not answer.
    """
    from leadre.indexing.ad_index import AdIndex
    from leadre.report import Report, write_report
    from leadre.report.trace import trace_user
    from leadre.store.records.catalog import row_counts
    from leadre.store.release.records import list_releases

    with connection(found) as connected:
        rows = {row.release: row for row in list_releases(connected)}
        counts = row_counts(connected)
    live = next((row for row in rows.values() if row.status == "live"), None)
    row = rows.get(release) if release else live
    if row is None:
        raise ConfigError(
            f"there is no release {release}" if release else "no release is live: `leadre release promote`"
        )
    before = rows.get(f"{row.release}-sft")
    walk = trace_user(found, user, now=now, features=features(found)) if row is live else None
    path = found.home / "report.html"
    write_report(
        Report(
            release=row.release,
            index_version=row.index_version,
            dataset=f"{counts['ads']:,} ads, {counts['users']:,} users, {counts['behaviors']:,} behaviors",
            now=datetime.now(UTC),
            counts=counts,
            recipe=row.recipe,
            quality=AdIndex.load(found.indexes / row.index_version).quality,
            curves=json.loads((Path(row.uri) / "curves.json").read_text()),
            evaluation=row.metrics,
            before_dpo=before.metrics if before else None,
            trace=walk,
            features=_quality(found, now=now),
        ),
        path,
    )
    return path


def _quality(found: Settings, *, now: datetime) -> FeatureQuality:
    """Measure the features; where that fails the page says why, and has all its other parts."""
    from leadre.pipelines.feature_quality.check import Bounds, FeatureQuality, check_features
    from leadre.store.records.database import connect

    database = connect(found.database_url, application_name="leadre report")
    try:
        return check_features(database, features(found).store, now=now, bounds=Bounds())
    except LeadreError as error:
        return FeatureQuality(now=now, samples=(f"The features could not be checked: {error}",))
    finally:
        database.dispose()
