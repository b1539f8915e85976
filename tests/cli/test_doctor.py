"""`leadre doctor`: a line a check, the command to run next, an exit code; whatever is missing, and without secrets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from leadre.cli import cli
from leadre.pipelines.doctor.examine import examine
from leadre.pipelines.doctor.finding import Finding, next_command, well
from leadre.settings import Settings
from leadre.store.records.database import connect, transaction

ROOT = Path(__file__).parents[2]


def run(environment: dict[str, str], *options: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["doctor", *options], env=environment)
    return done.exit_code, done.stdout


def found(environment: dict[str, str]) -> tuple[int, dict[str, Any]]:
    code, said = run(environment, "--json")
    return code, json.loads(said)


def test_when_everything_is_down_it_says_so_and_shows_no_password(tmp_path: Path) -> None:
    environment = {
        "LEADRE_HOME": str(tmp_path),
        "LEADRE_DATABASE_URL": "postgresql://somebody:s3cret@127.0.0.1:1/leadre",
        "LEADRE_REDIS_URL": "redis://:s3cret@127.0.0.1:1/0",
        "LEADRE_FEATURE_REPO": str(ROOT / "feature_repo"),
    }
    code, said = run(environment)
    assert code == 1
    assert "s3cret" not in said
    assert "✗ postgres" in said
    assert "✗ redis" in said
    assert "Not looked at before that is mended: migrations, registry" in said
    code, facts = found(environment)
    assert code == 1
    assert "s3cret" not in json.dumps(facts)
    assert facts["next"] == "leadre env | grep LEADRE_DATABASE_URL"


def test_without_servers_the_next_command_starts_them(tmp_path: Path) -> None:
    program = "from leadre.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "doctor"],
        env={"LEADRE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.rstrip().endswith("Next:  leadre services up")


def test_where_the_core_alone_is_installed_it_says_what_to_install(tmp_path: Path) -> None:
    """Every package but the core's is hidden from the interpreter."""
    program = """
import importlib.abc, sys
sys.argv = ["leadre", "doctor", "--json"]
class Hidden(importlib.abc.MetaPathFinder):
    core = {"numpy", "msgspec", "click", "rich", "leadre", "pygments", "markdown_it", "mdurl"} | set(sys.stdlib_module_names)
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in self.core:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
from leadre.pipelines.doctor import installation
real = installation.importlib.util.find_spec
def seen(name):
    try: return real(name)
    except ModuleNotFoundError: return None
installation.importlib.util.find_spec = seen
from leadre.cli import main
main()
"""
    environment = {
        "LEADRE_HOME": str(tmp_path),
        "LEADRE_DATABASE_URL": "postgresql://u:s3cret@127.0.0.1:1/leadre",
        "LEADRE_REDIS_URL": "redis://127.0.0.1:1/0",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    facts = json.loads(done.stdout)
    assert facts["next"] == 'pip install "leadre[all]"'
    by_name = {it["check"]: it for it in facts["findings"]}
    assert "is not installed" in by_name["postgres"]["said"]
    assert by_name["postgres"]["run"] == 'pip install "leadre[store]"'
    assert "s3cret" not in done.stdout + done.stderr


def test_a_fresh_database_leads_from_step_to_step(applied: Settings, environment: dict[str, str]) -> None:
    environment = {**environment, "LEADRE_DATABASE_URL": applied.database_url}
    code, facts = found(environment)
    assert code == 1
    assert facts["next"] == "leadre import parquet FOLDER"
    assert facts["not_looked_at"] == []
    states = {it["check"]: it["state"] for it in facts["findings"]}
    assert states["postgres"] == states["migrations"] == states["registry"] == states["redis"] == "ok"
    assert states["index"] == "fault"
    assert states["workers"] == "warning"


def test_a_schema_that_is_behind_hides_what_rests_on_it(environment: dict[str, str], settings: Settings) -> None:
    database = connect(settings.database_url)
    with transaction(database) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    database.dispose()
    findings, skipped = examine(environment)
    assert next(it.run for it in findings if it.check == "migrations") == "alembic upgrade head"
    assert "registry" in skipped


def test_a_fault_goes_before_a_warning_and_warnings_alone_are_well() -> None:
    warned = Finding(check="a", state="warning", said="", run="first")
    broken = Finding(check="b", state="fault", said="", run="second")
    assert next_command([warned, broken]) == "second"
    assert next_command([warned]) == "first"
    assert next_command([]) == ""
    assert well([warned])
    assert not well([warned, broken])


@pytest.mark.parametrize("option", ["--json", "--help"])
def test_it_changes_nothing(option: str, environment: dict[str, str], settings: Settings) -> None:
    def tables() -> list[str]:
        database = connect(settings.database_url)
        with transaction(database) as connection:
            names = connection.scalars(text("SELECT table_schema || '.' || table_name FROM information_schema.tables"))
            found = sorted(names)
        database.dispose()
        return found

    before = tables()
    run(environment, option)
    assert tables() == before
