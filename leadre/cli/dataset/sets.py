"""`leadre dataset ranking`, `check` and `export`: training sets for rankers, on disk. LEADRE §5.3."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from leadre.cli.frame.command import OneOf, command
from leadre.cli.session import Instant, settings
from leadre.cli.terminal import console, json_option, print_json, progress_bars
from leadre.errors import ConfigError

if TYPE_CHECKING:
    from leadre.pipelines.dataset.check import Report

_DAY = click.DateTime(["%Y-%m-%d"])


def _days(command: Any) -> Any:
    since = click.option("--from", "since", type=_DAY, required=True, help="The first day (UTC).")
    until = click.option("--to", "until", type=_DAY, required=True, help="The day after the last.")
    return since(until(command))


@command()
@_days
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the set.")
@click.option(
    "--engine",
    type=OneOf(["postgres", "duckdb"]),
    default="postgres",
    help="What joins: PostgreSQL, or DuckDB over Parquet files exported for it.",
)
@json_option
def ranking(
    *, since: datetime, until: datetime, out: Path, engine: Literal["postgres", "duckdb"], as_json: bool
) -> None:
    """Write impressions with their labels and the features of their own time: Parquet, a folder a day.

    No row sees a list generated after it. A day that is there is not written again; remove its folder to have it anew.

    Example: leadre dataset ranking --from 2025-05-01 --to 2025-05-31 --out training
    """
    from leadre.pipelines.dataset.check import check as check_set
    from leadre.pipelines.dataset.ranking import write_ranking_set

    if until <= since:
        raise ConfigError(f"no day lies from {since:%Y-%m-%d} until before {until:%Y-%m-%d}")
    if until.replace(tzinfo=UTC) > datetime.now(UTC):
        raise ConfigError(f"{until:%Y-%m-%d} has yet to begin (UTC): a day is written when it is over, set --to")
    began = time.monotonic()
    with progress_bars() as progress:
        written = write_ranking_set(
            settings(), out, since=since.date(), until=until.date(), engine=engine, progress=progress
        )
    if as_json:
        counts = {"written_rows": written.rows, "written_days": written.days, "kept_days": written.kept}
        print_json({**counts, **_plain(check_set(out))})
        return
    console.print(
        f"[green]✓[/] {written.rows:,} rows of {written.days:,} days in {out}, {time.monotonic() - began:.1f} s"
        + (f"; {written.kept:,} days were there" if written.kept else "")
    )
    _print_report(check_set(out))


@command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@json_option
def check(folder: Path, *, as_json: bool) -> None:
    """Look for leakage in a training set: a line for each finding, and exit code 1 if there is any.

    Lists generated after their impressions, releases that had seen them, behaviors that followed, labels among the
    features, rows that are there twice, days that are missing.

    Example: leadre dataset check training
    """
    from leadre.pipelines.dataset.check import check as check_set

    report = check_set(folder)
    if as_json:
        print_json(_plain(report))
    else:
        _print_report(report)
    if report.findings:
        sys.exit(1)


@command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the files.")
@click.option("--from", "since", type=Instant(), help="Leave months before this one out; by default all are written.")
@click.option("--to", "until", type=Instant(), help="Leave out what is from then on; by default the present.")
@click.option("--view", "names", multiple=True, help="Only this view's source; may be repeated. By default all.")
@json_option
def export(*, out: Path, since: datetime | None, until: datetime | None, names: tuple[str, ...], as_json: bool) -> None:
    """Write the sources of feature views as Parquet, a file a month: what feature_store.duckdb.yaml joins.

    Example: leadre dataset export --out sources --view retrieved_ads
    """
    from leadre.store.past.export import export_sources

    found = settings()
    with progress_bars() as progress:
        written = export_sources(
            found.feature_repo,
            found.database_url,
            out,
            names=names,
            since=since,
            until=until or datetime.now(UTC),
            progress=progress,
        )
    if as_json:
        print_json({"rows": written})
        return
    console.print(f"[green]✓[/] {sum(written.values()):,} rows of {len(written)} sources in {out}")


def _plain(report: Report) -> dict[str, Any]:
    return {
        "rows": report.rows,
        "neutral_share": report.neutral_share,
        "neutral": report.neutral,
        "hit": {
            "clicked": report.clicked.to_json(),
            "not_clicked": report.not_clicked.to_json(),
            "difference": report.difference.to_json(),
        },
        "findings": report.findings,
    }


def _print_report(report: Report) -> None:
    console.print(
        f"{report.rows:,} rows, [bold]{report.neutral_share:.1%}[/] without a list: every feature of theirs is neutral"
    )
    for reason, count in sorted(report.neutral.items(), key=lambda pair: -pair[1]):
        console.print(f"  {count:,} {reason}")
    shares = (("clicked", report.clicked), ("not clicked", report.not_clicked), ("difference", report.difference))
    for name, share in shares:
        console.print(f"  hit, {name}: {share.mean:.4f} [dim]({share.low:.4f} to {share.high:.4f})[/]")
    for finding in report.findings:
        console.print(f"[red]✗[/] {finding}")
