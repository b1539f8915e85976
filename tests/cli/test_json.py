"""`--json` prints one JSON value on standard output, and nothing else there."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from leadre.cli import cli
from leadre.errors import ConfigError

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ROOT = Path(__file__).parents[2]


def value_of(environment: dict[str, str], *words: str) -> Any:
    """Call leadre with --json; return the one value that it printed."""
    done = CliRunner().invoke(cli, [*words, "--json"], env=environment, catch_exceptions=False)
    assert done.stdout.count("\n") == 1, f"leadre {' '.join(words)} --json printed {done.stdout!r}"
    return json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.fixture
def world(environment: dict[str, str]) -> dict[str, str]:
    """An environment whose database holds a made-up world of 1 March 2026."""
    made = value_of(environment, "import", "synthetic", "--ads", "96", "--users", "20", "--now", NOW.isoformat())
    assert made["rows"]["ads"] == 96
    return environment


def test_imports_and_daily_jobs_print_their_counts(world: dict[str, str]) -> None:
    assert value_of(world, "summarize", "--now", NOW.isoformat()).keys() >= {"users"}
    assert value_of(world, "retention", "--days", "400") == []
    assert value_of(world, "release", "list") == []
    assert value_of(world, "services", "status").keys() == {"folder", "postgres_process", "redis_process"}
    assert value_of(world, "ingest") == {"revived": 0, "new": 0, "repeated": 0, "dead": 0, "waiting": 0}


def test_the_queue_and_consumption_print_their_figures(world: dict[str, str]) -> None:
    assert value_of(world, "queue")["dead"] == 0
    assert value_of(world, "queue", "revive") == {"users": 0}
    until = NOW + timedelta(days=1)
    shown = value_of(world, "consumption", "--from", NOW.isoformat(), "--to", until.isoformat())
    assert shown["shown"] == 0


def test_commands_on_ads_print_what_changed(world: dict[str, str]) -> None:
    assert value_of(world, "ads", "pause", "1", "2") == {"state": "paused", "changed": 2, "were_so_already": 0}
    assert value_of(world, "ads", "resume", "2")["changed"] == 1
    assert value_of(world, "ads", "exhaust", "3")["state"] == "out of budget"
    assert value_of(world, "ads", "refill", "3")["changed"] == 1
    assert value_of(world, "ads", "schedule", "3", "--from", "2026-01-01")["changed"] == 1
    (shown,) = value_of(world, "ads", "show", "1")
    assert shown["state"] == "paused"


def test_the_index_prints_its_quality(world: dict[str, str]) -> None:
    small = [
        'index.encoder="hashed"',
        "index.levels=2",
        "index.codes=8",
        "index.epochs=1",
        "index.quantiser=residual_kmeans",
    ]
    options = [word for value in small for word in ("--set", value)]
    built = value_of(world, "index", "build", str(ROOT / "recipes/demo.toml"), *options)
    assert built["ads"] == 96
    assert value_of(world, "index", "show")["version"] == built["version"]
    (listed,) = value_of(world, "index", "list")
    assert (listed["version"], listed["ads"], listed["releases"]) == (built["version"], 96, [])
    with pytest.raises(ConfigError, match=f"did you mean '{built['version']}'. `leadre index list`"):
        value_of(world, "index", "show", built["version"][1:])
    assert value_of(world, "index", "check") == {"version": built["version"], "whole": True}
    assert value_of(world, "index", "add")["added"] == 0


def test_an_import_of_files_prints_what_it_left_out(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "ads.csv").write_text("ad_id,name\n1,Sofa\n")
    (tmp_path / "users.csv").write_text("user_id\n5\n")
    (tmp_path / "behaviors.csv").write_text(
        "user_id,domain,action,item_id,occurred_at\n5,ad,click,1,2025-01-01T00:00:00+00:00\n5,ad,click,1,never\n"
    )
    options = ("--on-bad-row", "skip", "--max-bad-share", "0.5")
    made = value_of(environment, "import", "parquet", str(tmp_path), *options)
    assert made["rows"]["behaviors"] == 1
    assert made["left_out"] == [{"table": "behaviors", "kind": "bad_time", "rows": 1}]
    assert Path(made["rejected"]).is_file()


def test_a_check_that_finds_something_prints_json_all_the_same(environment: dict[str, str], tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["doctor", "--json"], env={"LEADRE_HOME": str(tmp_path)})
    assert done.exit_code == 1
    assert json.loads(done.stdout)["well"] is False
