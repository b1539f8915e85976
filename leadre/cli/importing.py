"""`leadre import`: data in. LEADRE §5.1."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from leadre.cli.frame.command import OneOf, group
from leadre.cli.session import now_option, settings
from leadre.cli.terminal import console, json_option, print_json, print_table, progress_bars

if TYPE_CHECKING:
    from leadre.store.importers.load import ImportCounts, Progress
    from leadre.store.importers.tabular.rejected import Kind

_NEXT = "Next:  leadre summarize   and   leadre index build RECIPE"
_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


def _on_bad_row(default: Literal["stop", "skip"]) -> Callable[[Any], Any]:
    return click.option(
        "--on-bad-row",
        type=OneOf(["stop", "skip"]),
        default=default,
        help="At a bad row stop, or leave it out: counted by kind, and listed in rejected.csv.",
    )


_max_bad_share = click.option(
    "--max-bad-share",
    type=click.FloatRange(0, 1),
    default=0.01,
    help="With a larger share of bad rows in any table nothing is imported. Rows of unknown ads do not count.",
)


@group("import")
def import_() -> None:
    """Load ads, users and behaviors.

    Importing again changes nothing; a bad row stops the import (or is left out, if you say so), and nothing is kept.

    Example: leadre import parquet my_data/
    """


@import_.command()
@click.argument("folder", type=_FOLDER)
@_on_bad_row("stop")
@_max_bad_share
@click.option(
    "--unknown-ads",
    type=OneOf(["stop", "skip", "content"]),
    default="stop",
    help="At a behavior or impression of an ad that nobody knows stop, leave it out, or make the behavior one of the "
    "content domain.",
)
@click.option(
    "--long-texts",
    type=OneOf(["stop", "cut"]),
    default="stop",
    help="A text of more than 256 characters is a bad value, or is cut.",
)
@click.option("--time-zone", help="Time zone of times without an offset, e.g. Europe/Berlin; without it they are bad.")
@click.option(
    "--time-unit",
    type=OneOf(["auto", "s", "ms", "us"]),
    default="auto",
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
        print_json(
            {
                "rows": asdict(done.counts),
                "facts": done.facts,
                "became_content": done.became_content,
                "left_out": _left_out(done.rejected),
                "rejected": rejected if done.rejected else None,
            }
        )
        return
    for fact in done.facts:
        console.print(fact, markup=False, soft_wrap=True)
    _print_counts(done.counts, str(folder))
    if done.became_content:
        console.print(f"{done.became_content:,} behaviors of unknown ads became ones of the content domain.")
    _print_rejected(done.rejected, rejected)
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
@click.argument("folder", type=_FOLDER)
@click.option(
    "--limit-users",
    type=click.IntRange(1),
    help="Of the users who were shown ads import so many, drawn by a hash of their ids; by default all.",
)
@_on_bad_row("skip")
@_max_bad_share
@now_option
@json_option
def taobao(
    folder: Path,
    *,
    limit_users: int | None,
    on_bad_row: Literal["stop", "skip"],
    max_bad_share: float,
    now: datetime,
    as_json: bool,
) -> None:
    """Load the public Taobao display-ad log: raw_sample, ad_feature, user_profile and behavior_log.

    Example: leadre import taobao Ali_Display_Ad_Click --limit-users 20000 --now 2017-05-14
    """
    from leadre.store.importers.taobao.folder import import_taobao

    found = settings()
    rejected = found.home / "imports" / _folder_name(folder) / "rejected.csv"
    with progress_bars() as progress:
        done = import_taobao(
            folder,
            database_url=found.database_url,
            now=now,
            rejected=rejected,
            limit_users=limit_users,
            on_bad_row=on_bad_row,
            max_bad_share=max_bad_share,
            progress=progress,
        )
    if as_json:
        print_json(
            {
                "rows": asdict(done.counts),
                "left_out": _left_out(done.rejected),
                "rejected": rejected if done.rejected else None,
            }
        )
        return
    _print_counts(done.counts, str(folder))
    _print_rejected(done.rejected, rejected)
    console.print(_NEXT)


@import_.command()
@click.option("--seed", default=7, help="Another one makes another world.")
@click.option("--ads", type=click.IntRange(1), default=400, help="How many ads.")
@click.option("--users", type=click.IntRange(1), default=2000, help="How many users.")
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


def _left_out(rejected: Mapping[tuple[str, Kind], int]) -> list[dict[str, object]]:
    return [{"table": table, "kind": kind, "rows": rows} for (table, kind), rows in sorted(rejected.items())]


def _print_rejected(counts: Mapping[tuple[str, Kind], int], path: Path) -> None:
    if counts:
        rows = [(table, kind.value, count) for (table, kind), count in sorted(counts.items())]
        print_table("Left out", ("table", "kind", "rows"), rows)
        console.print(f"Each with its reason:  {path}", markup=False, soft_wrap=True)
