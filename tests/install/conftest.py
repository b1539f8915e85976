"""The wheel, built as `pip` builds it, from a copy of the tree; and an environment that has it installed.

What a clone has is copied, so that nothing that lies about in this working tree helps or hurts.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ("alembic", "celery", "feast")


@dataclass(frozen=True, kw_only=True)
class Built:
    """A source distribution, the wheel that was made from it, and what the tree they come from holds."""

    tree: Path
    tracked: frozenset[str]
    sdist: Path
    wheel: Path


@dataclass(frozen=True, kw_only=True)
class Installed:
    """A virtual environment with the wheel, in which the checkout is on no path."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str, cwd: Path) -> str:
        """Run a command of this environment; returns its standard output."""
        done = subprocess.run(command, cwd=cwd, env=self.environment, capture_output=True, text=True, check=False)
        said = f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-4000:]}"
        assert done.returncode == 0, said
        return done.stdout


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Both distributions, of a tree in which rubbish lies about: a data file, byte code, an earlier build."""
    tree = tmp_path_factory.mktemp("build") / "leadre"
    tracked = _clone(tree)
    for rubbish in ("feature_repo/registry.db", "recipes/__pycache__/a.pyc", "build/lib/leadre/gone.py"):
        (tree / rubbish).parent.mkdir(parents=True, exist_ok=True)
        (tree / rubbish).touch()
    code = "from setuptools.build_meta import build_sdist; build_sdist('sdist')"
    subprocess.run([sys.executable, "-c", code], cwd=tree, check=True, capture_output=True)
    (sdist,) = (tree / "sdist").glob("*.tar.gz")
    _pip("wheel", "--no-deps", "--wheel-dir", "wheel", str(sdist), cwd=tree)
    (wheel,) = (tree / "wheel").glob("*.whl")
    return Built(tree=tree, tracked=tracked, sdist=sdist, wheel=wheel)


@pytest.fixture(scope="session")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A fresh environment with the wheel. Its dependencies are borrowed, for installing them again takes minutes.

    A `.pth` file names this environment's site-packages. Python reads no `.pth` files in a folder it came to in that
    way, so the editable install of this checkout, which is one of them, stays out.
    """
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin/python"
    _pip("--python", str(python), "install", "--no-deps", "--no-index", str(built.wheel), cwd=folder)
    (site,) = folder.glob("lib/python*/site-packages")
    paths = sysconfig.get_paths()
    (site / "borrowed.pth").write_text("".join(f"{path}\n" for path in {paths["purelib"], paths["platlib"]}))
    for name in SCRIPTS:
        _console_script(name, folder=folder)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LEADRE_", "PYTHON")) and name != "VIRTUAL_ENV"
    }
    environment |= {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
    return Installed(folder=folder, environment=environment)


def _clone(tree: Path) -> frozenset[str]:
    """Copy what git knows or would add, and nothing that it ignores; returns the paths."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    files = frozenset(path for path in listed if path and (ROOT / path).is_file())
    for path in files:
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, tree / path)
    return files


@pytest.fixture(scope="session")
def pip() -> Callable[..., None]:
    """Run this environment's pip."""
    return _pip


def _pip(*arguments: str, cwd: Path) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _console_script(name: str, *, folder: Path) -> None:
    """Write a borrowed package's command, as pip does."""
    (found,) = importlib.metadata.entry_points(group="console_scripts", name=name)
    script = folder / "bin" / name
    script.write_text(
        f"#!{folder / 'bin/python'}\nimport sys\nfrom {found.module} import {found.attr}\nsys.exit({found.attr}())\n"
    )
    script.chmod(0o755)
