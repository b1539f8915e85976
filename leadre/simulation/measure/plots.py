"""Pictures of a simulation: its GMV lifts with their intervals, and the sweep's. Ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from leadre.evaluation.bootstrap import Interval
from leadre.plot_style import INK, MUTED, OURS, STYLE
from leadre.simulation.measure.result import PAPER, Simulation

_NAMES = {
    "branch": "LEADRE as a branch",
    "features": "features, over the branch",
    "dpo": "after DPO, over before",
    "ard": "limited LLM: ARD, over\nfirst come first served",
    "aa": "A/A, other luck",
}


def write_plots(found: Simulation, folder: Path) -> list[Path]:
    """Draw the lifts, and the sweep where there is one, as PNG and SVG files.

    Args:
        found: the simulation.
        folder: made if it is missing; files of the same names are replaced.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({**STYLE, "figure.dpi": 160}):
        lifts = [(name, found.lifts[pair]["gmv"], PAPER.get(pair, ())) for pair, name in _NAMES.items()]
        figures = {"simulation_lifts": _forest(lifts, f"{len(found.seeds)} made-up worlds")}
        if found.sweep:
            rows = [(f"{row.parameter} = {row.value:g}", row.branch["expected_gmv"], ()) for row in found.sweep]
            base = ("defaults", found.lifts["branch"]["expected_gmv"], ())
            what = "LEADRE as a branch, one parameter changed"
            figures["simulation_sweep"] = _forest([base, *rows], what, of="expected GMV")
        written = []
        for name, figure in figures.items():
            for suffix in ("png", "svg"):
                path = folder / f"{name}.{suffix}"
                figure.savefig(path, metadata={"Date": None} if suffix == "svg" else None)
                written.append(path)
    return written


def _forest(rows: Sequence[tuple[str, Interval, Sequence[float]]], what: str, *, of: str = "GMV") -> Figure:
    figure = Figure(figsize=(6.4, 1.0 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=INK, linewidth=0.8)
    for place, (_, lift, paper) in enumerate(reversed(rows)):
        axes.errorbar(
            lift.mean,
            place,
            xerr=[[max(0.0, lift.mean - lift.low)], [max(0.0, lift.high - lift.mean)]],
            fmt="o",
            color=OURS,
            markersize=5,
            linewidth=1.6,
        )
        axes.plot(list(paper), [place] * len(paper), "D", color=MUTED, markerfacecolor="white", markersize=5)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in reversed(rows)])
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    figure.suptitle(f"SIMULATION: {of} lift, 95 % intervals\n{what}", x=0.02, ha="left", fontsize=10, color=INK)
    if any(paper for _, _, paper in rows):
        figure.supxlabel("diamonds: the paper's, on real traffic", fontsize=8, color=MUTED)
    return figure
