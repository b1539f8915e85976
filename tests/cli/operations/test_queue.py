"""`leadre queue`: what waits is shown, the dead are named as their owner does, and come back."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from leadre.cli import cli
from leadre.domain.identity import id_of
from leadre.domain.users import Profile
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.settings import Settings
from leadre.store.records.catalog import upsert_users
from leadre.store.records.database import connect, transaction


@pytest.fixture
def queue(environment: dict[str, str], settings: Settings, monkeypatch: pytest.MonkeyPatch) -> RefreshQueue:
    for name, value in environment.items():
        if name.startswith("LEADRE_"):
            monkeypatch.setenv(name, value)
    return RefreshQueue.connect(settings.redis_url)


def run(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["queue", *arguments])
    assert done.exit_code == 0, done.output + str(done.exception)
    return done.output


def test_depth_dead_users_and_what_brings_them_back_are_shown(queue: RefreshQueue, settings: Settings) -> None:
    user = id_of("user [7]")
    database = connect(settings.database_url)
    with transaction(database) as connection:
        upsert_users(
            connection, [Profile(user_id=user)], event_at=datetime(2025, 1, 1, tzinfo=UTC), source_ids=["user [7]"]
        )
    database.dispose()
    queue.mark([user])
    for _ in range(3):
        queue.fail(queue.claim(1))
    queue.mark([1, 2], groups=[24, 24])

    shown = run()
    assert "user [7]" in shown
    assert "leadre queue revive" in shown
    told = json.loads(run("--json"))
    assert (told["depth"][24], told["dead_users"], told["claims"]) == (2, ["user [7]"], {"llm": 3, "cheap": 0})

    assert "1 users wait again" in run("revive")
    assert queue.dead() == []
    assert json.loads(run("--json"))["dead_users"] == []
