"""`leadre experiment`: the paper's offline tables and figures, on this data. LEADRE §5.2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from leadre.cli.experiments.kept import keep_for_report
from leadre.cli.frame.command import OneOf, command
from leadre.cli.session import connection, now_option, recipe_argument, set_option, settings
from leadre.cli.terminal import console, json_option, print_json, print_table, progress_bars
from leadre.errors import ConfigError
from leadre.recipe import Recipe, load_recipe
from leadre.settings import Settings

if TYPE_CHECKING:
    from leadre.evaluation.bootstrap import Interval
    from leadre.experiments.ablation import Trials
    from leadre.experiments.result import Comparison, Experiment, Row

_NAMES = ("table1", "table2", "table4", "table6", "figure4", "figure5", "combined", "llm-alone")
_OF_A_RELEASE = ("figure5", "combined")


@command()
@click.argument("name", type=OneOf(_NAMES))
@recipe_argument
@click.option("--seeds", type=click.IntRange(min=1), default=3, help="Trainings of every row.")
@set_option
@click.option(
    "--encoder",
    "encoders",
    multiple=True,
    help="table4: repeatable; by default the recipe's and a hashed bag of words.",
)
@click.option(
    "--release",
    "releases",
    multiple=True,
    help="figure5, combined: the release that is asked; by default the newest (figure5 trains one where none is). "
    "llm-alone: repeatable, one a seed; by default the newest.",
)
@click.option("--users", type=click.IntRange(min=0), help="llm-alone: ask so many users, 0: all; else the recipe's.")
@click.option("--plots", type=click.Path(file_okay=False, path_type=Path), help="Folder for pictures (PNG and SVG).")
@json_option
@now_option
def experiment(
    name: str,
    recipe: Path,
    *,
    seeds: int,
    overrides: tuple[str, ...],
    encoders: tuple[str, ...],
    releases: tuple[str, ...],
    users: int | None,
    plots: Path | None,
    as_json: bool,
    now: datetime,
) -> None:
    """Run an experiment of the paper on this data, and print the paper's figures beside ours.

    llm-alone is ours: it asks releases that are there for what the LLM finds alone, fused with the collaborative
    signal, and the signal without it, and takes no recipe.

    The recipe decides the size: recipes/demo.toml for 2 cores, recipes/paper.toml for GPUs. No release is recorded. The
    figures of finished trainings stay in LEADRE_HOME/experiments, and no training is repeated while they are there. The
    table stays in LEADRE_HOME/results, for `leadre report`.

    Example: leadre experiment table2 recipes/demo.toml --seeds 3 --plots figures
    """
    if encoders and name != "table4":
        raise ConfigError(f"--encoder is for table4; for {name} write --set index.encoder=NAME")
    if users is not None and name != "llm-alone":
        raise ConfigError(f"--users is for llm-alone; for {name} write --set evaluation.max_users={users}")
    found = settings()
    if name == "llm-alone":
        from leadre.cli.experiments.llm_alone import run_llm_alone

        if plots is not None or overrides:
            raise ConfigError("llm-alone draws no pictures and follows the releases' own recipes: no --plots, no --set")
        run_llm_alone(found, releases, now=now, max_users=users, as_json=as_json)
        return
    if releases and name not in _OF_A_RELEASE:
        raise ConfigError(
            f"--release is for figure5, combined and llm-alone; {name} trains its own models: leave it out"
        )
    if len(releases) > 1:
        raise ConfigError(f"{name} asks one release; give --release once")
    release = releases[0] if releases else None
    wanted = load_recipe(recipe, overrides=overrides)
    run = _of_release(name, found, release) if name in _OF_A_RELEASE else _experiment(name, encoders)
    from leadre.experiments.ablation import Trials

    trials = Trials(
        database_url=found.database_url,
        indexes=found.indexes,
        kept=found.home / "experiments",
        now=now,
        seeds=tuple(range(seeds)),
        device=found.device,
        precision=found.precision,
    )
    with progress_bars() as progress:
        made = run(wanted, replace(trials, progress=progress))
    for one in made:
        keep_for_report(found, one.name, one.to_json())
    if as_json:
        print_json({"experiments": [one.to_json() for one in made]})
    else:
        for one in made:
            print_experiment(one)
    if plots is not None:
        from leadre.experiments.plots import write_plots

        written = [path for one in made for path in write_plots(one, plots)]
        if not as_json:
            console.print(f"[green]✓[/] {len(written)} pictures in {plots}")


def _experiment(name: str, encoders: Sequence[str]) -> Callable[[Recipe, Trials], Sequence[Experiment]]:
    if name == "table1":
        from leadre.experiments.table1 import table1

        return table1
    if name == "table2":
        from leadre.experiments.table2 import table2

        return table2
    if name == "table4":
        from leadre.experiments.table4 import table4

        return partial(table4, encoders=encoders)
    if name == "table6":
        from leadre.experiments.table6 import table6

        return table6
    from leadre.experiments.figure4 import figure4

    return figure4


def _of_release(name: str, found: Settings, release: str | None) -> Callable[[Recipe, Trials], Sequence[Experiment]]:
    """Return the experiment on a release: the one named, else the newest; without any, figure5 trains one."""
    from leadre.experiments.combined import combined
    from leadre.experiments.figure5 import figure5
    from leadre.store.release.records import list_releases, named_or_newest

    with connection(found) as connected:
        if name == "figure5" and release is None and not list_releases(connected):
            return partial(figure5, release=None)
        folder = Path(named_or_newest(connected, release).uri)
    return partial(figure5 if name == "figure5" else combined, release=folder)


def print_experiment(made: Experiment) -> None:
    """Print the figures over the paper's, the differences over the paper's, and in words which directions hold."""
    console.print(
        f"[bold]{made.title}[/]  {made.users:,} users, {len(made.seeds)} seed{'s' * (len(made.seeds) > 1)}; {made.note}"
    )
    print_table("\nMean", ("", *made.metrics), [_figures(row, made.metrics) for row in made.rows])
    if any(row.seed_sd for row in made.rows):
        print_table(
            "Standard deviation between seeds",
            ("", *made.metrics),
            [(row.name, *(row.seed_sd[metric] for metric in made.metrics)) for row in made.rows if row.seed_sd],
        )
    if len(made.seeds) == 1:
        console.print("[yellow]One seed: the intervals know nothing of the noise of training; take --seeds 3.[/]\n")
    pairs = list(dict.fromkeys((each.row, each.against) for each in made.comparisons))
    print_table("Difference", ("", *made.metrics), [_differences(made.compared(*pair)) for pair in pairs])
    for row, against in pairs:
        console.print(f"{row} against {against}: {_in_words(made.compared(row, against))}")
    console.print()


def _figures(row: Row, metrics: Sequence[str]) -> list[Text]:
    """Return the cells of one row: lines of means, intervals and the paper's figures, as far as there are any."""
    lines = [
        (row.name, [_short(row.figures[metric].mean, 4) if row.figures else "" for metric in metrics]),
        ("  95 %", [_span(row.figures[metric]) if row.figures else "" for metric in metrics]),
        ("  paper", [f"{row.paper[metric]:.4f}" if metric in row.paper else "" for metric in metrics]),
    ]
    return _cells(lines)


