"""What a command works with: settings, and the environment that Feast reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from leadre.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from leadre.store.features.client import FeatureClient


def settings() -> Settings:
    """Return the settings, and put what feature_store.yaml expands into the environment.

    Raises:
        ConfigError: a setting is missing or wrong.
    """
    found = Settings.from_environment()
    os.environ.update(found.feast_environment())
    return found


@contextmanager
def connection(found: Settings) -> Iterator[Connection]:
    """Give a database connection in a transaction.

    Raises:
        Unavailable: the database does not answer.
    """
    from leadre.store.records.database import connect, transaction

    database = connect(found.database_url, application_name="leadre")
    try:
        with transaction(database) as connected:
            yield connected
    finally:
        database.dispose()


def features(found: Settings) -> FeatureClient:
    """Return the feature store (its first import takes seconds)."""
    from leadre.store.features.client import FeatureClient

    return FeatureClient(found.feature_repo, environment=found.feast_environment())


class Instant(click.ParamType):  # type: ignore[type-arg]  # generic to type checkers only
    """An instant on the command line: ISO 8601; without an offset it is UTC."""

    name = "instant"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read the instant."""
        if isinstance(value, datetime):
            return value
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not an instant; write one like 2025-06-01T12:00:00+00:00", param, ctx)
        return at if at.tzinfo else at.replace(tzinfo=UTC)


def now_option(command: Any) -> Any:
    """Add `--now`, for data whose present is in the past."""
    return click.option(
        "--now",
        type=Instant(),
        default=lambda: datetime.now(UTC),
        show_default="the present",
        help="Act as of this instant.",
    )(command)
