"""The report's pictures, as inline SVG. LEADRE §5's figures for one release."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl

mpl.use("svg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leadre.plot_style import GRID, INK, MUTED, OTHERS, OURS, STAGES, STYLE


def quality_bars(systems: Mapping[str, Mapping[str, tuple[float, float, float]]], metrics: Sequence[str]) -> str:
    """Draw grouped bars with 95 % intervals.

    Args:
        systems: name -> metric -> (value, low, high); the first is ours.
        metrics: what to draw, in order.
    """
    figure, axes = _figure(8.4, 3.0)
    width = 0.8 / max(1, len(systems))
    for place, (name, values) in enumerate(systems.items()):
        colour = OURS if place == 0 else OTHERS[(place - 1) % len(OTHERS)]
        for group, metric in enumerate(metrics):
            value, low, high = values[metric]
            at = group + (place - (len(systems) - 1) / 2) * width
            axes.bar(at, value, width * 0.92, color=colour, label=name if group == 0 else None)
            axes.plot([at, at], [low, high], color=INK, linewidth=1)
    axes.set_xticks(range(len(metrics)), metrics)
    axes.tick_params(length=0)
    axes.legend(frameon=False, ncols=len(systems), loc="upper left", bbox_to_anchor=(0, 1.16))
    return _svg(figure)


def training_curves(points: Sequence[Mapping[str, Any]]) -> str:
    """Draw the loss of every stage over the optimizer steps, one after the other, and the validation's HR@10 if any."""
    figure, axes = _figure(8.4, 2.8)
    offset, validated = 0.0, []
    for place, stage in enumerate(dict.fromkeys(str(point["stage"]) for point in points)):
        own = [point for point in points if point["stage"] == stage]
        steps = [offset + float(point["step"]) for point in own]
        colour = STAGES[place % len(STAGES)]
        axes.plot(steps, [float(point["loss"]) for point in own], color=colour, linewidth=1.8, label=stage)
        validated += [
            (at, float(point["hr_10"])) for at, point in zip(steps, own, strict=True) if point.get("hr_10") is not None
        ]
        if offset:
            axes.axvline(offset, color=GRID, linewidth=1)
        offset = steps[-1]
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel("loss")
    if validated:
        other = axes.twinx()
        other.plot(*zip(*validated, strict=True), color=INK, marker="o", markersize=3, linewidth=1)
        other.set_ylabel("validation HR@10")
        other.set_ylim(bottom=0)
    axes.legend(frameon=False, ncols=6, loc="upper right")
    return _svg(figure)


def level_bars(values: Sequence[float], *, title: str, limit: float | None = None) -> str:
    """Draw one bar a level, for usage, entropy or purity of the codebooks."""
    figure, axes = _figure(2.75, 2.2)
    letters = [f"{chr(97 + level)}" for level in range(len(values))]
    axes.bar(letters, values, 0.6, color=OURS)
    for level, value in enumerate(values):
        axes.annotate(f"{value:.2f}", (level, value), ha="center", va="bottom", fontsize=8, color=MUTED)
    if limit is not None:
        axes.axhline(limit, color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.tick_params(length=0)
    axes.margins(y=0.18)
    return _svg(figure)


def histogram(edges: Sequence[float], counts: Sequence[int], *, title: str) -> str:
    """Draw how values are distributed: shares of them in percent between `edges`."""
    figure, axes = _figure(2.75, 2.2)
    shares = [100 * count / max(sum(counts), 1) for count in counts]
    widths = [0.92 * (right - left) for left, right in pairwise(edges)]
    axes.bar([(left + right) / 2 for left, right in pairwise(edges)], shares, widths, color=OURS)
    axes.set_title(f"{title}, %", fontsize=10, color=INK, loc="left")
    axes.tick_params(length=0)
    return _svg(figure)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    return figure, axes


def _svg(figure: Figure) -> str:
    """Return the figure as an SVG element without the XML head, transparent, as wide as its place."""
    buffer = io.StringIO()
    with plt.rc_context(STYLE):
        figure.savefig(
            buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
