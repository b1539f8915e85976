"""Alembic's environment: which database, which tables, and one deployer at a time."""

from __future__ import annotations

import logging.config
import os
from typing import Any

from alembic import context
from alembic.util import CommandError
from sqlalchemy import text

from leadre.errors import ConfigError
from leadre.settings import Settings
from leadre.store.records.database import connect
from leadre.store.records.tables import metadata

LOCK = 0x1EAD_0001  # any number that nobody else locks in this database
FEAST_TEMPORARY = "feast_entity_df_"  # tables that Feast makes for the time of one point-in-time join


def database_url() -> str:
    """The caller's, the environment's, or the embedded server's."""
    if url := context.config.attributes.get("database_url") or os.environ.get("LEADRE_DATABASE_URL"):
        return str(url)
    try:
        return Settings.from_environment().database_url
    except ConfigError as error:
        raise CommandError(str(error)) from None


def include_object(_thing: Any, name: str | None, kind: str, reflected: bool, _compared: Any) -> bool:  # noqa: FBT001
    """Leave out what Feast owns. Its registry lives in another schema, which is not looked at in the first place."""
    return not (kind == "table" and reflected and (name or "").startswith(FEAST_TEMPORARY))


OPTIONS: dict[str, Any] = {
    "target_metadata": metadata,
    "compare_type": True,
    "compare_server_default": True,
    "include_object": include_object,
}


def offline() -> None:
    """Print the SQL (`alembic upgrade head --sql`)."""
    context.configure(dialect_name="postgresql", literal_binds=True, **OPTIONS)
    with context.begin_transaction():
        context.run_migrations()


def online() -> None:
    """Migrate, while holding an advisory lock: a second deployer waits and then finds nothing left to do."""
    # A migration that waits for a table holds up everybody behind it: give up after 5 s and let the deployer try again.
    engine = connect(database_url(), application_name="leadre-migrations", statement_timeout_s=0, lock_timeout_s=5)
    try:
        with engine.connect() as connection:
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": LOCK})
            connection.commit()  # the lock is the session's, and ends with it
            context.configure(connection=connection, **OPTIONS)
            with context.begin_transaction():
                context.run_migrations()
    finally:
        engine.dispose()


if context.config.config_file_name and "database_url" not in context.config.attributes:
    logging.config.fileConfig(context.config.config_file_name, disable_existing_loggers=False)

if context.is_offline_mode():
    offline()
else:
    online()
