"""`leadre experiment`: the paper's figures beside ours, in words, in JSON and in pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from leadre.cli.experiments import experiment as command
from leadre.errors import ConfigError
from leadre.experiments import table1
from leadre.experiments.ablation import Trials, Variant
from leadre.experiments.result import Measured


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LEADRE_HOME", str(tmp_path))
    monkeypatch.setenv("LEADRE_DATABASE_URL", "postgresql://u:p@localhost:1/none")
    monkeypatch.setenv("LEADRE_REDIS_URL", "redis://localhost:1/0")
    monkeypatch.setattr(command, "console", Console(width=160))


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[Trials]:
    """In the place of the trainings: every row is worse than the one before it."""
    asked: list[Trials] = []

    def run(variants: dict[str, Variant], trials: Trials) -> dict[str, Measured]:
        asked.append(trials)
        rng = np.random.default_rng(0)
        luck = rng.random((len(trials.seeds), 500, 5))
        return {
            row: Measured(metrics=table1.METRICS, values=(luck < 0.4 - 0.15 * place).astype(float))
            for place, row in enumerate(variants)
        }

    monkeypatch.setattr(table1, "run_variants", run)
    return asked


def test_the_papers_table_stands_beside_ours_and_the_directions_are_said(
    trainings: list[Trials], tmp_path: Path
) -> None:
    pictures = tmp_path / "pictures"
    done = CliRunner().invoke(command.experiment, ["table1", "--seeds", "2", "--plots", str(pictures)])
    assert done.exit_code == 0, done.output
    assert trainings[0].seeds == (0, 1)
    assert trainings[0].kept == tmp_path / "experiments"
    said = " ".join(done.output.split())
    assert "500 users, 2 seeds" in said
    assert "0.1567" in said  # the paper's LEADRE, HR@4
    assert "-14.3%" in said  # and w.o. content
    assert "w.o. content against LEADRE: reproduced: HR@1, HR@4, HR@8, NDCG@4, NDCG@8" in said
    assert "w.o. summary against LEADRE: reproduced: HR@1, HR@4, NDCG@4, NDCG@8; opposite direction: HR@8" in said
    assert (pictures / "table1_differences.png").is_file()


def test_one_seed_is_said_to_be_too_few(trainings: list[Trials]) -> None:
    done = CliRunner().invoke(command.experiment, ["table1", "--seeds", "1"])
    assert "the intervals know nothing of the noise of training" in " ".join(done.output.split())


def test_json_is_one_line(trainings: list[Trials]) -> None:
    done = CliRunner().invoke(command.experiment, ["table1", "--seeds", "1", "--json"])
    assert done.exit_code == 0, done.output
    (one,) = json.loads(done.stdout.splitlines()[-1])["experiments"]
    assert one["name"] == "table1"
    assert {each["verdict"] for each in one["comparisons"]} == {"reproduced", "opposite direction"}


def test_encoders_are_for_table_4_alone() -> None:
    done = CliRunner().invoke(command.experiment, ["table1", "--encoder", "hashed"])
    assert isinstance(done.exception, ConfigError)
    assert "index.encoder" in str(done.exception)
