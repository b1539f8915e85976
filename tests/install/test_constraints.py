"""constraints.txt: one version of everything that is installed, also for something else, and all of them fit."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "constraints.txt").read_text().splitlines()
NOT_BESIDE_US = {"tensorrt"}
"""Extras that need an environment of their own."""


def locked() -> dict[str, Version]:
    return {canonicalize_name(name): Version(version) for name, _, version in (line.partition("==") for line in LINES)}


def declared() -> Iterator[Requirement]:
    """Every requirement of pyproject.toml, those of other extras of ours left out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"]]
    for extra, more in project["optional-dependencies"].items():
        texts += [] if extra in NOT_BESIDE_US else more
    for requirement in map(Requirement, texts):
        if requirement.name != "leadre" and (not requirement.marker or requirement.marker.evaluate({"extra": ""})):
            yield requirement


def needed() -> dict[str, set[str]]:
    """The name of everything that is needed here, with whom it is needed by."""
    found: dict[str, set[str]] = {}
    waiting = [(requirement, "pyproject.toml") for requirement in declared()]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement, by = waiting.pop()
        name = canonicalize_name(requirement.name)
        found.setdefault(name, set()).add(by)
        if (key := (name, frozenset(requirement.extras))) in seen:
            continue
        seen.add(key)
        for text in metadata.requires(name) or ():
            further = Requirement(text)
            extras = ["", *requirement.extras]
            if not further.marker or any(further.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append((further, name))
    return found


def test_every_line_is_one_version_of_one_package_and_none_names_a_host() -> None:
    for line in LINES:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9_.!]*", line), line
    names = [canonicalize_name(line.partition("==")[0]) for line in LINES]
    assert len(set(names)) == len(names)
    assert sorted(LINES, key=str.lower) == LINES


def test_the_versions_are_those_that_the_project_asks_for() -> None:
    versions = locked()
    for requirement in declared():
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), requirement


def test_everything_that_is_needed_is_locked() -> None:
    missing = {name: by for name, by in needed().items() if name not in locked()}
    assert missing == {}


@pytest.mark.parametrize("name", ["celery", "feast", "httptools", "numpy", "redis", "sqlalchemy", "torch", "uvloop"])
def test_what_the_product_runs_on_is_locked_to_what_is_tested(name: str) -> None:
    assert Version(metadata.version(name)).public == str(locked()[name])
