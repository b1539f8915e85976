"""`leadre demo` where there is no checkout: it writes a project first, and nothing over what is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from leadre.cli import cli
from leadre.errors import ConfigError, Unavailable


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory; no server is there, so that the demo ends at its first step."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LEADRE_HOME", str(tmp_path / ".leadre"))
    monkeypatch.setenv("LEADRE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    monkeypatch.setenv("LEADRE_REDIS_URL", "redis://127.0.0.1:1/0")
    return tmp_path


def test_in_an_empty_folder_the_demo_writes_a_project_first(empty_folder: Path) -> None:
    done = CliRunner().invoke(cli, ["demo"])
    assert isinstance(done.exception, Unavailable)
    assert "yours to edit" in done.output
    assert (empty_folder / "feature_repo/feature_store.yaml").is_file()


def test_in_a_project_the_demo_writes_none(empty_folder: Path) -> None:
    CliRunner().invoke(cli, ["init", "."])
    (empty_folder / "README.md").write_text("mine")
    done = CliRunner().invoke(cli, ["demo"])
    assert isinstance(done.exception, Unavailable)
    assert (empty_folder / "README.md").read_text() == "mine"


def test_in_a_folder_of_other_things_the_demo_asks_for_an_empty_one(empty_folder: Path) -> None:
    (empty_folder / "README.md").write_text("mine")
    done = CliRunner().invoke(cli, ["demo"])
    assert isinstance(done.exception, ConfigError)
    assert "take an empty folder" in str(done.exception)
    assert [path.name for path in empty_folder.iterdir()] == ["README.md"]
