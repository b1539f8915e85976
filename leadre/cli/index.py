"""`leadre index`: build, show, extend, check and measure the ad index. LEADRE §3.2."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from leadre.cli.experiments.encoders import encoders
from leadre.cli.experiments.sweep import sweep
from leadre.cli.frame.command import group
from leadre.cli.session import connection, recipe_argument, set_option, settings
from leadre.cli.terminal import console, json_option, print_json, print_table, progress_bars
from leadre.errors import ConfigError
from leadre.names import not_there
from leadre.recipe import load_recipe
from leadre.settings import Settings

_FIGURES = (
    ("usage", "usage"),
    ("entropy_bits", "entropy"),
    ("variance_explained", "variance"),
    ("mutual_information_bits", "category"),
    ("category_purity", "purity"),
)


def chosen_version(found: Settings, version: str | None) -> str:
    """Return the index version of this name, or without one that which was recorded last.

    Raises:
        ConfigError: there is none.
    """
    from leadre.store.records.indexes import list_indexes

    if version and (found.indexes / version).exists():
        return version  # the servers need not run
    with connection(found) as connected:
        known = [row.index_version for row in list_indexes(connected)]
    if not known:
        raise ConfigError("there is no index yet: `leadre index build` makes one")
    if version and version not in known:
        raise not_there("index", version, known, lists="leadre index list")
    return version or known[0]


@group()
def index() -> None:
    """Build and inspect the ad index: which S-ID each ad has.

    Example: leadre index show
    """


index.add_command(encoders)
index.add_command(sweep)


@index.command()
@recipe_argument
@set_option
@click.option("--workers", type=click.IntRange(1), default=1, help="Processes, on Ray Data.")
@click.option("--ray-address", help="A running Ray cluster, for example auto; Ray starts on this machine without.")
@json_option
def build(recipe: Path, overrides: tuple[str, ...], *, workers: int, ray_address: str | None, as_json: bool) -> None:
    """Give every ad of the catalog an S-ID: describe, encode, quantise, disambiguate.

    Building again from the same ads and recipe finds the index there; with other codebooks, the embeddings. Several
    workers give the same index as one; on a cluster they must all see LEADRE_HOME.

    Examples:
    leadre index build
    leadre index build recipes/amazon_beauty.toml --set index.codes=512
    """
    from leadre.pipelines.index.build import build_index

    found, whole = settings(), load_recipe(recipe, overrides=overrides)
    asked = whole.index
    with progress_bars() as progress:
        if workers == 1 and ray_address is None:
            built = build_index(
                database_url=found.database_url,
                indexes=found.indexes,
                recipe=asked,
                now=datetime.now(UTC),
                held_out=whole.evaluation,
                progress=progress,
            )
        else:
            from leadre.pipelines.index.scale_out import index_inventory

            built = index_inventory(
                database_url=found.database_url,
                indexes=found.indexes,
                recipe=asked,
                now=datetime.now(UTC),
                workers=workers,
                ray_address=ray_address,
                progress=progress,
            )
    if as_json:
        print_json({"version": built.version, **built.quality})
    else:
        print_quality(built.version, built.quality)


@index.command("list")
@json_option
def list_(*, as_json: bool) -> None:
    """List the index versions, newest first, and the releases that speak of them.

    Example: leadre index list
    """
    from leadre.store.records.indexes import list_indexes
    from leadre.store.release.records import list_releases

    with connection(settings()) as connected:
        indexes, releases = list_indexes(connected), list_releases(connected)
    speaking = {
        row.index_version: [each.release for each in releases if each.index_version == row.index_version]
        for row in indexes
    }
    if as_json:
        print_json(
            [
                {
                    "version": row.index_version,
                    "built_at": row.created_at.isoformat(),
                    "ads": int(row.quality.get("ads", 0)),
                    "releases": speaking[row.index_version],
                }
                for row in indexes
            ]
        )
        return
    print_table(
        "Indexes",
        ("version", "built", "ads", "releases"),
        [
            (
                row.index_version,
                f"{row.created_at:%Y-%m-%d %H:%M}",
                int(row.quality.get("ads", 0)),
                ", ".join(speaking[row.index_version]),
            )
            for row in indexes
        ],
    )


@index.command()
@click.argument("version", required=False)
@json_option
def show(version: str | None, *, as_json: bool) -> None:
    """Print the quality report of an index (the newest one unless named): Table 5's figures, and each level's.

    Example: leadre index show
    """
    from leadre.indexing.ad_index import AdIndex

    found = settings()
    version = chosen_version(found, version)
    loaded = AdIndex.load(found.indexes / version)
    if as_json:
        print_json({"version": version, **loaded.quality})
    else:
        print_quality(version, loaded.quality)


@index.command()
@click.argument("version", required=False)
@json_option
def add(version: str | None, *, as_json: bool) -> None:
    """Give S-IDs to the catalog's new ads, from the frozen codebooks; workers pick them up between batches.

    Example: leadre index add
    """
    from leadre.pipelines.index.build import add_new_ads

    found, began = settings(), time.monotonic()
    with progress_bars() as progress:
        added = add_new_ads(
            database_url=found.database_url,
            indexes=found.indexes,
            version=chosen_version(found, version),
            now=datetime.now(UTC),
            progress=progress,
        )
    grown, seconds = added.index, time.monotonic() - began
    if as_json:
        left_out = {"nameless": added.nameless, "crowded": added.crowded}
        counts = {"added": added.ads, "ads": len(grown), "seconds": seconds}
        print_json({"version": grown.version, "revision": grown.revision, **counts, **left_out})
        return
    console.print(
        f"[green]✓[/] {added.ads:,} ads added in {seconds:.1f} s; index {grown.version} holds {len(grown):,} ads "
        f"(revision {grown.revision})"
    )
    if added.nameless:
        console.print(
            f"[yellow]![/] {len(added.nameless):,} ads have no name and get no S-ID, ad "
            f"{escape(repr(added.nameless[0]))} for one"
        )
    if added.crowded:
        console.print(
            f"[yellow]![/] {len(added.crowded):,} ads share their codes with too many others and get no S-ID, ad "
            f"{escape(repr(added.crowded[0]))} for one; remove repeated ads, or build a new index and train a release "
            "for it"
        )


@index.command()
@click.argument("version", required=False)
@json_option
def check(version: str | None, *, as_json: bool) -> None:
    """Verify an index's files (the newest one's unless named) against the SHA-256 sums of its manifest.

    Exit code 1: a file is missing or was altered, and which.

    Example: leadre index check
    """
    from leadre.artifacts import open_artifact

    found = settings()
    version = chosen_version(found, version)
    open_artifact((found.indexes / version).resolve(), kind="index", verify=True)
    if as_json:
        print_json({"version": version, "whole": True})
    else:
        console.print(f"[green]✓[/] index {version} is whole")


def print_quality(version: str, quality: dict[str, Any]) -> None:
    """Print Table 5's figures, one row a level with the figures that the index has, and what they warn of."""
    from leadre.indexing.quality import warning_of

    console.print(
        f"[bold]Index {version}[/]: {quality['ads']:,} ads, collision rate {quality['collision_rate']:.2%}, "
        f"max collision {quality['max_collision']}, average usage {quality['average_usage']:.3f}"
        + (
            f", differing in the last code only {quality['last_code_only']:.2%}\n"
            if "last_code_only" in quality
            else "\n"
        )
    )
    there = [(name, heading) for name, heading in _FIGURES if name in quality]
    levels = zip(*(quality[name] for name, _ in there), strict=True)
    print_table(
        "Levels: entropy and information about the category in bits; variance explained and purity up to the level",
        ("level", *(heading for _, heading in there)),
        [(chr(97 + level), *map(float, values)) for level, values in enumerate(levels)],
    )
    if warning := warning_of(quality):
        console.print(f"[yellow]![/] {warning}")
