"""docs/paper_map.md: nothing of the paper is left out, and every path, test and anchor that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/paper_map.md").read_text()
TABLE = PAGE[PAGE.index("| paper |") : PAGE.index("## Where the paper is unclear")]
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in TABLE.splitlines()[2:] if line]
TOPS = ("benchmarks", "deploy", "docs", "feature_repo", "leadre", "recipes", "tests", "workers")
PATH = re.compile(r"`([\w.-]+/[\w/.-]*)(?:: ([\w.]+))?`")

SECTIONS = [
    *("§1", "§2.1", "§2.2", "§2.3", "§3.1", "§3.2", "§3.3", "§3.4", "§4.1", "§4.2.1", "§4.2.2", "§4.3.1", "§4.3.2"),
    *("§4.4.1", "§4.4.2", "§5.1.1", "§5.1.2", "§5.1.3", "§5.2.1", "§5.2.2", "§5.2.3", "§5.2.4", "§5.2.5", "§5.2.6"),
    *("§5.2.7", "§5.3", "§6 (1)", "§6 (2)", "Algorithm 1", "Algorithm 2"),
    *(f"Table {number}" for number in range(1, 7)),
    *(f"Figure {number}" for number in (1, 2, 3, "4a", "4b", 5)),
    *(f"§4.2.1 ({number})" for number in range(1, 6)),
    *("§4.4.1 (1)", "§4.4.1 (2)", "§4.4.2 1), 2)", "§4.4.2 3)"),
]
EQUATIONS = {1, 2, 3, 4, 5, 6, 7}


@pytest.mark.parametrize("part", SECTIONS)
def test_every_section_table_figure_and_algorithm_has_a_row(part: str) -> None:
    assert any(re.search(rf"{re.escape(part)}(?![\d.])", row[0]) for row in ROWS), part


def test_every_equation_has_a_row() -> None:
    named = [number for row in ROWS for group in re.findall(r"Eq\. ([\d, ]+)", row[0]) for number in group.split(",")]
    assert {int(number) for number in named if number.strip()} == EQUATIONS


def test_every_row_has_four_cells_and_code_has_a_test() -> None:
    for row in ROWS:
        assert len(row) == 4 or (len(row) == 3 and row[2].endswith("|")), row
        assert row[2] or row[1].startswith("no code"), f"{row[0]}: no test"


@pytest.mark.parametrize("line", [line for line in PAGE.splitlines() if PATH.search(line)])
def test_every_path_and_name_exists(line: str) -> None:
    for path, name in PATH.findall(line):
        found = ROOT / path if path.startswith(TOPS) else ROOT / "leadre" / path
        assert found.exists(), path
        if name:
            assert re.search(rf"(def|class) {name.rpartition('.')[2]}\b", found.read_text()), f"{path}: {name}"
