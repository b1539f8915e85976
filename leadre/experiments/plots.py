"""Pictures of an experiment: relative differences with their intervals, and the lines of a figure. LEADRE §5.2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from leadre.experiments.result import Comparison, Curve, Experiment
from leadre.plot_style import INK, MUTED, OURS, STAGES, STYLE

_PANELS_A_ROW = 3


def write_plots(found: Experiment, folder: Path) -> list[Path]:
    """Draw an experiment as PNG and SVG files: `NAME_differences`, and `NAME` where it has curves.

    Args:
        found: the experiment.
        folder: made if it is missing; files of the same names are replaced.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with mpl.rc_context({**STYLE, "figure.dpi": 160}):
        figures = {}
        if any(each.relative is not None for each in found.comparisons):
            figures[f"{found.name}_differences"] = _differences(found)
        if found.curves:
            figures[found.name] = _curves(found)
        for name, figure in figures.items():
            for suffix in ("png", "svg"):
                path = folder / f"{name}.{suffix}"
                figure.savefig(path, metadata={"Date": None} if suffix == "svg" else None)
                written.append(path)
    return written


def _differences(found: Experiment) -> Figure:
    """Draw one panel for each metric: every row's relative difference from the reference, and the paper's."""
    compared = [each for each in found.comparisons if each.against == found.reference and each.relative is not None]
    rows = list(dict.fromkeys(each.row for each in compared))
    metrics = [metric for metric in found.metrics if any(each.metric == metric for each in compared)]
    columns = min(len(metrics), _PANELS_A_ROW)
    lines = -(-len(metrics) // columns)
    figure = Figure(figsize=(1.8 + 2.4 * columns, 0.7 + lines * (0.6 + 0.34 * len(rows))), layout="constrained")
    panels: list[Axes] = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel().tolist()
    for axes, metric in zip(panels, metrics, strict=False):
        axes.axvline(0, color=INK, linewidth=0.8)
        for each in compared:
            if each.metric == metric:
                _draw_difference(axes, each, at=len(rows) - 1 - rows.index(each.row))
        axes.set_title(metric, loc="left", fontsize=10, color=INK)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:+.3g} %" if share else "0"))
        axes.locator_params(axis="x", nbins=4)
        axes.tick_params(length=0, labelsize=8)
        axes.grid(visible=True, axis="x")
        axes.margins(x=0.12)
    for axes in panels[len(metrics) :]:
        axes.set_visible(False)
    panels[0].set_yticks(range(len(rows)), rows[::-1])
    panels[0].set_ylim(-0.6, len(rows) - 0.4)
    seeds = f"{len(found.seeds)} seed{'s' * (len(found.seeds) > 1)}"
    meaning = f"against {found.reference}; 95 % intervals over {found.users:,} users and {seeds}"
    figure.supxlabel(meaning, fontsize=8, color=MUTED)
    _legend(figure, panels)
    return figure


def _draw_difference(axes: Axes, each: Comparison, *, at: int) -> None:
    relative, low, high = (
        value / each.base for value in (each.difference.mean, each.difference.low, each.difference.high)
    )
    axes.errorbar(
        relative,
        at,
        xerr=[[max(0.0, relative - low)], [max(0.0, high - relative)]],
        fmt="o",
        color=OURS,
        markersize=5,
        linewidth=1.6,
        label="ours",
    )
    if each.paper is not None:
        axes.plot(each.paper, at, "D", color=MUTED, markerfacecolor="white", markersize=5, label="the paper's")


def _curves(found: Experiment) -> Figure:
    """Draw the panels of the experiment's curves, each point with its interval."""
    names = list(dict.fromkeys(curve.panel for curve in found.curves))
    lines = list(dict.fromkeys(curve.name for curve in found.curves))
    columns = min(len(names), _PANELS_A_ROW)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(0.8 + 3.4 * columns, 0.6 + 2.7 * rows), layout="constrained")
    panels: list[Axes] = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes, panel in zip(panels, names, strict=False):
        for curve in found.curves:
            if curve.panel == panel:
                _draw_curve(axes, curve, place=lines.index(curve.name))
        axes.set_title(panel, loc="left", fontsize=10, color=INK)
        axes.set_xlabel(found.x_label)
        axes.tick_params(length=0)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    panels[0].set_ylabel(found.y_label)
    _legend(figure, panels)
    return figure


def _draw_curve(axes: Axes, curve: Curve, *, place: int) -> None:
    colour = STAGES[place % len(STAGES)]
    axes.plot(curve.x, [y.mean for y in curve.y], "o-", color=colour, linewidth=1.6, markersize=4, label=curve.name)
    low, high = [y.low for y in curve.y], [y.high for y in curve.y]
    axes.fill_between(curve.x, low, high, color=colour, alpha=0.15, linewidth=0)


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    entries: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        entries |= {label: handle for label, handle in zip(labels, handles, strict=True) if label not in entries}
    figure.legend(entries.values(), entries, frameon=False, ncols=len(entries), loc="outside upper left", fontsize=9)
