"""`leadre features`: whether the features that rankers read are well. LEADRE §4.4.1, §5.3."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leadre.cli.frame.command import group
from leadre.cli.frame.ending import DONE, FAILED, UNCHECKED, say_error
from leadre.cli.session import features as open_features
from leadre.cli.session import now_option, settings
from leadre.cli.terminal import console, json_option, print_json, print_table, progress_bars
from leadre.errors import LeadreError

if TYPE_CHECKING:
    from leadre.pipelines.feature_quality.check import FeatureQuality

WELL, OUT = DONE, FAILED
_SHARE, _SECONDS, _COUNT = click.FloatRange(0, 1), click.FloatRange(min=0), click.IntRange(min=1)
# As `Bounds` of leadre.pipelines.feature_quality.check has them; a test compares the two.
_BOUNDS: tuple[tuple[str, click.ParamType[Any], float, str], ...] = (
    ("max-age-s", _SECONDS, 86_400.0, "Seconds since the newest row of a view that follows behaviors."),
    ("grace-s", _SECONDS, 600.0, "Seconds after which a row must be online, and a behavior in a summary and a list."),
    ("max-behind", _SHARE, 0.01, "Share of keys that are missing online, or older there than in PostgreSQL."),
    ("min-lists", _SHARE, 0.9, "Share of active users with a list within its ttl of 7 days."),
    ("min-summaries", _SHARE, 0.95, "Share of active users with an interest summary."),
    ("min-length", _COUNT, 5, "Ads of a list that is not short."),
    ("max-short", _SHARE, 0.1, "Share of short lists."),
    ("min-live", _SHARE, 0.8, "Share of lists made under the live release's index."),
    ("max-neutral", _SHARE, 0.2, "Share of active users of whom a ranker reads neutral values."),
    ("max-psi", _SECONDS, 0.25, "Population stability index of a feature; Siddiqi: from .1 look, above .25 act."),
    ("min-rows", _COUNT, 500, "Rows below which drift is not judged."),
)


def _bounds(command: Any) -> Any:
    """Add an option for each bound; the defaults are ours."""
    for name, kind, default, said in reversed(_BOUNDS):
        command = click.option(f"--{name}", type=kind, default=default, help=said)(command)
    return command


@group()
def features() -> None:
    """Look after the features that rankers read.

    Example: leadre features check
    """


@features.command()
@now_option
@click.option(
    "--training-set",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Compare the last day with this folder of `leadre dataset ranking` instead of the week before.",
)
@click.option("--sample", type=_COUNT, default=10_000, help="Users looked at.")
@_bounds
@json_option
def check(*, now: datetime, training_set: Path | None, sample: int, as_json: bool, **bounds: Any) -> None:
    """Measure freshness, coverage, lists, scores, drift and S-ID versions on samples. All default bounds are ours.

    Exit code 0: all is well; 1: something is out of its bounds, each told in a line; 3: it cannot be checked.

    Example: leadre features check --training-set sets/march --max-psi 0.2
    """
    try:
        checked = _checked(now, training_set=training_set, sample=sample, bounds=bounds)
    except LeadreError as error:
        say_error(str(error))
        sys.exit(UNCHECKED)
    code = OUT if checked.out else WELL if checked.figures else UNCHECKED
    if as_json:
        figures = [{**asdict(figure), "out": figure.out} for figure in checked.figures]
        print_json({"exit_code": code, "now": checked.now, "samples": checked.samples, "figures": figures})
        sys.exit(code)
    for said in checked.samples:
        console.print(said)
    if checked.figures:
        from leadre.pipelines.feature_quality.figures import written

        rows = [
            (
                figure.name,
                ", ".join(figure.of.values()),
                written(figure.value),
                figure.bound,
                "OUT" if figure.out else figure.note,
            )
            for figure in checked.figures
        ]
        print_table("Features", ("figure", "of", "value", "bound", "note"), rows)
    for figure in checked.out:
        console.print(figure.line(), style="red", markup=False, soft_wrap=True)
    if code == WELL:
        console.print("[green]✓[/] all features are within their bounds")
    sys.exit(code)


def _checked(now: datetime, *, training_set: Path | None, sample: int, bounds: dict[str, Any]) -> FeatureQuality:
    from leadre.pipelines.feature_quality.check import Bounds, check_features
    from leadre.store.records.database import connect

    found = settings()
    client = open_features(found)
    database = connect(found.database_url, application_name="leadre features")
    try:
        with progress_bars() as progress:
            return check_features(
                database,
                client.store,
                now=now,
                bounds=Bounds(**bounds),
                training_set=training_set,
                sample=sample,
                progress=progress,
            )
    finally:
        database.dispose()
        client.close()
