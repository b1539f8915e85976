"""`leadre import` and `leadre summarize`: data in, and what prompts are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from leadre.cli.console import console, print_table, progress_bars
from leadre.cli.session import now_option, settings

if TYPE_CHECKING:
    from leadre.store.importers.load import ImportCounts, Progress

_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@click.group("import")
def import_() -> None:
    """Load ads, users and behaviors.

    Importing again changes nothing; a bad row stops the import and nothing is kept.
    """


@import_.command()
@click.argument("folder", type=_FOLDER)
def parquet(folder: Path) -> None:
    """Load your own data: a folder of ads, users, behaviors (and content_items, impressions), .csv or .parquet.

    docs/data_format.md describes the columns.

    Example: leadre import parquet my_data/
    """
    from leadre.store.importers.tabular import import_tabular

    _run(lambda url, progress: import_tabular(folder, database_url=url, progress=progress), str(folder))


@import_.command()
@click.argument("folder", type=_FOLDER)
@click.option("--content", type=_FOLDER, help="Folder of another department that plays the content domain.")
def amazon(folder: Path, *, content: Path | None) -> None:
    """Load an Amazon review data set: items play the ads, reviews play conversions.

    Example: leadre import amazon amazon_beauty --content amazon_crossdomain
    """
    from leadre.store.importers.amazon import import_amazon

    _run(
        lambda url, progress: import_amazon(folder, database_url=url, content_folder=content, progress=progress),
        str(folder),
    )


@import_.command()
@click.option("--seed", default=7, show_default=True)
@click.option("--ads", default=400, show_default=True)
@click.option("--users", default=2000, show_default=True)
@now_option
def synthetic(seed: int, *, ads: int, users: int, now: datetime) -> None:
    """Load a made-up ad world whose right answers are known."""
    from leadre.store.importers.synthetic import import_world
    from leadre.synthetic import make_world

    world = make_world(seed=seed, ads=ads, users=users, now=now)
    _run(lambda url, progress: import_world(world, database_url=url, progress=progress), f"made-up world {seed}")


@click.command()
@now_option
def summarize(now: datetime) -> None:
    """Turn behaviors into interest summaries, behavior sequences and ARPU groups. Beat runs it hourly."""
    from leadre.pipelines.summarize import summarize as run

    counts = run(settings().database_url, now=now)
    print_table("Written", ("table", "rows"), list(asdict(counts).items()))


def _run(load: Callable[[str, Progress], ImportCounts], source: str) -> None:
    found = settings()
    with progress_bars() as progress:
        counts = load(found.database_url, progress)
    print_table(f"Imported {source}", ("table", "rows"), list(asdict(counts).items()))
    console.print("Next:  leadre summarize   and   leadre index build RECIPE")
