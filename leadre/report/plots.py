"""Where the marks of a picture are, in per cent of its area: the templates draw them, in the colours of the page.

LEADRE §5's figures for one release. Texts stay texts of the page: they are read at any width, aloud and in the dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Triple = tuple[float, float, float]
"""Mean, low, high."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whisker:
    """A mean and its interval on a scale, in per cent: `at` is the dot, `left` and `width` the line."""

    at: float
    left: float
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line, or several: `points` is an SVG polyline's, in an area of 100 x 100; `dots` are its points."""

    name: str
    points: str
    dots: tuple[tuple[float, float], ...]
    band: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Lines over axes; ticks are (place in per cent, text), the y axis counted from above."""

    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    marks: tuple[float, ...] = ()


def whiskers(values: Sequence[Triple], *, zero: bool) -> tuple[list[Whisker], float | None]:
    """Place means with intervals on one scale.

    Args:
        values: mean, low, high each.
        zero: whether the scale begins at 0; otherwise it holds 0 and all intervals.

    Returns:
        Where they are, and where 0 is (None where the scale begins there).
    """
    low = 0.0 if zero else min(0.0, *(value for triple in values for value in triple))
    high = max(0.0, *(value for triple in values for value in triple))
    span = (high - low) or 1.0
    margin = 0.0 if zero else 0.04 * span
    low, span = low - margin, span + 2 * margin + (0.03 * span if zero else 0)

    def place(value: float) -> float:
        return round(100 * (value - low) / span, 2)

    made = [
        Whisker(at=place(mean), left=place(least), width=round(place(most) - place(least), 2))
        for mean, least, most in values
    ]
    return made, None if zero else place(0.0)


def chart(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    *,
    from_zero: bool = False,
    bands: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    marks: Sequence[float] = (),
) -> Chart:
    """Place lines over axes.

    Args:
        lines: name to its points (x, y).
        from_zero: whether the y axis begins at 0.
        bands: name to (low, high) of each point.
        marks: x of vertical lines.
    """
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points]
    ys += [y for pairs in (bands or {}).values() for pair in pairs for y in pair]
    y_ticks = nice(min(0.0, *ys) if from_zero else min(ys), max(ys))
    low, high = min(y_ticks[0], *ys), max(y_ticks[-1], *ys)
    left, right = min(xs), max(xs)

    def across(x: float) -> float:
        return round(100 * (x - left) / ((right - left) or 1.0), 2)

    def down(y: float) -> float:
        return round(100 - 100 * (y - low) / ((high - low) or 1.0), 2)

    def joined(points: Iterable[tuple[float, float]]) -> str:
        return " ".join(f"{across(x)},{down(y)}" for x, y in points)

    made = []
    for name, points in lines.items():
        pairs = (bands or {}).get(name, ())
        upper = [(x, high) for (x, _), (_, high) in zip(points, pairs, strict=False)]
        lower = [(x, low) for (x, _), (low, _) in zip(points, pairs, strict=False)]
        made.append(
            Line(
                name=name,
                points=joined(points),
                dots=tuple((across(x), down(y)) for x, y in points),
                band=joined([*upper, *lower[::-1]]),
            )
        )
    return Chart(
        lines=tuple(made),
        x_ticks=tuple((across(x), short(x)) for x in nice(left, right) if left <= x <= right),
        y_ticks=tuple((down(y), short(y)) for y in y_ticks),
        marks=tuple(across(x) for x in marks),
    )


def shares(values: Sequence[float], *, limit: float | None = None) -> list[float]:
    """Return heights of bars in per cent of the largest, or of a limit."""
    most = limit if limit is not None else max(values, default=0.0)
    return [round(min(100.0, 100 * value / most), 2) if most else 0.0 for value in values]


_SMALLEST_SPAN = 1e-300  # what is smaller has no fourth part


def nice(low: float, high: float, *, count: int = 4) -> list[float]:
    """Return about `count` round numbers over a span, rising."""
    span = next((size for size in (high - low, abs(high)) if size > _SMALLEST_SPAN), 1.0)
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(at * step, 12) for at in range(first, max(last, first + 1) + 1)]


def short(value: float) -> str:
    """Return a number as an axis shows it."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
