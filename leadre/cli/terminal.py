"""Progress bars, tables and JSON of the command line: figures on standard output, all else on standard error.

A table is never cut: into a file or a pipe it goes as wide as it is, and where a terminal is narrow its texts fold.
Colours follow NO_COLOR and FORCE_COLOR.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, Protocol

import click
from rich.cells import cell_len
from rich.console import Console, ConsoleDimensions
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

_UNBOUNDED = 100_000
"""Columns of what is no terminal: nothing that we print is as wide."""
_LEAST = 12
"""A column of texts is not folded to less (ours)."""


class ProgressCall(Protocol):
    """What pipelines report to."""

    def __call__(self, what: str, done: int, total: int | None = None, /) -> None:
        """Say what is being done, how much of it is done, and of how much if that is known."""


class _Screen(Console):
    """Rich's console; what is no terminal has no width unless COLUMNS says so, and a reader who left is an error."""

    @property
    def size(self) -> ConsoleDimensions:
        """Of the terminal, in cells."""
        found = super().size
        if self._width is not None or self.is_terminal:
            return found
        return ConsoleDimensions(_UNBOUNDED, found.height)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size

    def on_broken_pipe(self) -> NoReturn:
        """Leave the end to who runs the command."""
        raise BrokenPipeError


console = _Screen(highlight=False)
aside = _Screen(highlight=False, stderr=True)
"""Standard error: progress, errors, and what is said beside figures."""


class _Rate(ProgressColumn):
    """Done per second, of the whole task so far."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed and speed >= 10 else f"{speed:.2g}/s" if speed else "", style="cyan")


@contextmanager
def progress_bars() -> Iterator[ProgressCall]:
    """Give a callable that shows one bar for each thing reported, with rate, elapsed and remaining time.

    On standard error: what a command prints can go into a file or a pipe.
    """
    bars = Progress(
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=False),
        console=aside,
    )
    tasks: dict[str, Any] = {}

    def report(what: str, done: int, total: int | None = None) -> None:
        if what not in tasks:
            bars.start()  # with the first report: bars that never were leave no empty line
            tasks[what] = bars.add_task(what, total=total)
        bars.update(tasks[what], completed=done, total=total)

    try:
        yield report
        for task in tasks.values():
            if bars.tasks[task].total is None:
                bars.update(task, total=bars.tasks[task].completed)
    finally:
        if tasks:
            bars.stop()


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows as a table; numbers stand to the right, and are never folded.

    Args:
        title: what the rows are.
        columns: headings in small letters, with the unit behind a comma where there is one.
        rows: as many cells each; a `Text` brings its own style.
    """
    cells = [[_cell(cell) for cell in row] for row in rows]
    widths = [
        max(cell_len(line) for text in (column, *(row[place] for row in cells)) for line in str(text).split("\n"))
        for place, column in enumerate(columns)
    ]
    table = Table(header_style="dim", box=None, pad_edge=False)
    needed = 2 * (len(columns) - 1)
    for place, column in enumerate(columns):
        right = bool(rows) and all(isinstance(row[place], int | float) for row in rows)
        least = widths[place] if right else min(widths[place], _LEAST)
        needed += least
        table.add_column(
            Text(column), justify="right" if right else "left", no_wrap=right, min_width=least, overflow="fold"
        )
    for row in cells:
        table.add_row(*row)
    if needed > console.width:
        table.width = needed  # the terminal breaks the lines
    console.print(Text(title, style="bold"), soft_wrap=True)  # not the table's own title, which folds to its width
    console.print(table, crop=False)
    console.print()


def _cell(value: object) -> Text:
    if isinstance(value, Text):
        return value
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, float):
        return Text("" if math.isnan(value) else f"{value:,.4f}")
    return Text(f"{value:,}" if isinstance(value, int) else str(value))


def print_json(value: object) -> None:
    """Print a value as one line of JSON, for programs. What is no number is null."""
    click.echo(json.dumps(_plain(value), default=str, allow_nan=False))


def _plain(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    return _plain(value.tolist()) if hasattr(value, "tolist") else value  # NumPy's numbers and arrays


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON value instead of tables and words.")
