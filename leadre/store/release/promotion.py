"""Promotion under the guard that the command line and daily training share. LEADRE §4.4.1 (daily updates); ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine, update

from leadre.errors import ReleaseMismatch
from leadre.store.records.database import transaction
from leadre.store.records.tables import releases
from leadre.store.release.guard import guard_of
from leadre.store.release.records import ReleaseRow, named_release, promote


def promote_guarded(
    database: Engine, release: str, *, remeasured: Mapping[str, Mapping[str, Any]] | None = None, force: bool = False
) -> ReleaseRow:
    """Make a release the live one unless its figures fall short of the live one's by more than `guard_of` allows.

    Args:
        database: the system of record.
        release: its name.
        remeasured: newer figures of the live release, by its name: see `promote`.
        force: promote in spite of the guard.

    Raises:
        ConfigError: no such release.
        ReleaseMismatch: the guard forbids it; the reason is recorded in the release's metrics, as `kept_back`.
    """
    with transaction(database) as connection:
        metrics = named_release(connection, release).metrics
    try:
        with transaction(database) as connection:
            return promote(connection, release, guard=guard_of(metrics), remeasured=remeasured, force=force)
    except ReleaseMismatch as refused:
        noted = {**metrics, "kept_back": str(refused)}
        with transaction(database) as connection:  # the other one was undone
            connection.execute(update(releases).where(releases.c.release == release).values(metrics=noted))
        raise
