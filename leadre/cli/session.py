"""What a command works with: settings, and the environment that Feast reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leadre.domain.identity import outward
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


class SourceId(click.ParamType):  # type: ignore[type-arg]  # generic to type checkers only
    """An id on the command line, as its owner writes it: a number where it is one, the text otherwise."""

    name = "id"

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,  # noqa: ARG002 - click's signature
        ctx: click.Context | None,  # noqa: ARG002
    ) -> int | str:
        """Read the id; what is none is refused where it is used, by `id_of`."""
        return outward(str(value))


def named(name: str, *, metavar: str, required: bool = True) -> Callable[[Any], Any]:
    """Add an argument of different ids, as their owner writes them."""
    return click.argument(
        name,
        metavar=metavar,
        type=SourceId(),
        nargs=-1,
        required=required,
        callback=lambda _, __, given: tuple(dict.fromkeys(given)),
    )


def now_option(command: Any) -> Any:
    """Add `--now`, for data whose present is in the past."""
    return click.option(
        "--now",
        type=Instant(),
        default=lambda: datetime.now(UTC),
        show_default="the present",
        help="Act as of this instant.",
    )(command)


recipe_argument = click.argument(
    "recipe", type=click.Path(path_type=Path, dir_okay=False), default=Path("recipes/demo.toml")
)
"""A recipe's file; by default the demo's."""

set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Change a value of the recipe; repeatable.",
)
"""Values laid over the recipe."""
