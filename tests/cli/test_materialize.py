"""`leadre materialize`: what was written since the last time goes online, and mistakes of earlier runs are said."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from leadre.cli import cli
from leadre.cli.terminal import console
from leadre.domain.users import Profile
from leadre.errors import ConfigError
from leadre.settings import Settings
from leadre.store.features.command import run_feast
from leadre.store.records.catalog import upsert_users
from leadre.store.records.database import connect, transaction

AT = datetime(2026, 1, 1, tzinfo=UTC)


def run(*arguments: str) -> str:
    with console.capture() as captured:
        done = CliRunner().invoke(cli, ["materialize", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return captured.get()


def test_it_prints_the_rows_and_what_was_mended(applied: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADRE_DATABASE_URL", applied.database_url)
    monkeypatch.setenv("LEADRE_REDIS_URL", applied.redis_url)
    monkeypatch.setenv("LEADRE_FEATURE_REPO", str(applied.feature_repo))
    for name, value in applied.feast_environment().items():
        monkeypatch.setenv(name, value)
    run_feast(
        applied.feature_repo, "materialize", "2025-01-01T00:00:00", "2099-01-01T00:00:00", "--views", "user_profile"
    )
    database = connect(applied.database_url)
    with transaction(database) as connection:
        upsert_users(connection, [Profile(user_id=n) for n in range(3)], event_at=AT)
    database.dispose()

    first = run("--processes", "2", "--views", "user_profile, ad_features").splitlines()
    assert any("claimed the time up to 2099-01-01T00:00:00+00:00; cut back" in line for line in first)
    assert [line.split() for line in first[-4:-1]] == [
        ["view", "rows", "newer", "than", "online"],
        ["ad_features", "0", "0"],
        ["user_profile", "3", "3"],
    ]
    assert run("--views", "user_profile", "--full").splitlines()[-2].split() == ["user_profile", "3", "3"]
    assert run("--now", "2026-01-02").splitlines()[-2].split() == ["user_profile", "0", "0"]
    with pytest.raises(ConfigError, match="there is no online view 'users'; there are ad_behavior_sequence"):
        run("--views", "users")
