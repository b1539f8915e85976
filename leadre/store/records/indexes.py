"""Which index versions there are, which ads of the catalog one lacks, the right to change it. LEADRE §3.2, §4.4.1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, exists, select, text

from leadre.domain.ads import Ad
from leadre.store.records.catalog import read_ads
from leadre.store.records.tables import ads, index_versions, semantic_ids

_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexRow:
    """An index version: when it was recorded, and its figures (collisions, code use)."""

    index_version: str
    created_at: datetime
    quality: Mapping[str, Any]


_COLUMNS = [index_versions.c[name] for name in IndexRow.__dataclass_fields__]


def list_indexes(connection: Connection) -> list[IndexRow]:
    """Return all index versions, newest first."""
    rows = connection.execute(select(*_COLUMNS).order_by(index_versions.c.created_at.desc()))
    return [IndexRow(**cast(dict[str, Any], dict(row._mapping))) for row in rows]


def lock_index(connection: Connection, version: str) -> None:
    """Wait until no other process changes the index, and keep others out until this transaction ends.

    A process that dies frees it. Statements that follow see what the process before wrote.
    """
    connection.execute(text("SET LOCAL lock_timeout = 0"))  # whoever is at it is done in seconds
    key = f"leadre index {version}"
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": key})


def oldest_open_transaction(connection: Connection) -> int:
    """Return the number of the oldest transaction under way: what older ones changed is visible by now.

    Who reads after this call, and next time looks at `ads.changed_in >=` this number, misses no change.
    """
    query = text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
    return int(connection.execute(query).scalar_one())


def ads_without_sid(connection: Connection, version: str, *, changed_since: int = 0) -> list[Ad]:
    """Return the ads that have no S-ID in an index version, by ascending `ad_id`.

    Args:
        connection: in a transaction.
        version: the index version.
        changed_since: number of a transaction: look only at ads that it or a later one changed, which an index on
            them makes cheap. 0 looks at all ads, about 0.7 s a million.
    """
    known = (semantic_ids.c.index_version == version) & (semantic_ids.c.ad_id == ads.c.ad_id)
    query = select(ads.c.ad_id).where(~exists().where(known)).order_by(ads.c.ad_id)
    if changed_since:
        query = query.where(ads.c.changed_in >= changed_since)
    ad_ids = connection.scalars(query).all()
    parts = [ad_ids[start : start + _AT_ONCE] for start in range(0, len(ad_ids), _AT_ONCE)]
    return [ad for part in parts for ad in read_ads(connection, ad_ids=part)]


def ad_blocks(connection: Connection, *, size: int) -> Iterator[list[Ad]]:
    """Yield the inventory by ascending `ad_id`, `size` ads at a time; it need not fit into memory."""
    following = select(ads.c.ad_id).order_by(ads.c.ad_id).limit(size)
    block = connection.scalars(following).all()
    while block:
        yield read_ads(connection, ad_ids=block)
        block = connection.scalars(following.where(ads.c.ad_id > block[-1])).all()


def recorded_ads(connection: Connection, version: str) -> NDArray[np.int64]:
    """Return the ids of the ads whose S-ID in this version is recorded, ascending: int64[n]."""
    query = select(semantic_ids.c.ad_id).where(semantic_ids.c.index_version == version).order_by(semantic_ids.c.ad_id)
    return np.array(connection.scalars(query).all(), np.int64)


def recorded_size(connection: Connection, version: str) -> int:
    """Return how many ads the version's newest recorded revision holds; 0 when none is recorded."""
    quality = connection.scalar(select(index_versions.c.quality).where(index_versions.c.index_version == version))
    return int((quality or {}).get("ads", 0))
