"""Tables are never cut: into a file they are as wide as they are, in a narrow terminal their texts fold."""

from __future__ import annotations

import io
import json
import math
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from leadre.cli import terminal

ROOT = Path(__file__).parents[2]
ROWS = [("a release with a very long name indeed", 0.0000123, 1_234_567, "i-2025-06-01"), ("short", 0.5, 1, "i1")]
COLUMNS = ("release", "HR@10", "users", "index")


def printed(width: int | None, rows: list[tuple[object, ...]], columns: tuple[str, ...]) -> str:
    """Return the table as a terminal of this width shows it; None: no terminal."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COLUMNS", raising=False)
        screen = terminal._Screen(
            file=said, width=width, force_terminal=width is not None, highlight=False, no_color=True
        )
        patch.setattr(terminal, "console", screen)
        terminal.print_table("Rows", columns, rows)
    return said.getvalue()


def test_in_a_file_every_row_is_one_line_however_wide() -> None:
    lines = printed(None, [("x" * 500, 1.5), ("y", 2.5)], ("name", "value")).splitlines()
    assert lines[2].split() == ["x" * 500, "1.5000"]
    assert lines[3].split() == ["y", "2.5000"]


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_in_a_narrow_terminal_nothing_is_cut(width: int) -> None:
    said = printed(width, ROWS, COLUMNS)
    assert "…" not in said
    for number in ("1,234,567", "0.5000", "0.0000"):
        assert number in said
    for text in COLUMNS:
        assert text in said


_TEXTS = st.text(st.characters(codec="ascii", exclude_categories=["C", "Z"]), max_size=60)


@given(st.lists(st.tuples(_TEXTS, st.integers(), st.floats(-1e6, 1e6)), min_size=1, max_size=4), st.integers(8, 120))
def test_every_letter_and_digit_of_every_cell_is_there_at_every_width(
    rows: list[tuple[str, int, float]], width: int
) -> None:
    said = printed(width, [tuple(row) for row in rows], ("name", "count", "figure"))
    for character in set("".join(text for text, _, _ in rows)) - set("0123456789,.-"):
        wanted = sum(text.count(character) for text, _, _ in rows)
        assert said.count(character) >= wanted
    for _, count, figure in rows:
        assert f"{count:,}" in said
        assert f"{figure:,.4f}" in said


def test_what_is_no_number_is_an_empty_cell_and_markup_is_a_text() -> None:
    said = printed(None, [("[red]not a colour[/]", math.nan, True, Text("dim", style="dim"))], ("a", "b", "c", "d"))
    assert "[red]not a colour[/]" in said
    assert "nan" not in said
    assert "yes" in said


def test_json_is_one_line_of_strict_json(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_json(
        {
            "share": np.float32(0.5),
            "nothing": math.nan,
            "endless": math.inf,
            7: np.arange(3),
            "path": Path("x"),
        }
    )
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert json.loads(said, parse_constant=pytest.fail) == {
        "share": 0.5,
        "nothing": None,
        "endless": None,
        "7": [0, 1, 2],
        "path": "x",
    }


def test_progress_goes_to_standard_error_with_rate_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.progress_bars() as progress:
        progress("rows", 5, 10)
        progress("rows", 10, 10)
    said = capsys.readouterr()
    assert said.out == ""
    assert "rows" in said.err
    assert "10/10" in said.err
    assert "/s" in said.err
    assert "0:00:0" in said.err


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_no_color_is_respected_on_a_terminal(tmp_path: Path, no_color: str, coloured: bool) -> None:
    """An error in red, on a pseudo-terminal."""
    ours, theirs = pty.openpty()
    environment = {
        "LEADRE_HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "TERM": "xterm-256color",
        "NO_COLOR": no_color,
    }
    done = subprocess.run(
        [sys.executable, "-m", "leadre", "release", "list"], stderr=theirs, env=environment, check=False
    )
    os.close(theirs)
    said = os.read(ours, 10_000).decode()
    os.close(ours)
    assert done.returncode == 1
    assert "services up" in said
    assert ("\x1b[31m" in said) is coloured
