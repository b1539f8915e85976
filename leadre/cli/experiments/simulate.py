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
    from leadre.simulation.parameters import Parameters
    from leadre.simulation.real.run import RealRun

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
@click.option(
    "--real",
    is_flag=True,
    help="One small world through a real User Server, queue and worker, beside the fast clock. Takes minutes.",
)
@click.option(
    "--deadline",
    type=click.FloatRange(0, 600, min_open=True),
    default=5.0,
    help="With --real: seconds that the ads of a visit wait for a list that knows its content.",
)
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
    real: bool,
    deadline: float,
    plots: Path | None,
    as_json: bool,
) -> None:
    """Simulate an ad system with and without LEADRE: GMV, revenue, consumption, diversity, with intervals.

    It is a SIMULATION: worlds are made up, and the LLM is tiny. It shows that the parts work together and what depends
    on what, not what your traffic would bring. Each world trains a release of its own, once; they stay in
    LEADRE_HOME/simulation, and so does the result. It runs PostgreSQL and Redis of its own.

    With --real users' behaviors are posted to a server process, a Celery worker makes the lists, and what both clocks
    say is put side by side. It is written into the same result, beside what is there.

    Examples:
    leadre simulate --worlds 5 --plots figures
    leadre simulate --real
    """
    if real and (sweep or plots is not None):
        raise click.UsageError("--real runs one world and draws nothing: leave out --sweep and --plots")

    from leadre.simulation.market import log_spread
    from leadre.simulation.parameters import Parameters
    from leadre.simulation.run import simulate as run
    from leadre.store.importers.prices import read_market_prices

    parameters = Parameters(**_SMALLEST) if quick or real else Parameters()
    if users is not None:
        parameters = replace(parameters, users=users)
    if prices is not None:
        parameters = replace(parameters, market_spread=log_spread(read_market_prices(prices)))
    seeds = tuple(range(seed, seed + worlds))
    folder = home() / "simulation"
    if real:
        _simulate_really(folder, parameters, seed=seed, deadline_s=deadline, as_json=as_json)
        return
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


def _simulate_really(folder: Path, parameters: Parameters, *, seed: int, deadline_s: float, as_json: bool) -> None:
    from leadre.simulation.measure.result import write_result
    from leadre.simulation.real.run import run_real

    with progress_bars() as progress:
        found = run_real(home=folder, parameters=parameters, seed=seed, deadline_s=deadline_s, progress=progress)
    written = {"simulation": True, "real": found.to_json()}
    path = write_result(folder, written)
    if as_json:
        print_json(written)
        return
    print_real(found)
    console.print(f"[green]✓[/] {path}")


def print_real(found: RealRun) -> None:
    """Print what both clocks say."""
    console.print(
        f"[bold yellow]SIMULATION[/] of a made-up world with {found.parameters.users} users: the fast clock, and a "
        "real User Server, queue, worker and feature store.\n"
    )
    names = ("gmv", "expected_gmv", "revenue", "impressions", "ctr", "consumption_ratio")
    print_table(
        "Both clocks: the same world, users and luck (a user's mean)",
        ("arm", "clock", *names),
        [
            (each.arm, clock, *(f"{figures[name]:.4g}" for name in names))
            for each in found.arms
            for clock, figures in (("fast", each.fast), ("real", each.real))
        ],
    )
    print_table(
        f"Lists on the real clock; ads wait up to {found.deadline_s:g} s for them",
        ("arm", "visits", "fresh", "equal of the fresh", "common ads", "visible p50", "p95"),
        [
            (
                each.arm,
                f"{each.due} of {each.visits}",
                f"{each.fresh_share:.1%}",
                f"{each.equal_share:.1%}",
                f"{each.common:.1%}",
                *((f"{seconds:.2f} s" for seconds in each.visible_s) if each.visible_s else ("–", "–")),
            )
            for each in found.arms
        ],
    )


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
            f"Sweep, {len(found.sweep_seeds)} worlds: LEADRE as a branch over none (with a limited LLM: with ARD)",
            ("parameter", *fields),
            [
                (f"{row.parameter}={row.value:g}", *(_interval(row.branch[field]) for field in fields))
                for row in found.sweep
            ],
        )
        print_table(
            "The same: what comes on top",
            ("parameter", "lift", *fields),
            [
                (f"{row.parameter}={row.value:g}", row.other_is, *(_interval(row.other[field]) for field in fields))
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