def _differences(compared: Sequence[Comparison]) -> list[Text]:
    """Return the cells of one pair of rows: lines of differences, intervals and the paper's differences."""
    lines = [
        (compared[0].row, [_change(each, each.difference.mean, 1) for each in compared]),
        (f"  − {compared[0].against}", [_range(each) for each in compared]),
        ("  paper", [f"{each.paper:+.1%}" if each.paper is not None else "" for each in compared]),
    ]
    return _cells(lines)


def _cells(lines: Sequence[tuple[str, list[str]]]) -> list[Text]:
    """Put lines of texts on top of each other, without those that are empty."""
    filled = [(name, texts) for name, texts in lines if any(texts)]
    styled = [
        [Text(text, style="dim" if place else "") for text in (name, *texts)]
        for place, (name, texts) in enumerate(filled)
    ]
    return [Text("\n").join(column) for column in zip(*styled, strict=True)]


def _span(interval: Interval) -> str:
    return f"{_short(interval.low, 3)}–{_short(interval.high, 3)}"


def _short(value: float, decimals: int) -> str:
    """Return a share with so many decimals, and what is larger with fewer."""
    return f"{value:.{decimals if abs(value) < 10 else 1}f}"


def _range(each: Comparison) -> str:
    return f"{_change(each, each.difference.low, 0)} … {_change(each, each.difference.high, 0)}"


def _change(each: Comparison, difference: float, decimals: int) -> str:
    """Return a difference as a share of what it is a difference from, where that is not 0."""
    return f"{difference / each.base:+.{decimals}%}" if each.relative is not None else f"{difference:+.4f}"


def _in_words(compared: Sequence[Comparison]) -> str:
    by_verdict: dict[str, list[str]] = {}
    for each in compared:
        by_verdict.setdefault(each.verdict, []).append(each.metric)
    return "; ".join(f"{verdict}: {', '.join(metrics)}" for verdict, metrics in by_verdict.items())
