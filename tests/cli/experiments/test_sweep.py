"""`leadre index sweep`: Table 5 in words, in JSON and in pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from leadre.cli.experiments.sweep import sweep
from leadre.store.records.catalog import upsert_ads
from leadre.store.records.database import connect, transaction
from leadre.synthetic import make_world

SIZES = ("--set", "index.encoder=hashed", "--levels", "2", "--levels", "3", "--codes", "16", "--codes", "4")


@pytest.fixture
def catalog(environment: dict[str, str], database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        if name.startswith("LEADRE_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "160")
    database = connect(database_url)
    with transaction(database) as connection:
        upsert_ads(connection, make_world(seed=1, ads=110, users=3, sessions=2, slate=2).ads)
    database.dispose()


def test_the_table_stands_beside_the_papers_and_the_trends_are_said(catalog: None, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        sweep, [*SIZES, "--codes", "256", "--quantiser", "residual_kmeans", "--plots", str(tmp_path / "pictures")]
    )
    assert done.exit_code == 0, done.output
    assert "Table 5, residual_kmeans" in done.output
    assert "16.38%" in done.output  # the paper's 3 x 256
    assert "every code is used: does not hold" in done.output.replace("\n", " ")  # 256 codes for 110 ads
    assert (tmp_path / "pictures" / "collisions.png").is_file()


def test_json_is_one_line_with_rows_and_trends(catalog: None) -> None:
    done = CliRunner().invoke(sweep, [*SIZES, "--quantiser", "residual_kmeans", "--assignment", "balanced", "--json"])
    assert done.exit_code == 0, done.output
    plain = json.loads(done.stdout.splitlines()[-1])
    assert [(row["levels"], row["codes"]) for row in plain["rows"]] == [(2, 16), (2, 4), (3, 16), (3, 4)]
    assert {row["assignment"] for row in plain["rows"]} == {"balanced"}
    assert plain["trends"]
