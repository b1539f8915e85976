"""The paper's tables and figures on this data, beside what the paper printed. LEADRE §5.2, Tables 1-6, Figures 4, 5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leadre.pipelines.results import Result
from leadre.report.content import Report, Section
from leadre.report.plots import chart
from leadre.report.sections.llm_alone import NAME as LLM_ALONE

WANTED = {
    "table1": ("Table 1: components of the prompt", "leadre experiment table1 recipes/demo.toml"),
    "table2": ("Table 2: tuning tasks and their order", "leadre experiment table2 recipes/demo.toml"),
    "table3": ("Table 3: encoders", "leadre index encoders"),
    "table4": ("Table 4: S-IDs of different encoders", "leadre experiment table4 recipes/demo.toml"),
    "table5": ("Table 5: codebooks of many sizes", "leadre index sweep"),
    "table6": ("Table 6: S-IDs against texts of the ads", "leadre experiment table6 recipes/demo.toml"),
    "figure4a": ("Figure 4 (a): the soft-prompt token", "leadre experiment figure4 recipes/demo.toml"),
    "figure4b": ("Figure 4 (b): business alignment", "leadre experiment figure4 recipes/demo.toml"),
    "figure5": ("Figure 5: long behavior sequences", "leadre experiment figure5 recipes/demo.toml"),
}
"""What the paper has, in its order, and the command that runs it here."""


def paper(report: Report) -> Section:
    """Return the section: what was run, and the commands of what was not."""
    order = [*WANTED, *(name for name in report.results if name not in (*WANTED, LLM_ALONE))]
    shown = [_shown(report.results[name]) for name in order if name in report.results]
    return Section(
        key="paper",
        title="The paper's tables and figures on this data",
        parts={
            "shown": shown,
            "missing": [
                {"title": title, "run": run} for name, (title, run) in WANTED.items() if name not in report.results
            ],
        },
    )


def _shown(result: Result) -> dict[str, Any]:
    """Return a table's parts; a file in another shape than the command's says so, and costs the page nothing else."""
    title = WANTED.get(result.name, (result.name.replace("_", " "), ""))[0]
    base = {"title": title, "problem": result.problem, "made_at": result.made_at, "command": result.command}
    empty = {"note": "", "columns": (), "rows": (), "says": (), "panels": (), "axes": ("", ""), "trends": ()}
    if result.problem:
        return {**base, **empty}
    make = _encoders if result.name == "table3" else _sweep if result.name == "table5" else _experiment
    try:
        return {**base, **empty, **make(result.figures)}
    except (KeyError, TypeError, ValueError, IndexError) as error:
        return {**base, **empty, "problem": f"{result.name}.json has another shape ({error!r}): run the command again"}


def _experiment(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return `leadre experiment`'s table: ours over the paper's, what is reproduced, the lines of the figure."""
    metrics = found["metrics"]
    rows = []
    for row in found["rows"]:
        cells = [_cell(row["figures"].get(metric), row["paper"].get(metric)) for metric in metrics]
        rows.append({"name": row["name"], "cells": cells})
    seeds = len(found["seeds"])
    note = f"{found['users']:,} users, {seeds} seed{'s' * (seeds > 1)}; {found['note']}"
    if seeds == 1:
        note += " One seed: the intervals know nothing of the noise of training."
    panels: dict[str, list[Mapping[str, Any]]] = {}
    for curve in found["curves"]:
        panels.setdefault(curve["panel"], []).append(curve)
    return {
        "title": found["title"],
        "note": note,
        "columns": metrics,
        "rows": rows,
        "says": _verdicts(found["comparisons"]),
        "panels": [
            {
                "title": panel,
                "chart": chart(
                    {one["name"]: list(zip(one["x"], (y["mean"] for y in one["y"]), strict=True)) for one in curves},
                    bands={one["name"]: [(y["low"], y["high"]) for y in one["y"]] for one in curves},
                ),
            }
            for panel, curves in panels.items()
        ],
        "axes": (found["x_label"], found["y_label"]),
    }


def _verdicts(comparisons: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return, for each pair of rows, its relative differences beside the paper's, and in words whether they agree."""
    pairs: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for each in comparisons:
        pairs.setdefault((each["row"], each["against"]), []).append(each)
    return [
        {
            "row": row,
            "against": against,
            "cells": [
                {
                    "metric": each["metric"],
                    "ours": each["relative"],
                    "paper": each["paper"],
                    "verdict": each["verdict"],
                    "good": each["agrees"],
                }
                for each in each_pair
            ],
        }
        for (row, against), each_pair in pairs.items()
    ]


def _encoders(found: Mapping[str, Any]) -> dict[str, Any]:
    cutoffs = list(next(iter(found["accuracy"].values())))
    rows = [
        {"name": name, "cells": [{"mean": row[cutoff]} for cutoff in cutoffs]}
        for name, row in found["accuracy"].items()
    ]
    rows += [
        {"name": f"the paper's {name}", "muted": True, "cells": [{"mean": row.get(cutoff)} for cutoff in cutoffs]}
        for name, row in found["paper"].items()
    ]
    hidden = "hidden in" if found["categories_hidden"] else "named in"
    return {
        "note": f"{found['ads']:,} ads of {found['categories']} {found['level']}-level categories, {hidden} their "
        f"descriptions; chance is {found['chance']:.4f}. The paper's ads are Chinese ads of 48 categories: compare the "
        "order of encoders and the fall with K.",
        "columns": [f"Top {cutoff}" for cutoff in cutoffs],
        "rows": rows,
    }


def _sweep(found: Mapping[str, Any]) -> dict[str, Any]:
    names = ("collision_rate", "max_collision", "average_usage")
    rows = [
        {
            "name": f"{row['quantiser']}, {row['assignment']}, {row['levels']} × {row['codes']}",
            "cells": [{"mean": row["quality"][name], "paper": (row["paper"] or {}).get(name)} for name in names],
        }
        for row in found["rows"]
        if row["quality"]
    ]
    return {
        "note": f"{found['ads']:,} ads, encoder {found['encoder']}; {found['identical']:.2%} share their description "
        "with another ad.",
        "columns": ("collision rate", "max collision number", "average usage"),
        "rows": rows,
        "trends": found["trends"],
    }


def _cell(figure: Mapping[str, float] | None, printed: float | None) -> dict[str, Any]:
    if figure is None:
        return {"mean": None, "paper": printed}
    return {"mean": figure["mean"], "low": figure["low"], "high": figure["high"], "paper": printed}
