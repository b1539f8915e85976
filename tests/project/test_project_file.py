"""Where the files of a project are: in the wheel beside the module, in a checkout at its root."""

from __future__ import annotations

from pathlib import Path

import pytest

import leadre.project
from leadre.errors import ConfigError
from leadre.project import project_file

ROOT = Path(__file__).parents[2]


def test_a_checkout_s_files_are_at_its_root() -> None:
    assert project_file("alembic.ini") == ROOT / "alembic.ini"
    assert project_file("recipes/demo.toml") == ROOT / "recipes/demo.toml"


def test_a_wheel_s_files_are_beside_the_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leadre.project, "IN_WHEEL", tmp_path)
    (tmp_path / "alembic.ini").touch()
    (tmp_path / "recipes").mkdir()
    assert project_file("recipes") == tmp_path / "recipes"
    with pytest.raises(ConfigError, match=r"migrations does not exist: this installation .* install it again"):
        project_file("migrations")


def test_an_installation_without_the_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leadre.project, "IN_WHEEL", tmp_path / "leadre/project")
    monkeypatch.setattr(leadre.project, "IN_CHECKOUT", tmp_path)
    with pytest.raises(ConfigError, match=r"alembic\.ini does not exist"):
        project_file("alembic.ini")
