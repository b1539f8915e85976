"""The architecture, as a test: the contracts of import-linter in pyproject.toml."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_every_floor_imports_only_what_stands_below_it() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(linter), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


def test_a_broken_floor_is_noticed(tmp_path: Path) -> None:
    for name in ("leadre", "workers"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "leadre/domain/ads.py").open("a") as file:
        file.write("import torch\nimport leadre.settings\n")
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(linter), "--no-cache"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "leadre.domain is not allowed to import leadre.settings" in done.stdout
    assert "leadre.domain is not allowed to import torch" in done.stdout


def test_nothing_imports_the_feature_repo_and_it_holds_no_test() -> None:
    repo = ROOT / "feature_repo"
    modules = {path.stem for path in repo.glob("*.py")}
    assert not list(repo.rglob("test_*"))
    for path in [*(ROOT / "leadre").rglob("*.py"), *(ROOT / "workers").rglob("*.py")]:
        lines = path.read_text().splitlines()
        imported = {line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))}
        assert not imported & ({"feature_repo"} | modules), path


FOLDERS = sorted(
    {
        path.parent
        for top in ("leadre", "workers", "feature_repo", "migrations", "benchmarks", "examples")
        for path in (ROOT / top).rglob("*.py")
    }
)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_no_room_is_crowded(folder: Path) -> None:
    modules = list(folder.glob("*.py"))
    if folder == ROOT / "benchmarks":  # scripts, a question each
        return
    assert len(modules) <= 15
    assert sum(len(module.read_text().splitlines()) for module in modules) <= 3000


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_the_architecture_page_says_what_belongs_into_every_room(folder: Path) -> None:
    room = f"{folder.relative_to(ROOT)}/"
    page = (ROOT / "docs/architecture.md").read_text()
    listed = {"leadre/", "leadre/training/data/tasks/", "migrations/versions/"}  # the house, and parts of a room
    assert room in listed or f"| `{room}` |" in page


NAMED = re.compile(r"`((?:leadre|tests|benchmarks|examples|workers|feature_repo|migrations|recipes|docs)/[\w/.-]*\w)`")


@pytest.mark.parametrize(
    "page", sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]), ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    assert [path for path in NAMED.findall(page.read_text()) if not (ROOT / path).exists()] == []
