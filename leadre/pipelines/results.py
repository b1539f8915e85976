"""What commands measured, kept for the report: LEADRE_HOME/results, a JSON file a table, a figure or a benchmark.

LEADRE §5.2, Tables 1-6. A file holds the command's own JSON, when it was made, and by which command.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

FOLDER = "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One result.

    Args:
        name: of its file, without the suffix: "table1", "figure4a", …
        figures: the command's JSON; empty where the file could not be read.
        made_at: when; None where the file does not say.
        command: what made it; "" where the file does not say.
        problem: why the file could not be read; "" where it could.
    """

    name: str
    figures: Mapping[str, Any]
    made_at: datetime | None = None
    command: str = ""
    problem: str = ""


def keep_result(home: Path, name: str, figures: Mapping[str, Any], *, command: str, now: datetime) -> Path:
    """Write a result, whole or not at all; an older one of the name is replaced.

    Args:
        home: LEADRE_HOME.
        name: of the table or figure.
        figures: what `--json` prints.
        command: that made it.
        now: when.
    """
    folder = home / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    unfinished = folder / f".{name}.{os.getpid()}"
    unfinished.write_text(json.dumps({"command": command, "made_at": now.isoformat(), "figures": figures}, default=str))
    return unfinished.replace(path)


def read_results(home: Path) -> dict[str, Result]:
    """Return the results that commands kept, by name."""
    return {path.stem: _read(path) for path in sorted((home / FOLDER).glob("*.json"))}


def read_figures(folder: Path) -> list[Result]:
    """Return what `benchmarks/*.py --json` printed into files of a folder: the last line of each that is an object."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            lines = [line for line in path.read_text().splitlines() if line.strip()]
            figures = json.loads(lines[-1] if len(lines) > 1 and lines[-1].startswith("{") else "\n".join(lines))
            if not isinstance(figures, dict):
                raise ValueError("it holds no JSON object")
        except (OSError, ValueError) as error:
            found.append(Result(name=path.stem, figures={}, problem=f"{path.name} cannot be read: {error}"))
            continue
        found.append(Result(name=path.stem, figures=figures))
    return found


def _read(path: Path) -> Result:
    try:
        plain = json.loads(path.read_text())
        return Result(
            name=path.stem,
            figures=dict(plain["figures"]),
            made_at=datetime.fromisoformat(plain["made_at"]),
            command=str(plain["command"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Result(name=path.stem, figures={}, problem=f"{path.name} cannot be read: {error!r}")
