"""What one look at one thing found. Not in the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "fault"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is found of one thing.

    Args:
        check: its name: "postgres", "migrations", …
        state: "ok"; "warning": it works, and should be looked at; "fault": something does not work.
        said: what it means, in one line, without any secret.
        run: the command to run next; "" where none is needed.
    """

    check: str
    state: State
    said: str
    run: str = ""


def ok(check: str, said: str) -> Finding:
    """Return the finding that a thing is well."""
    return Finding(check=check, state="ok", said=said)


def warning(check: str, said: str, *, run: str = "") -> Finding:
    """Return the finding that a thing works, and should be looked at."""
    return Finding(check=check, state="warning", said=said, run=run)


def fault(check: str, said: str, *, run: str = "") -> Finding:
    """Return the finding that a thing does not work."""
    return Finding(check=check, state="fault", said=said, run=run)


def next_command(findings: Sequence[Finding]) -> str:
    """Return the command to run first: a fault's before a warning's, in the order of the checks; "" for none."""
    for state in ("fault", "warning"):
        for finding in findings:
            if finding.state == state and finding.run:
                return finding.run
    return ""


def well(findings: Sequence[Finding]) -> bool:
    """Return whether there is no fault."""
    return all(finding.state != "fault" for finding in findings)
