"""`leadre index`: build, show, extend and check the ad index. LEADRE §3.2."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from leadre.cli.console import console, print_json, print_table, progress_bars
from leadre.cli.session import connection, settings
from leadre.errors import ConfigError
from leadre.recipe import load_recipe
from leadre.settings import Settings


def newest_version(found: Settings) -> str:
    """Return the index version recorded last.

    Raises:
        ConfigError: there is none.
    """
    from leadre.store.releases import newest_index

    with connection(found) as connected:
        version = newest_index(connected)
    if version is None:
        raise ConfigError("there is no index yet: `leadre index build` makes one")
    return version


@click.group()
def index() -> None:
    """Build and inspect the ad index."""


@index.command()
@click.argument("recipe", type=click.Path(path_type=Path), default=Path("recipes/demo.toml"))
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Change one value of the recipe.")
def build(recipe: Path, overrides: tuple[str, ...]) -> None:
    """Give every ad of the catalog an S-ID: describe, encode, quantise, disambiguate.

    Building again from the same ads and recipe finds the index there.

    Example: leadre index build recipes/amazon_beauty.toml --set index.codes=512
    """
    from leadre.pipelines.build_index import build_index

    found = settings()
    with progress_bars() as progress:
        built = build_index(
            database_url=found.database_url,
            indexes=found.indexes,
            recipe=load_recipe(recipe, overrides=overrides).index,
            now=datetime.now(UTC),
            progress=progress,
        )
    print_quality(built.version, built.quality)


@index.command()
@click.argument("version", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(version: str | None, *, as_json: bool) -> None:
    """Print the quality report of an index (the newest one unless named): Table 5's figures, and each level's."""
    from leadre.indexing.ad_index import AdIndex

    found = settings()
    version = version or newest_version(found)
    loaded = AdIndex.load(found.indexes / version)
    if as_json:
        print_json({"version": version, **loaded.quality})
    else:
        print_quality(version, loaded.quality)


@index.command()
@click.argument("version", required=False)
def add(version: str | None) -> None:
    """Give S-IDs to the catalog's new ads, from the frozen codebooks; workers pick them up between batches."""
    from leadre.pipelines.build_index import add_new_ads

    found = settings()
    with progress_bars() as progress:
        grown = add_new_ads(
            database_url=found.database_url,
            indexes=found.indexes,
            version=version or newest_version(found),
            now=datetime.now(UTC),
            progress=progress,
        )
    console.print(f"[green]✓[/] index {grown.version} holds {len(grown):,} ads (revision {grown.revision})")


@index.command()
@click.argument("version", required=False)
def check(version: str | None) -> None:
    """Verify an index's files against the SHA-256 sums of its manifest."""
    from leadre.artifacts import open_artifact

    found = settings()
    version = version or newest_version(found)
    open_artifact((found.indexes / version).resolve(), kind="index", verify=True)
    console.print(f"[green]✓[/] index {version} is whole")


def print_quality(version: str, quality: dict[str, object]) -> None:
    """Print Table 5's figures and one row a level."""
    console.print(
        f"[bold]Index {version}[/]: {quality['ads']:,} ads, collision rate {quality['collision_rate']:.2%}, "
        f"max collision {quality['max_collision']}, average usage {quality['average_usage']:.3f}\n"
    )
    levels = zip(quality["usage"], quality["entropy_bits"], quality["category_purity"], strict=True)  # type: ignore[call-overload]
    print_table(
        "Levels",
        ("level", "usage", "entropy, bits", "category purity"),
        [(chr(97 + level), *map(float, values)) for level, values in enumerate(levels)],
    )
