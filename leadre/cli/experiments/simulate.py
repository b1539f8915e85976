"""`leadre simulate`: a simulated A/B test of LEADRE on made-up worlds. LEADRE §5.3; docs/simulation.md."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from leadre.cli.frame.command import command
from leadre.cli.start.services import home
from leadre.cli.terminal import console, json_option, print_json, print_table, progress_bars

if TYPE_CHECKING:
    from leadre.evaluation.bootstrap import Interval
    from leadre.simulation.measure.result import Simulation

_SMALLEST = {"users": 60, "visits": 2, "ticks": 4, "rehearsal": 1}
_LIFTS = {
    "branch": "LEADRE as a branch, over none",
    "features": "its ranking features as well, over the branch",
    "both": "branch and features, over none",
    "dpo": "after DPO, over before it",
    "ard": "limited LLM: ARD, over first come first served",
    "limited_ard": "limited LLM with ARD, over none",
    "aa": "A/A: the same system, other luck",
}


@command()
@click.option("--worlds", type=click.IntRange(1, 100), default=5, help="Worlds, a seed each.")
@click.option("--seed", default=1, help="Of the first world.")
@click.option("--users", type=click.IntRange(min=20), help="Users of each world.")
@click.option("--sweep", is_flag=True, help="Change parameters one by one: where does LEADRE not help?")
@click.option("--sweep-worlds", type=click.IntRange(1, 100), default=2, help="Worlds that are swept.")
@click.option(
    "--prices",
    type=click.Path(path_type=Path),
    help="Take the spread of competing prices from a file of market prices, as `leadre ads price` reads it.",
)
@click.option("--quick", is_flag=True, help="Small worlds: to see it work, not to learn anything.")
@click.option("--plots", type=click.Path(file_okay=False, path_type=Path), help="Folder for pictures (PNG and SVG).")
@json_option
def simulate(
    *,
    worlds: int,
    seed: int,
    users: int | None,
    sweep: bool,
    sweep_worlds: int,
    prices: Path | None,
    quick: bool,
    plots: Path | None,
    as_json: bool,
) -> None:
    """Simulate an ad system with and without LEADRE: GMV, revenue, consumption, diversity, with intervals.

    It is a SIMULATION: worlds are made up, and the LLM is tiny. It shows that the parts work together and what depends
    on what, not what your traffic would bring. Each world trains a release of its own, once; they stay in
    LEADRE_HOME/simulation, and so does the result. It runs PostgreSQL and Redis of its own.

    Example: leadre simulate --worlds 5 --plots figures
    """
    from leadre.simulation.market import log_spread
    from leadre.simulation.parameters import Parameters
    from leadre.simulation.run import simulate as run
    from leadre.store.importers.prices import read_market_prices

    parameters = Parameters(**_SMALLEST) if quick else Parameters()
    if users is not None:
        parameters = replace(parameters, users=users)
    if prices is not None:
        parameters = replace(parameters, market_spread=log_spread(read_market_prices(prices)))
    seeds = tuple(range(seed, seed + worlds))
    folder = home() / "simulation"
    with progress_bars() as progress:
        found = run(
            home=folder,
            parameters=parameters,
            seeds=seeds,
            sweep_seeds=seeds[:sweep_worlds] if sweep else (),
            progress=progress,
        )
    path = found.write(folder)
    written = []
    if plots is not None:
        from leadre.simulation.measure.plots import write_plots

        written = write_plots(found, plots)
    if as_json:
        print_json(found.to_json())
        return
    print_simulation(found)
    console.print(f"[green]✓[/] {path}" + (f", {len(written)} pictures in {plots}" if written else ""))


def print_simulation(found: Simulation) -> None:
    """Print arms, lifts and the sweep."""
    from leadre.simulation.measure.result import PAPER

    worlds = f"{len(found.seeds)} made-up world{'s' * (len(found.seeds) > 1)}"
    console.print(f"[bold yellow]SIMULATION[/] of {worlds} with {found.parameters.users} users each.\n")
    names = ("gmv", "revenue", "impressions", "ctr", "consumption_ratio", "diversity", "lists_llm")
    print_table(
        "Arms (GMV, revenue, impressions: a user's mean)",
        ("arm", *names),
        [(row.name, *(f"{row.figures[name]:.4g}" for name in names)) for row in found.arms],
    )
    fields = ("gmv", "expected_gmv", "revenue")
    print_table(
        "Lifts, paired by user, with 95 % intervals over worlds and users",
        ("lift", *fields),
        [
            (text, *(_interval(found.lifts[pair][field]) for field in fields))
            for pair, text in _LIFTS.items()
            if pair in found.lifts
        ],
    )
    print_table(
        "GMV as a two-group test of this size with CUPED would say it",
        ("lift", "gmv"),
        [
            *((_LIFTS[pair], _interval(interval)) for pair, interval in found.ab_randomised.items()),
            ("A/A: two groups, the same system", _interval(found.aa_randomised)),
        ],
    )
    if found.sweep:
        print_table(
            f"Sweep, GMV, {len(found.sweep_seeds)} worlds",
            ("parameter", "branch", "other lift", "which"),
            [
                (f"{row.parameter}={row.value:g}", _interval(row.branch), _interval(row.other), row.other_is)
                for row in found.sweep
            ],
        )
    low, high = PAPER["branch"]
    console.print(
        f"The paper, on real traffic: branch +{low:.2%} and +{high:.2%} GMV, features +{PAPER['features'][0]:.2%}, "
        f"consumption ratio {PAPER['consumption_ratio'][0]:.2%}. Do not compare the sizes: worlds here are made up."
    )


def _interval(value: Interval) -> str:
    return f"{value.mean:+.1%} ({value.low:+.1%} … {value.high:+.1%})"
