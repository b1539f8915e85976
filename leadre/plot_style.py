"""How all pictures look: the report's and the sweep's. Ours; the paper has no part in it."""

from __future__ import annotations

from typing import Any

INK, MUTED, GRID = "#1d2433", "#5b6577", "#e3e7ee"
OURS, OTHERS = "#2f6bff", ("#9aa5b8", "#c3cbd8", "#7d879a", "#b0b9c9")
STAGES = ("#2f6bff", "#12a594", "#f5a623", "#d6409f", "#8e4ec6", "#e5484d")

STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "svg.fonttype": "none",
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "figure.dpi": 100,
}
