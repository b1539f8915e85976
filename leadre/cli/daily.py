"""`leadre summarize`, `materialize`, `retention`: what beat runs by the clock, by hand. LEADRE §4.2.1, §4.4.1."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from leadre.cli.frame.command import command
from leadre.cli.session import features, now_option, settings
from leadre.cli.terminal import console, json_option, print_json, print_table, progress_bars


@command()
@now_option
@click.option(
    "--window-days",
    type=click.IntRange(1),
    help="Days before an instant whose behaviors count at it; without it as the live release's recipe says, or 90.",
)
@json_option
def summarize(now: datetime, *, window_days: int | None, as_json: bool) -> None:
    """Turn behaviors into interest summaries and sequences; group users by ARPU, once a day. Beat runs it hourly.

    On an old log, say with --now which instant is the present.

    Examples:
    leadre summarize
    leadre summarize --now 2014-07-23
    """
    from leadre.errors import InvalidInput
    from leadre.pipelines.summarize import summarize as run

    if now > datetime.now(UTC) + timedelta(minutes=1):  # clocks differ
        raise InvalidInput(
            f"--now {now.isoformat()} is in the future: what is known until then would be settled, and behaviors that "
            "come before then would not count until then; leave it out, or give an instant of the past"
        )
    with progress_bars() as progress:
        counts = run(settings().database_url, now=now, window_days=window_days, progress=progress)
    if as_json:
        print_json(asdict(counts))
    else:
        print_table("Written", ("table", "rows"), list(asdict(counts).items()))


@command()
@click.option("--views", help="Feature views, e.g. user_profile,ad_features; without it, all.")
@click.option("--full", is_flag=True, help="Everything, not what is new: when the online store's keys were lost.")
@click.option("--processes", type=click.IntRange(1, 64), default=1, help="Processes, on this machine.")
@now_option
@json_option
def materialize(*, views: str | None, full: bool, processes: int, now: datetime, as_json: bool) -> None:
    """Copy what is new in the feature views' sources to the online store. Beat runs it every five minutes.

    New is what was written since the last time, whatever its event time: late events and imports of old logs count. A
    killed one goes on where it was.

    Examples:
    leadre materialize
    leadre materialize --views retrieved_ads --full --processes 4
    """
    from leadre.pipelines.materialize import materialize as run

    names = [name.strip() for name in views.split(",")] if views else []
    opened = features(settings())
    try:
        with progress_bars() as progress:
            done = run(opened, now=now, views=names, full=full, processes=processes, progress=progress)
    finally:
        opened.close()
    if as_json:
        print_json({"read": done.read, "written": done.written, "said": done.said})
        return
    for line in done.said:
        console.print(f"[yellow]![/] {line}", soft_wrap=True)
    rows = [(view, read, done.written[view]) for view, read in done.read.items()]
    print_table("Materialized", ("view", "rows", "newer than online"), rows)


@command()
@click.option("--days", type=click.IntRange(min=30), help="Retention; default: LEADRE_RETENTION_DAYS.")
@click.option(
    "--export",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for Parquet files of what is dropped; default: LEADRE_RETENTION_EXPORT.",
)
@now_option
@json_option
def retention(days: int | None, *, export: Path | None, now: datetime, as_json: bool) -> None:
    """Drop months of lists, summaries and sequences that are older than some days. Beat runs it daily.

    Example: leadre retention --days 400 --export /archive/leadre
    """
    from leadre.pipelines.retention import drop_old_months
    from leadre.store.records.database import connect

    found = settings()
    days, export = days or found.retention_days, export or found.retention_export
    if days is None:
        raise click.UsageError("everything is kept: say --days, or set LEADRE_RETENTION_DAYS")
    database = connect(found.database_url, application_name="leadre retention")
    try:
        months = drop_old_months(database, now=now, days=days, export=export)
    finally:
        database.dispose()
    if as_json:
        print_json([asdict(month) for month in months])
        return
    rows = [(it.name, "kept" if it.still_valid else "dropped", it.still_valid, it.exported or "") for it in months]
    print_table(f"Months older than {days} days", ("month", "what became of it", "rows that hold now", "file"), rows)
