"""Pictures of a sweep: collisions by codebook size, and what each level of the codes says about an ad.

LEADRE §5.2.5, Table 5; §6, future work (2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from leadre.experiments.index_sweep.table import PAPER, Sweep, SweepRow
from leadre.plot_style import INK, MUTED, STAGES, STYLE

_NAMES = {"rqvae": "RQ-VAE", "residual_kmeans": "residual k-means", "product": "product codes"}
_LABELLED = 4  # bars side by side that have room for their figures
_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.3, "alpha": 0.85}


def write_plots(found: Sweep, folder: Path) -> list[Path]:
    """Draw a sweep as PNG and SVG files: `collisions`, and `information_MxK` for every size.

    Args:
        found: with one row or more that could be fitted.
        folder: made if it is missing; files of the same names are replaced.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row for own in found.measured.values() for row in own]
    written = []
    with mpl.rc_context({**STYLE, "figure.dpi": 160}):
        figures = {"collisions": _collisions(found)} if rows else {}
        for levels, codes in sorted({(row.levels, row.codes) for row in rows}):
            same = [row for row in rows if (row.levels, row.codes) == (levels, codes)]
            figures[f"information_{levels}x{codes}"] = _information(found, same)
        for name, figure in figures.items():
            for suffix in ("png", "svg"):
                path = folder / f"{name}.{suffix}"
                figure.savefig(path, metadata={"Date": None} if suffix == "svg" else None)
                written.append(path)
    return written


def _collisions(found: Sweep) -> Figure:
    """Draw one panel for each M: collision rate over K, a line for each way of giving codes, and the paper's."""
    quantities = sorted({row.levels for row in found.rows})
    sizes = sorted({row.codes for row in found.rows})
    figure = Figure(figsize=(1.6 + 3.4 * len(quantities), 3.5), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, len(quantities), sharey=True, squeeze=False)[0]
    for axes, levels in zip(panels, quantities, strict=True):
        printed = [(sizes.index(k), PAPER[levels, k][0]) for k in sizes if (levels, k) in PAPER]
        if printed:
            axes.plot(
                *zip(*printed, strict=True), "o--", color=MUTED, linewidth=1.2, markersize=4, label="the paper's ads"
            )
        for place, (label, rows) in enumerate(found.measured.items()):
            points = sorted((row.codes, row.quality["collision_rate"]) for row in rows if row.levels == levels)
            at, rates = [sizes.index(codes) for codes, _ in points], [rate for _, rate in points]
            axes.plot(at, rates, "o-", color=_colour(place), linewidth=1.8, markersize=5, label=_name(label))
        if found.identical:
            axes.axhline(found.identical, color=INK, linewidth=1, linestyle=(0, (1, 2)), label="equal descriptions")
        axes.set_title(f"{levels} levels", loc="left", fontsize=10, color=INK)
        axes.set_xticks(range(len(sizes)), [f"{size:,}" for size in sizes])
        axes.set_xlabel("codes in a codebook")
        axes.margins(x=0.12)
        axes.tick_params(length=0)
    panels[0].set_ylim(bottom=0)
    panels[0].yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{100 * rate:.3g} %"))
    panels[0].set_ylabel("ads that share their codes")
    _legend(figure, panels)
    return figure


def _information(found: Sweep, rows: Sequence[SweepRow]) -> Figure:
    """Draw three panels for one size: entropy, variance explained and mutual information with category, by level."""
    levels, codes = rows[0].levels, rows[0].codes
    figure = Figure(figsize=(9.6, 3.1), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, 3)
    parts: tuple[tuple[Callable[[Mapping[str, Any]], list[float]], str, float, str], ...] = (
        (itemgetter("entropy_bits"), "entropy of the codes, bits", math.log2(codes), f"{codes:,} codes equally often"),
        (_each_explains, "variance explained by the level", 1.0, ""),
        (itemgetter("mutual_information_bits"), "information on the category, bits", found.category_bits, "all of it"),
    )
    for axes, (values, title, limit, meaning) in zip(panels, parts, strict=True):
        width = 0.8 / len(rows)
        if meaning:
            axes.axhline(limit, color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
            axes.annotate(
                meaning, (levels - 0.5, limit * 1.07), ha="right", va="bottom", fontsize=7, color=MUTED, bbox=_WHITE
            )
        for place, row in enumerate(rows):
            for level, value in enumerate(values(row.quality)):
                at = level + (place - (len(rows) - 1) / 2) * width
                label = _name(row.label) if level == 0 else None
                axes.bar(at, value, width * 0.9, color=_colour(place), label=label)
                if len(rows) <= _LABELLED:
                    axes.annotate(
                        _short(value),
                        (at, value),
                        xytext=(0, 1.5),
                        textcoords="offset points",
                        ha="center",
                        va="bottom",
                        fontsize=6.5,
                        bbox=_WHITE,
                    )
        axes.set_title(title, loc="left", fontsize=10, color=INK)
        axes.set_xticks(range(levels), [chr(97 + level) for level in range(levels)])
        axes.set_ylim(0, limit * 1.18)
        axes.tick_params(length=0)
    figure.supxlabel(f"level of the S-ID; {levels} levels of {codes:,} codes", fontsize=9, color=MUTED)
    _legend(figure, panels)
    return figure


def _each_explains(quality: Mapping[str, Any]) -> list[float]:
    """Return what each level adds to the variance that the levels before it explain."""
    up_to = [0.0, *quality["variance_explained"]]
    return [after - before for before, after in pairwise(up_to)]


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    entries: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        entries |= {label: handle for label, handle in zip(labels, handles, strict=True) if label not in entries}
    figure.legend(entries.values(), entries, frameon=False, ncols=len(entries), loc="outside upper left", fontsize=9)


def _name(label: str) -> str:
    quantiser, comma, assignment = label.partition(", ")
    return f"{_NAMES[quantiser]}{comma}{assignment}"


def _colour(place: int) -> str:
    return STAGES[place % len(STAGES)]


def _short(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"[1:] if value >= 0.005 else "0"
