"""Services and their health: what the doctor found, and who waits by ARPU group. LEADRE §4.4.1."""

from __future__ import annotations

from leadre.pipelines.doctor.finding import next_command
from leadre.report.content import Report, Section
from leadre.report.plots import shares

_WORDS = {"ok": "well", "warning": "look at it", "fault": "fault"}
_FIRST = ("postgres", "redis", "workers", "schedule", "queue", "stream", "release")
"""What runs comes before how it was installed."""


def health(report: Report) -> Section:
    """Return the section."""
    places = {check: place for place, check in enumerate(_FIRST)}
    found = sorted(report.health, key=lambda finding: places.get(finding.check, len(places)))
    depth = report.queue.depth if report.queue else ()
    waits = report.queue.oldest_s if report.queue else ()
    return Section(
        key="health",
        title="Services and their health",
        parts={
            "findings": [
                {"check": it.check, "state": it.state, "word": _WORDS[it.state], "said": it.said, "run": it.run}
                for it in found
            ],
            "faults": sum(it.state == "fault" for it in found),
            "warnings": sum(it.state == "warning" for it in found),
            "next": next_command(report.health),
            "queue": report.queue,
            "waiting": sum(depth),
            "groups": [
                {"group": group, "users": users, "wait": wait, "width": width}
                for group, (users, wait, width) in enumerate(zip(depth, waits, shares(depth), strict=True))
                if users
            ][::-1],
        },
    )
