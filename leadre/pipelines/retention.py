"""Retention: months of lists, summaries and sequences that are old go, to Parquet first where a folder is given.

LEADRE §4.4.1's feature databases keep what was known when; this bounds how long. Training sets reach back as far.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from leadre.store.records.database import transaction
from leadre.store.records.partitions import PARTITIONED, drop_month, export_month, months_before, still_valid

if TYPE_CHECKING:
    from sqlalchemy import Engine

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class OldMonth:
    """What became of a month.

    Args:
        name: of its table, e.g. `retrieval_log_2025_12`.
        still_valid: rows that say what holds now; the month is kept as long as there are any, and those after it.
        exported: the file it went to; None when it was kept, or no folder was given.
    """

    name: str
    still_valid: int
    exported: Path | None


def drop_old_months(database: Engine, *, now: datetime, days: int, export: Path | None) -> list[OldMonth]:
    """Drop the months that ended `days` ago or earlier, each in a transaction of its own.

    A month of summaries or sequences that holds somebody's present one stays, and so do those after it: without their
    rows, its rows would be the newest again. Once behaviors have left the window newer rows say so, and it goes.

    Args:
        database: the system of record.
        now: the instant.
        days: retention.
        export: the folder for Parquet files; None drops without.

    Raises:
        ArtifactIncomplete: a file does not hold all rows; its month is still there, as are those after it.
        Unavailable: PostgreSQL does not answer, or somebody reads the table for long.
    """
    found = []
    for table in PARTITIONED:
        with transaction(database) as connection:
            names = months_before(connection, table, now - timedelta(days=days))
        for name in names:
            with transaction(database) as connection:
                valid = still_valid(connection, table, name)
                exported = None
                if not valid:
                    exported = export_month(connection, table, name, folder=export) if export else None
                    drop_month(connection, name)
            found.append(OldMonth(name=name, still_valid=valid, exported=exported))
            logger.info("old_month", extra={"month": name, "dropped": not valid, "still_valid": valid})
            if valid:
                break
    return found
