"""Decoding, serving and other benchmarks, as `benchmarks/*.py --json` printed them. LEADRE §5.3 speaks of the load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from leadre.report.content import Report, Section

_MOST = 60
"""Figures shown of one benchmark (ours)."""


def benchmarks(report: Report) -> Section:
    """Return the section."""
    read = [
        {"name": result.name, "problem": result.problem, "rows": list(_flat(result.figures))[:_MOST]}
        for result in report.benchmarks
    ]
    return Section(key="benchmarks", title="Benchmarks", parts={"read": read})


def _flat(figures: Mapping[str, Any], *, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield names and texts of all figures, those of nested objects under both names."""
    for name, value in figures.items():
        whole = f"{prefix}{name}".replace("_", " ")
        match value:
            case dict():
                yield from _flat(value, prefix=f"{whole}, ")
            case list() if value and all(isinstance(one, dict) for one in value):
                for place, one in enumerate(value, start=1):
                    yield from _flat(one, prefix=f"{whole} {place}, ")
            case bool() | None | str():
                yield whole, str(value)
            case int():
                yield whole, f"{value:,}"
            case float():
                yield whole, f"{value:,.3f}" if abs(value) < 1000 else f"{value:,.0f}"
            case _:
                yield whole, ", ".join(map(str, value)) if isinstance(value, list) else str(value)
