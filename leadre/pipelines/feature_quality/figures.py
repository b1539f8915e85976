"""A measured figure with its bound, and a distribution: what feature quality is told in. LEADRE §4.4.1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A value, what is still well, and what to do when it is not.

    Args:
        name: with its unit, as a Prometheus gauge is called.
        of: labels: the view, the feature, the reason.
        value: None where there was nothing to measure.
        at_most: upper bound; None has none.
        at_least: lower bound; None has none.
        mend: the remedy.
        note: what one should know of it.
    """

    name: str
    of: Mapping[str, str] = field(default_factory=dict)
    value: float | None
    at_most: float | None = None
    at_least: float | None = None
    mend: str = ""
    note: str = ""

    @property
    def out(self) -> bool:
        """Whether the value is out of its bounds. What could not be measured is not."""
        if self.value is None:
            return False
        return (self.at_most is not None and self.value > self.at_most) or (
            self.at_least is not None and self.value < self.at_least
        )

    @property
    def bound(self) -> str:
        """The bound in words; empty without one."""
        if self.at_most is not None:
            return f"at most {written(self.at_most)}"
        return f"at least {written(self.at_least)}" if self.at_least is not None else ""

    @property
    def title(self) -> str:
        """The name with what it is of."""
        return f"{self.name} of {', '.join(self.of.values())}" if self.of else self.name

    def line(self) -> str:
        """Return value, bound and remedy in a line."""
        return f"{self.title} is {written(self.value)}, {self.bound}: {self.mend}"


def written(value: float | None) -> str:
    """Return a value as people read it; a dash for none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How values are distributed.

    Args:
        name: of the feature.
        edges: k + 1, rising.
        counts: k values counted.
    """

    name: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
