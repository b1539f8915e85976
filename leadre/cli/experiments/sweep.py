"""`leadre index sweep`: Table 5 for this catalog. LEADRE §5.2.5."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from leadre.cli.experiments.kept import keep_for_report
from leadre.cli.frame.command import OneOf, command
from leadre.cli.session import recipe_argument, set_option, settings
from leadre.cli.terminal import console, json_option, print_json, print_table, progress_bars
from leadre.recipe import load_recipe

if TYPE_CHECKING:
    from leadre.experiments.index_sweep.table import Assignment, QuantiserName, Sweep, SweepRow

_QUANTISERS, _ASSIGNMENTS = ("rqvae", "residual_kmeans", "product"), ("nearest", "balanced")


@command()
@recipe_argument
@set_option
@click.option(
    "--levels",
    type=click.IntRange(1, 8),
    multiple=True,
    default=(3, 4),
    help="M, codebooks; repeatable.",
)
@click.option(
    "--codes",
    type=click.IntRange(2, 65_536),
    multiple=True,
    default=(256, 512, 1024),
    help="K, codes in a codebook; repeatable.",
)
@click.option(
    "--quantiser",
    "quantisers",
    type=OneOf(_QUANTISERS),
    multiple=True,
    help="Repeatable; by default the recipe's.",
)
@click.option(
    "--assignment",
    "assignments",
    type=OneOf(_ASSIGNMENTS),
    multiple=True,
    help="Repeatable; by default the recipe's.",
)
@click.option("--plots", type=click.Path(file_okay=False, path_type=Path), help="Folder for pictures (PNG and SVG).")
@json_option
def sweep(
    recipe: Path,
    overrides: tuple[str, ...],
    *,
    levels: tuple[int, ...],
    codes: tuple[int, ...],
    quantisers: tuple[str, ...],
    assignments: tuple[str, ...],
    plots: Path | None,
    as_json: bool,
) -> None:
    """Fit codebooks of every quantity and size asked for, and print Table 5 beside the paper's figures.

    Nothing is built or recorded. The ads are encoded once, and not again by the next sweep or index.

    Example: leadre index sweep --levels 3 --levels 4 --codes 256 --codes 1024 --quantiser rqvae --quantiser product
    """
    from leadre.experiments.index_sweep.sweep import sweep_catalog

    found = settings()
    wanted = load_recipe(recipe, overrides=overrides).index
    with progress_bars() as progress:
        made = sweep_catalog(
            database_url=found.database_url,
            indexes=found.indexes,
            recipe=wanted,
            levels=levels,
            codes=codes,
            quantisers=cast("Sequence[QuantiserName]", quantisers or (wanted.quantiser,)),
            assignments=cast("Sequence[Assignment]", assignments or (wanted.assignment,)),
            progress=progress,
        )
    keep_for_report(found, "table5", made.to_json())
    if as_json:
        print_json(made.to_json())
    else:
        print_sweep(made)
    if plots is not None:
        from leadre.experiments.index_sweep.plots import write_plots

        written = write_plots(made, plots)
        if not as_json:
            console.print(f"[green]✓[/] {len(written)} pictures in {plots}")


def print_sweep(made: Sweep) -> None:
    """Print Table 5 (collision rate, max collision number, average usage), the levels, and the paper's statements."""
    console.print(
        f"{made.ads:,} ads, encoder {made.encoder}; {made.identical:.2%} share their description with another ad\n"
    )
    for label, rows in made.measured.items():
        print_table(
            f"Table 5, {label}",
            ("quantity x size", "collision rate↓", "max↓", "usage↑", "paper: rate", "paper: max", "paper: usage"),
            [_table_5(row) for row in rows],
        )
        print_table(
            f"Levels, {label}: a, b, c, …",
            ("quantity x size", "entropy, bits", "purity", "variance", "category, bits"),
            [
                (
                    f"{row.levels} x {row.codes}",
                    _levels(row, "entropy_bits", 1),
                    _levels(row, "category_purity", 2),
                    _levels(row, "variance_explained", 2),
                    _levels(row, "mutual_information_bits", 2),
                )
                for row in rows
            ],
        )
    for row in made.rows:
        if row.reason:
            console.print(f"[yellow]not fitted[/] {row.label} {row.levels} x {row.codes}: {row.reason}")
    for trend in made.trends():
        verdict = "[green]holds[/]" if trend.holds else "[yellow]does not hold[/]"
        console.print(f"{trend.label}: {trend.claim}: {verdict} ({trend.evidence})")


def _table_5(row: SweepRow) -> tuple[object, ...]:
    from leadre.experiments.index_sweep.table import PAPER

    quality = row.quality
    printed = PAPER.get((row.levels, row.codes))
    return (
        f"{row.levels} x {row.codes}",
        f"{quality['collision_rate']:>8.2%}",
        quality["max_collision"],
        f"{quality['average_usage']:.3f}",
        *((f"{printed[0]:>7.2%}", printed[1], f"{printed[2]:.1f}") if printed else ("", "", "")),
    )


def _levels(row: SweepRow, figure: str, decimals: int) -> str:
    return " ".join(f"{value:.{decimals}f}".removeprefix("0").replace("1.00", "1") for value in row.quality[figure])
