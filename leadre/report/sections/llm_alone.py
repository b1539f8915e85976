"""What the LLM is worth: alone, fused with the collaborative signal, and the signal without it. Ours; LEADRE §3.4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leadre.pipelines.results import Result
from leadre.report.content import Report, Section

NAME = "llm-alone"
"""Of the result that `leadre experiment llm-alone` keeps."""
_SYSTEMS = {"llm": "the LLM alone", "signal": "the signal alone", "fused": "both, fused"}
_GROUPS = {
    "cold": "cold ads",
    "short": "short histories",
    "unseen_transition": "unseen transitions",
    "seen_transition": "seen transitions",
}
_VIEWS = {
    "canonical": "All users, in the data's own order",
    "untied": "Users whose two held-out ads have different times",
    "shuffled": "Held-out ads of one time in random order",
}


def llm_alone(report: Report) -> Section:
    """Return the section; where nobody has asked, the command that does; a file of another shape says so."""
    result = report.results.get(NAME)
    parts: dict[str, Any] = {"run": "leadre experiment llm-alone", "problem": "", "found": None}
    if result is not None and not result.problem:
        try:
            parts["found"] = _found(result)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            parts["problem"] = f"{NAME}.json has another shape ({error!r}): run the command again"
    elif result is not None:
        parts["problem"] = result.problem
    return Section(key="llm_alone", title="What the LLM is worth", parts=parts)


def _found(result: Result) -> dict[str, Any]:
    figures = result.figures
    views = [view for view in _VIEWS if view == "canonical" or figures["tied"]]
    return {
        "releases": figures["releases"],
        "users": figures["users"],
        "shares": figures["llm_shares"],
        "made_at": result.made_at,
        "command": result.command,
        "tables": [_table(figures[view], _VIEWS[view]) for view in views],
    }


def _table(view: Mapping[str, Any], title: str) -> dict[str, Any]:
    """Return the rows of one order of ties: every system, then what fusing adds to the signal."""
    groups = {name: view[f"{name}_r10"] for name in _GROUPS}
    rows = [
        {
            "name": said,
            "difference": False,
            "cells": [
                *(view["intervals"][f"{system}_{metric}"] for metric in ("r10", "n10")),
                *(group[system] if group["users"] else None for group in groups.values()),
            ],
        }
        for system, said in _SYSTEMS.items()
    ]
    gained = (view["fused_minus_signal"], view["fused_minus_signal_n10"])
    of_groups = (group["fused_minus_signal"] if group["users"] else None for group in groups.values())
    rows.append({"name": "fused − signal", "difference": True, "cells": [*gained, *of_groups]})
    return {"title": title, "groups": [(_GROUPS[name], group["users"]) for name, group in groups.items()], "rows": rows}
