"""Run docs/tutorial.md from top to bottom in an empty folder, and write what its commands said into the page.

`python docs/site/tutorial.py` does so (`make docs`); a test runs the same with the installed wheel and compares.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from docs.site.blocks import Shell, blocks_of, rewritten, shell

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/tutorial.md"
PORT = "8010"


def environment() -> dict[str, str]:
    """Return what a reader's shell has: nothing of leadre's settings, this Python's programs, tables of 100 columns."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("LEADRE_", "PYTEST_"))}
    programs = str(Path(sys.executable).parent)
    return {
        **inherited,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "100",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }


def follow(typed: Shell, folder: Path, *, port: str = PORT) -> dict[int, str]:
    """Run the tutorial's blocks in `folder`; returns line of the block -> what it said.

    `port` stands in for the page's.

    Raises:
        AssertionError: a block failed.
    """
    said = {}
    for block in blocks_of(PAGE.read_text().replace(PORT, port)):
        if block.runs or (block.title and not block.not_run):
            place = folder / "shop" if (folder / "shop").exists() else folder
            said[block.line] = typed.run(block, folder=place).replace(str(folder), "~").replace(port, PORT)
    return said


def end(folder: Path, *, environment: Mapping[str, str]) -> None:
    """Stop the servers that the tutorial began."""
    subprocess.run(
        ["leadre", "services", "down"], cwd=folder / "shop", env=dict(environment), check=True, capture_output=True
    )


def main() -> None:
    """Write the outputs into the page."""
    with tempfile.TemporaryDirectory(prefix="leadre-tutorial-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # under root the servers' account passes through it
        found = environment()
        try:
            with shell(folder, environment=found) as typed:
                said = follow(typed, folder)
        finally:
            end(folder, environment=found)
    PAGE.write_text(rewritten(PAGE.read_text(), said))


if __name__ == "__main__":
    main()
