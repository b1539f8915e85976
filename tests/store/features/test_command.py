"""Feast's commands in this process do what they do in their own, and leave this one as it was."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from leadre.errors import LeadreError
from leadre.settings import Settings
from leadre.store.features.command import run_feast


def test_a_command_answers_and_leaves_folder_and_logging_alone(
    applied: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in applied.feast_environment().items():
        monkeypatch.setenv(name, value)
    before = Path.cwd(), logging.root.handlers[:], logging.root.level
    assert "retrieved_ads" in run_feast(applied.feature_repo.absolute(), "feature-views", "list")
    assert (Path.cwd(), logging.root.handlers[:], logging.root.level) == before


def test_a_second_command_sees_what_the_definitions_say_by_then(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text(
        f"project: tiny\nprovider: local\nregistry: {tmp_path}/registry.db\noffline_store: {{type: dask}}\n"
        f"online_store: {{type: sqlite, path: {tmp_path}/online.db}}\nentity_key_serialization_version: 3\n"
    )
    for description in ("before", "after"):
        (tmp_path / "entities.py").write_text(
            "from feast import Entity, ValueType\n"
            f"user = Entity(name='user', value_type=ValueType.INT64, description='{description}')\n"
        )
        run_feast(tmp_path, "apply")
        assert description in run_feast(tmp_path, "entities", "list")
    assert "entities" not in sys.modules
    assert str(tmp_path) not in sys.path


def test_a_command_that_fails_says_why_in_one_line(applied: Settings) -> None:
    with pytest.raises(LeadreError, match="feast nonsense failed: No such command 'nonsense'"):
        run_feast(applied.feature_repo.absolute(), "nonsense")
