"""`leadre import`, `leadre summarize`, `leadre materialize`: data in, what prompts are made of, and online."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from leadre.cli.command import command, group
from leadre.cli.session import features, now_option, settings
from leadre.cli.terminal import console, json_option, print_json, print_table, progress_bars

if TYPE_CHECKING:
    from leadre.store.importers.load import ImportCounts, Progress

_NEXT = "Next:  leadre summarize   and   leadre index build RECIPE"
_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@group("import")
def import_() -> None:
    """Load ads, users and behaviors.

    Importing again changes nothing; a bad row stops the import (or is left out, if you say so), and nothing is kept.

    Example: leadre import parquet my_data/
    """


@import_.command()
@click.argument("folder", type=_FOLDER)
@click.option(
    "--on-bad-row",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="At a bad row stop, or leave it out: counted by kind, and listed in rejected.csv.",
)
@click.option(
    "--max-bad-share",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="With a larger share of bad rows in any table nothing is imported. Rows of unknown ads do not count.",
)
@click.option(
    "--unknown-ads",
    type=click.Choice(["stop", "skip", "content"]),
    default="stop",
    show_default=True,
    help="At a behavior or impression of an ad that nobody knows stop, leave it out, or make the behavior one of the "
    "content domain.",
)
@click.option(
    "--long-texts",
    type=click.Choice(["stop", "cut"]),
    default="stop",
    show_default=True,
    help="A text of more than 256 characters is a bad value, or is cut.",
)
@click.option("--time-zone", help="Time zone of times without an offset, e.g. Europe/Berlin; without it they are bad.")
@click.option(
    "--time-unit",
    type=click.Choice(["auto", "s", "ms", "us"]),
    default="auto",
    show_default=True,
    help="Of times that are numbers; auto tells by their size, and says what it took them for.",
)
@click.option("--encoding", help="Of the CSV files, e.g. latin-1; without it they are UTF-8.")
@click.option(
    "--columns",
    multiple=True,
    help="Names of the file's columns by ours: user_id=uid,item_id=ad, or of one table, behaviors.user_id=uid.",
)
@now_option
@json_option
def parquet(
    folder: Path,
    *,
    on_bad_row: Literal["stop", "skip"],
    max_bad_share: float,
    unknown_ads: Literal["stop", "skip", "content"],
    long_texts: Literal["stop", "cut"],
    time_zone: str | None,
    time_unit: Literal["auto", "s", "ms", "us"],
    encoding: str | None,
    columns: tuple[str, ...],
    now: datetime,
    as_json: bool,
) -> None:
    """Load your own data: a folder of ads, users, behaviors (and content_items, impressions), CSV or Parquet.

    Each is one file, .csv (.gz, .zst) or .parquet, or a folder of parts. docs/data_format.md describes the columns.

    Example: leadre import parquet my_data/ --on-bad-row skip --time-zone Europe/Berlin --encoding latin-1
    """
    from leadre.store.importers.tabular.folder import import_tabular
    from leadre.store.importers.tabular.options import ImportOptions, read_columns, read_encoding, read_time_zone
    from leadre.store.importers.tabular.rules import column_names

    options = ImportOptions(
        on_bad_row=on_bad_row,
        max_bad_share=max_bad_share,
        unknown_ads=unknown_ads,
        long_texts=long_texts,
        time_zone=None if time_zone is None else read_time_zone(time_zone),
        time_unit=time_unit,
        encoding=None if encoding is None else read_encoding(encoding),
        columns=read_columns(columns, column_names()),
    )
    found = settings()
    rejected = found.home / "imports" / _folder_name(folder) / "rejected.csv"
    with progress_bars() as progress:
        done = import_tabular(
            folder,
            database_url=found.database_url,
            now=now,
            rejected=rejected,
            options=options,
            progress=progress,
        )
    if as_json:
        left_out = [
            {"table": table, "kind": kind, "rows": rows} for (table, kind), rows in sorted(done.rejected.items())
        ]
        print_json(
            {
                "rows": asdict(done.counts),
                "facts": done.facts,
                "became_content": done.became_content,
                "left_out": left_out,
                "rejected": rejected if done.rejected else None,
            }
        )
        return
    for fact in done.facts:
        console.print(fact, markup=False, soft_wrap=True)
    _print_counts(done.counts, str(folder))
    if done.became_content:
        console.print(f"{done.became_content:,} behaviors of unknown ads became ones of the content domain.")
    if done.rejected:
        rows = [(table, kind.value, count) for (table, kind), count in sorted(done.rejected.items())]
        print_table("Left out", ("table", "kind", "rows"), rows)
        console.print(f"Each with its reason:  {rejected}", markup=False, soft_wrap=True)
    console.print(_NEXT)


@import_.command()
@click.argument("folder", type=_FOLDER)
@click.option("--content", type=_FOLDER, help="Folder of another department that plays the content domain.")
@now_option
@json_option
def amazon(folder: Path, *, content: Path | None, now: datetime, as_json: bool) -> None:
    """Load an Amazon review data set: items play the ads, reviews play conversions.

    Example: leadre import amazon amazon_beauty --content amazon_crossdomain
    """
    from leadre.store.importers.amazon import import_amazon

    _run(
        lambda url, progress: import_amazon(
            folder, database_url=url, now=now, content_folder=content, progress=progress
        ),
        str(folder),
        as_json=as_json,
    )


@import_.command()
@click.option("--seed", default=7, help="Another one makes another world.")
@click.option("--ads", type=click.IntRange(1), default=400, help="How many.")
@click.option("--users", type=click.IntRange(1), default=2000, help="How many.")
@now_option
@json_option
def synthetic(seed: int, *, ads: int, users: int, now: datetime, as_json: bool) -> None:
    """Load a made-up ad world whose right answers are known.

    Example: leadre import synthetic --ads 1000 --users 5000
    """
    from leadre.store.importers.synthetic import import_world
    from leadre.synthetic import make_world

    world = make_world(seed=seed, ads=ads, users=users, now=now)
    _run(
        lambda url, progress: import_world(world, database_url=url, progress=progress),
        f"made-up world {seed}",
        as_json=as_json,
    )


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

    On an old log say which instant is the present.

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
@click.option("--views", help="Only these, e.g. user_profile,ad_features; without it, all.")
@click.option("--full", is_flag=True, help="Everything, not what is new: when the online store's keys were lost.")
@click.option("--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="On this machine.")
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


def _folder_name(folder: Path) -> str:
    """Return a name for what is kept of an import: the folder's own, and eight digits of where it is."""
    whole = folder.resolve()
    return f"{whole.name}-{blake2b(str(whole).encode(), digest_size=4).hexdigest()}"


def _run(load: Callable[[str, Progress], ImportCounts], source: str, *, as_json: bool) -> None:
    found = settings()
    with progress_bars() as progress:
        counts = load(found.database_url, progress)
    if as_json:
        print_json({"rows": asdict(counts)})
        return
    _print_counts(counts, source)
    console.print(_NEXT)


def _print_counts(counts: ImportCounts, source: str) -> None:
    print_table(f"Imported {source}", ("table", "rows"), list(asdict(counts).items()))
