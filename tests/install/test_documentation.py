"""Every command and program that a page shows is run, in the project that the tutorial makes; or says why it is not.

Run they are as who installed the wheel runs them, with nothing of this checkout in reach, in a folder with a space in
its name.
"""

from __future__ import annotations

import re
import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from docs.site import tutorial
from docs.site.blocks import Block, blocks_of, rewritten, shape, shell

if TYPE_CHECKING:
    from tests.install.conftest import Installed

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), ROOT / "benchmarks/README.md", *(ROOT / "docs").rglob("*.md")])
PAGES += sorted((ROOT / "examples").rglob("*.md"))
REASONS = {
    "needs a GPU",
    "needs a cluster",
    "needs Docker",
    "needs Go",
    "needs TensorRT-LLM",
    "needs an account at the package index",
    "needs a password of yours",
    "needs a release that was live before",
    "needs the network",
    "needs the package index",
    "part of another package",
    "run by the tutorial",
    "run by make test-install",
    "run by tests",
    "takes minutes",
}
"""Why a block is not run: the reason in its comment begins with one of these."""

GENERATED = {ROOT / "docs/command_line.md"}
"""Written from the commands themselves: its blocks say how each is typed, not what to type."""

COMMAND = re.compile(r"(leadre|feast|celery|alembic|make|pip|python|curl|pytest|docker) [a-z./-]")


@dataclass(frozen=True, kw_only=True)
class Followed:
    """The tutorial, once it was followed: its project, the environment for more, what each block said."""

    project: Path
    environment: dict[str, str]
    said: dict[int, str]


@pytest.fixture(scope="module")
def followed(installed: Installed) -> Iterator[Followed]:
    """Follow docs/tutorial.md in an empty folder; its servers, worker and database live until the module ends."""
    folder = Path(tempfile.mkdtemp(prefix="leadre docs "))
    folder.chmod(0o755)  # under root the servers' account passes through it
    found = {**installed.environment, "COLUMNS": "100"}  # as wide as the page's tables
    port = str(free_port())
    try:
        with shell(folder, environment=found) as typed:
            said = tutorial.follow(typed, folder, port=port)
            env = {**found, "LEADRE_HOME": str(folder / "shop/.leadre"), "DOCS_PORT": port}
            yield Followed(project=folder / "shop", environment=env, said=said)
    finally:
        if (folder / "shop").exists():
            tutorial.end(folder, environment=found)
        shutil.rmtree(folder)


@pytest.mark.install
@pytest.mark.timeout(900)
def test_the_tutorial_shows_what_its_commands_say(followed: Followed) -> None:
    page = tutorial.PAGE.read_text()
    shown = {block.line: block.text for block in blocks_of(page)}
    assert {block.line for block in blocks_of(page) if block.runs} <= followed.said.keys()
    again = {block.line: block.text for block in blocks_of(rewritten(page, followed.said))}
    differing = [line for line, text in zip(shown, again.values(), strict=True) if not alike(shown[line], text)]
    assert [(shape(shown[line]), shape(followed.said.get(line, ""))) for line in differing] == []


@pytest.mark.install
@pytest.mark.timeout(900)
def test_the_project_has_a_report_with_baselines(followed: Followed) -> None:
    with shell(followed.project, environment=followed.environment) as typed:
        typed.run(plain('eval "$(leadre env)"\nleadre report'), folder=followed.project)
    assert "co-visitation" in (followed.project / ".leadre/report.html").read_text()


@pytest.mark.install
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(page: Path, followed: Followed) -> None:
    if page == tutorial.PAGE or not any(block.runs for block in blocks_of(page.read_text())):
        return
    with shell(followed.project, environment=followed.environment) as typed:
        typed.run(plain('eval "$(leadre env)"'), folder=followed.project)
        for block in blocks_of(page.read_text()):
            if block.runs or (block.title and not block.not_run):
                typed.run(block, folder=followed.project)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_block_that_is_not_run_says_why_and_no_command_hides_in_another_language(page: Path) -> None:
    for block in blocks_of(page.read_text()):
        where = f"{page.relative_to(ROOT)}, line {block.line}"
        assert block.language, f"{where}: a block says what it is: sh, python, text, ..."
        if block.not_run:
            assert any(block.not_run.startswith(reason) for reason in REASONS), f"{where}: {block.not_run}"
        elif block.language == "text" and page not in GENERATED:
            hidden = [line for line in block.text.splitlines() if COMMAND.match(line)]
            assert hidden == [], f"{where}: commands belong into a block of sh"
        else:
            assert block.language not in {"go", "sql"}, f"{where}: nobody runs this"


def test_most_blocks_are_run() -> None:
    counted = Counter(
        bool(block.not_run)
        for page in PAGES
        for block in blocks_of(page.read_text())
        if block.language in {"sh", "python", "go", "sql"}
    )
    assert counted[True] < counted[False]


def test_a_block_that_fails_is_noticed(tmp_path: Path) -> None:
    with shell(tmp_path, environment={"PATH": "/usr/bin:/bin"}) as typed:
        assert typed.run(plain("cd /; echo one"), folder=tmp_path) == "one\n"
        assert typed.run(plain("pwd"), folder=tmp_path) == "/\n"
        with pytest.raises(AssertionError, match="exit code 1"):
            typed.run(plain("false\necho two"), folder=tmp_path)
        assert typed.run(plain("echo three"), folder=tmp_path) == "three\n"


def test_an_output_is_alike_when_only_its_numbers_differ() -> None:
    assert alike("✓ ads ━━━━ 1/20 7/s 0:00:01\nrows  1,234\n", "✓ ads ━━ 20/20   0:00:00\nrows    17\n")
    assert alike("✓ retrieved_ads ━━ 0/0  0:00:00 --:--\n", "✓ retrieved_ads ━━ 0/0  0:00:00 00:00\n")
    assert not alike("rows 17\n", "row 17\n")
    assert not alike("one\n", "one\ntwo\n")


def alike(left: str, right: str) -> bool:
    return shape(left) == shape(right)


def plain(text: str) -> Block:
    return Block(language="sh", title="", text=f"{text}\n", line=0, not_run="")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
