"""`leadre index encoders`: Table 3 on your own catalog, beside the paper's. LEADRE §5.2.4."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from leadre.cli.experiments.kept import keep_for_report
from leadre.cli.frame.command import OneOf, command
from leadre.cli.session import settings
from leadre.cli.terminal import console, json_option, print_json, print_table, progress_bars

if TYPE_CHECKING:
    from leadre.experiments.encoders import Comparison


@command()
@click.argument("names", nargs=-1, metavar="[ENCODER]...")
@click.option("--per-category", type=click.IntRange(min=2), default=100, help="Ads sampled a category.")
@click.option("--min-ads", type=click.IntRange(min=2), default=100, help="Leave smaller categories out.")
@click.option(
    "--level",
    type=OneOf(["first", "second"]),
    default="second",
    help="Which categories: first-level or second-level ones.",
)
@click.option("--hide-categories", is_flag=True, help="Leave the categories out of the descriptions.")
@click.option("--instruction", default="", help='Put before every description, for example "query: " for E5.')
@click.option("--seed", type=int, default=0, help="Of the sample.")
@json_option
def encoders(
    names: tuple[str, ...],
    *,
    per_category: int,
    min_ads: int,
    level: Literal["first", "second"],
    hide_categories: bool,
    instruction: str,
    seed: int,
    as_json: bool,
) -> None:
    """Compare encoders: how often are an ad's Top-K nearest ads of its own category? (Table 3)

    An ENCODER is a Hugging Face name or path, or minilm, tfidf or hashed (these three by default). tfidf is fitted on
    the catalog and serves comparison only. What was encoded once is kept.

    Example: leadre index encoders minilm BAAI/bge-m3 --level first --hide-categories
    """
    from leadre.experiments.encoders import ENCODERS, PAPER, compare_encoders

    found = settings()
    with progress_bars() as progress:
        compared = compare_encoders(
            names or ENCODERS,
            database_url=found.database_url,
            embeddings=found.home / "embeddings",
            per_category=per_category,
            min_ads=min_ads,
            level=level,
            hide_categories=hide_categories,
            instruction=instruction,
            seed=seed,
            progress=progress,
        )
    plain = {
        "level": compared.level,
        "categories": compared.categories,
        "ads": compared.ads,
        "categories_hidden": compared.hidden,
        "chance": compared.chance,
        "accuracy": compared.accuracy,
        "paper": {name: dict(zip((1, 10, 50, 100), row, strict=True)) for name, row in PAPER.items()},
    }
    keep_for_report(found, "table3", plain)
    if as_json:
        print_json(plain)
    else:
        print_comparison(compared)


def print_comparison(compared: Comparison) -> None:
    """Print Table 3: ours, then the paper's."""
    from leadre.experiments.encoders import PAPER

    columns = ("encoder", "top 1", "top 10", "top 50", "top 100")
    console.print(
        f"{compared.ads:,} ads of {compared.categories} {compared.level}-level categories, "
        f"{'not named' if compared.hidden else 'named'} in the descriptions; chance: {compared.chance:.2%}\n"
    )
    print_table(
        "This catalog",
        columns,
        [(name, *map(_percent, row.values())) for name, row in compared.accuracy.items()],
    )
    print_table("The paper's data", columns, [(name, *map(_percent, row)) for name, row in PAPER.items()])
    console.print(
        "The paper's data are 100 Chinese ads of each of 48 categories: compare the order of encoders and the fall "
        "with K, not the figures."
    )


def _percent(share: float) -> str:
    return f"{share:.2%}"
