"""How the owner names the ads, kept in a server's memory. LEADRE §4.4.1: no question to the database for an answer."""

from __future__ import annotations

from leadre.serving.branches import Kept
from leadre.store.records.database import connect, transaction
from leadre.store.records.source_ids import AdNames, read_ad_names


def kept_ad_names(database_url: str, *, every_s: float = 3.0) -> Kept[AdNames]:
    """Return the names of all ads, read once and then, every `every_s` seconds, what changed.

    On connections of its own: to read ten million names takes longer than a request may.

    Raises:
        ConfigError: the database URL is not one of PostgreSQL.
    """
    database = connect(database_url, application_name="leadre names")
    known = AdNames()

    def load() -> AdNames:
        nonlocal known
        with transaction(database) as connection:
            known = read_ad_names(connection, known=known)
        return known

    return Kept(load, what="the ads' names", every_s=every_s)
