from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery.concurrency import get_implementation
from kombu.exceptions import OperationalError

from workers.app import app, refuse_prefork
from workers.schedule import BEAT_SCHEDULE

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def urls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADRE_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("LEADRE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")


@pytest.mark.parametrize("pool", ["prefork", "gevent", get_implementation("processes")])
def test_a_pool_that_cannot_hold_a_model_is_refused(pool: str | type) -> None:
    with pytest.raises(SystemExit, match="--pool=threads -c 1"):
        refuse_prefork(sender=SimpleNamespace(pool_cls=pool))


@pytest.mark.parametrize("pool", ["threads", "solo", get_implementation("threads"), get_implementation("solo")])
def test_pools_of_one_process_are_accepted(pool: str | type) -> None:
    refuse_prefork(sender=SimpleNamespace(pool_cls=pool))


def test_a_worker_of_processes_ends_at_once_with_a_clear_message() -> None:
    command = [sys.executable, "-m", "celery", "-A", "workers.app", "worker", "--pool=processes"]
    worker = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert worker.returncode == 1
    assert worker.stderr.rstrip().endswith("start the worker with --pool=threads -c 1")


def test_messages_are_json_and_nothing_else_is_accepted() -> None:
    assert app.conf.accept_content == ["json"]
    assert app.conf.task_serializer == "json"
    assert app.conf.task_ignore_result


def test_a_broker_that_is_away_is_tried_every_second_and_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    def note(_: Exception, interval: float) -> None:
        slept.append(interval)

    monkeypatch.setattr("kombu.utils.functional.sleep", lambda _: None)
    assert app.conf.broker_connection_max_retries is None
    with pytest.raises(OperationalError):
        app.connection_for_read().ensure_connection(note, 9)  # of the nowhere that `urls` names
    assert len(slept) == 9
    assert max(slept) <= 1.0


def test_what_beat_says_is_a_task_and_goes_to_its_queue() -> None:
    app.loader.import_default_modules()
    for entry in BEAT_SCHEDULE.values():
        assert entry["task"] in app.tasks
        module, queue = entry["task"].split(".")[1], app.amqp.router.route({}, entry["task"])["queue"].name
        queues = {
            "retrieval": "retrieval",
            "distribution": "retrieval",
            "ingest": "ingest",
            "indexing": "indexing",
            "dataset": "backfill",
        }
        assert queue == queues.get(module, "maintenance")
    ours = {name for name in app.tasks if name.startswith("workers.")}
    offered = {"workers.materialization.materialize_shard"}  # by `materialize`, to whoever is free
    assert ours == {entry["task"] for entry in BEAT_SCHEDULE.values()} | offered


def test_long_tasks_are_acknowledged_before_they_run_so_that_none_runs_twice() -> None:
    app.loader.import_default_modules()
    late = {name for name, task in app.tasks.items() if name.startswith("workers.") and task.acks_late}
    assert late == {"workers.retrieval.refresh_users", "workers.retrieval.revive_dead"}


def test_beat_and_the_doorbell_load_no_model_library() -> None:
    code = (
        "import sys; from workers.app import app; app.loader.import_default_modules();"
        "print([name for name in ('torch', 'feast', 'transformers', 'pandas') if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_a_configuration_that_cannot_be_read_yet_is_read_when_it_can_be(tmp_path: Path) -> None:
    code = """
import os
from leadre.errors import ConfigError
from workers.app import app
for _ in range(2):
    try:
        app.conf.broker_url
    except ConfigError:
        print("not yet")
os.environ["LEADRE_REDIS_URL"] = "redis://127.0.0.1:1/7"
os.environ["LEADRE_DATABASE_URL"] = "postgresql://nobody@127.0.0.1:1/nothing"
print(app.conf.broker_url, app.conf.task_acks_late, app.conf.accept_content)
"""
    bare = {key: value for key, value in os.environ.items() if not key.startswith("LEADRE_")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env={**bare, "LEADRE_HOME": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["not yet", "not yet", "redis://127.0.0.1:1/7 True ['json']"]


@pytest.mark.parametrize("first", ["workers", "leadre_workers"])
def test_two_names_of_the_same_file_do_not_become_two_applications_in_one_process(first: str, tmp_path: Path) -> None:
    (tmp_path / "leadre_workers").symlink_to(ROOT / "workers")  # what an editable install does by an import hook
    second = "leadre_workers" if first == "workers" else "workers"
    code = f"import {first}.app, {second}.app"
    path = f"{tmp_path}:{ROOT}"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith(
        f"this process has imported {first}.app, which is the same file as {second}.app: import one of them"
    )
