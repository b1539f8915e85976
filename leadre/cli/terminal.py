"""Progress bars and tables of the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import click
from rich.console import Console
from rich.markup import escape
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


class ProgressCall(Protocol):
    """What pipelines report to."""

    def __call__(self, what: str, done: int, total: int | None = None, /) -> None:
        """Say what is being done, how much of it is done, and of how much if that is known."""


console = Console(highlight=False)


class _Rate(ProgressColumn):
    """Done per second, of the whole task so far."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed and speed >= 10 else f"{speed:.2g}/s" if speed else "", style="cyan")


@contextmanager
def progress_bars() -> Iterator[ProgressCall]:
    """Give a callable that shows one bar for each thing reported, with rate, elapsed and remaining time."""
    bars = Progress(
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=False),
        console=console,
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
    """Print rows as a table; numbers stand to the right."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False)
    for place, column in enumerate(columns):
        right = bool(rows) and all(isinstance(row[place], int | float) for row in rows)
        width = None if place == 0 else len(column)  # only the first column may be cut
        table.add_column(column, justify="right" if right else "left", no_wrap=True, min_width=width)
    for row in rows:
        table.add_row(
            *[
                f"{cell:,.4f}"
                if isinstance(cell, float)
                else f"{cell:,}"
                if isinstance(cell, int)
                else escape(str(cell))
                for cell in row
            ]
        )
    console.print(table)
    console.print()


def print_json(value: object) -> None:
    """Print a value as one line of JSON, for programs."""
    click.echo(json.dumps(value, default=str))
