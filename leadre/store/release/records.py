"""Releases: which index and model are live. LEADRE §4.4.1: the index and the LLM are updated together, daily.

A release is one index, one model, its recipe and its metrics. At most one is live; promotion is one transaction, may be
guarded by metrics, and can be taken back. `sequence` grows with every promotion and rollback, so of two retrieval lists
that come from one behavior, the one with the larger sequence is the newer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import repeat
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, literal_column, select, text, update
from sqlalchemy.dialects.postgresql import insert

from leadre.errors import ConfigError, InvalidInput, ReleaseMismatch
from leadre.names import not_there
from leadre.store.records.bulk import merge, staged
from leadre.store.records.tables import index_versions, releases, semantic_ids
from leadre.store.release.guard import shortfalls

Status = Literal["candidate", "live", "retired"]
ROLLING = "rolling"
"""In the figures of a release that was trained to decode the past."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRow:
    """A release. `promoted_at` is None for one that was never live, or was rolled back.

    Its training read no behavior after `trained_until`; None where that is not recorded.
    """

    release: str
    index_version: str
    uri: str
    recipe: Mapping[str, Any]
    metrics: Mapping[str, Any]
    status: Status
    promoted_at: datetime | None
    sequence: int
    trained_until: datetime | None


_SID_COLUMNS = (
    *("index_version", "ad_id", "sid", "codes", "embedding", "event_at"),
    *("first_category", "second_category", "advertiser_id"),
)
_COLUMNS = [releases.c[name] for name in ReleaseRow.__dataclass_fields__]


def record_index(
    connection: Connection, version: str, *, uri: str, recipe: Mapping[str, Any], quality: Mapping[str, Any]
) -> None:
    """Note an index version; noting it again replaces what was noted.

    Args:
        connection: in a transaction.
        version: the index version, as its artifact is named.
        uri: where the artifact is.
        recipe: the recipe it was built by, in plain form.
        quality: its figures (collisions, code use).
    """
    noted = {"uri": uri, "recipe": dict(recipe), "quality": dict(quality)}
    statement = insert(index_versions).values(index_version=version, **noted)
    connection.execute(statement.on_conflict_do_update(index_elements=["index_version"], set_=noted))


def newest_index(connection: Connection) -> str | None:
    """Return the index version recorded last; None when there is none."""
    newest = select(index_versions.c.index_version).order_by(index_versions.c.created_at.desc()).limit(1)
    version: str | None = connection.scalar(newest)
    return version


def record_sids(
    connection: Connection,
    index_version: str,
    *,
    ad_ids: NDArray[np.int64],
    sids: Sequence[str],
    codes: NDArray[np.integer[Any]],
    embeddings: NDArray[np.float32],
    first_categories: Sequence[str],
    second_categories: Sequence[str],
    advertiser_ids: NDArray[np.int64],
    event_at: datetime,
) -> int:
    """Write what an index has of ads: all of a new version, or those added to one. Writing twice is harmless.

    Args:
        connection: in a transaction.
        index_version: a recorded one.
        ad_ids: [N].
        sids: N S-IDs in the paper's notation.
        codes: [N, M + 1].
        embeddings: z_a of Eq. 4, [N, width].
        first_categories: N names, as the index has them; "" is none.
        second_categories: likewise.
        advertiser_ids: [N]; 0 is unknown.
        event_at: when the rows became true.

    Returns:
        How many rows are new.

    Raises:
        InvalidInput: an ad already has another S-ID in this version, or an S-ID already names another ad.
    """
    columns = (sids, codes, embeddings, first_categories, second_categories, advertiser_ids)
    if {len(column) for column in columns} - {len(ad_ids)}:
        raise InvalidInput(
            f"{len(ad_ids)} ads with columns of {[len(column) for column in columns]}: pass as many of each"
        )
    rows = zip(
        repeat(index_version),
        ad_ids.tolist(),
        sids,
        codes.tolist(),
        embeddings.tolist(),
        repeat(event_at),
        first_categories,
        second_categories,
        advertiser_ids.tolist(),
        strict=False,
    )
    with staged(connection, semantic_ids, _SID_COLUMNS, rows) as source:
        changed = text(
            f"SELECT new.ad_id, new.sid, old.sid AS old_sid FROM {source.name} AS new "  # noqa: S608 - names of ours
            "JOIN semantic_ids AS old USING (index_version, ad_id) WHERE new.sid <> old.sid LIMIT 1"
        )
        if row := connection.execute(changed).one_or_none():
            raise InvalidInput(
                f"ad {row.ad_id} is {row.old_sid} in index version {index_version!r} and cannot become {row.sid}: "
                "the S-IDs of a version do not change, build a new one"
            ).about(ads=[row.ad_id])
        return merge(connection, semantic_ids, source, key=("index_version", "ad_id"), on_conflict="nothing")


def record_release(
    connection: Connection,
    release: str,
    *,
    index_version: str,
    uri: str,
    recipe: Mapping[str, Any],
    metrics: Mapping[str, Any],
    trained_until: datetime | None = None,
) -> ReleaseRow:
    """Note a trained release as a candidate.

    Args:
        connection: in a transaction.
        release: its name, as its artifact is named.
        index_version: the index its model speaks of.
        uri: where the artifact is.
        recipe: in plain form.
        metrics: of the evaluation; may be nested.
        trained_until: its training read no later behavior; None: unknown.

    Raises:
        ConfigError: the name is taken, or the index version was never recorded.
    """
    if not connection.execute(select(index_versions).filter_by(index_version=index_version)).first():
        raise ConfigError(
            f"release {release!r} needs index version {index_version!r}, which is not recorded: build it first"
        )
    statement = insert(releases).values(
        release=release,
        index_version=index_version,
        uri=uri,
        recipe=dict(recipe),
        metrics=dict(metrics),
        status="candidate",
        trained_until=trained_until,
    )
    row = connection.execute(
        statement.on_conflict_do_nothing(index_elements=["release"]).returning(*_COLUMNS)
    ).one_or_none()
    if row is None:
        raise ConfigError(
            f"there is a release {release!r} already; releases do not change, give the new one its own name"
        )
    return _release(row)


def promote(
    connection: Connection,
    release: str,
    *,
    guard: Mapping[str, float] | None = None,
    remeasured: Mapping[str, Mapping[str, Any]] | None = None,
    force: bool = False,
) -> ReleaseRow:
    """Make a release the live one. The one before it is retired; all in the caller's transaction.

    Args:
        connection: in a transaction.
        release: its name.
        guard: metric → share of the live release's value that the new one may fall short of it by, e.g.
            `{"hr@8": 0.02}`. Metrics are better when larger; a dot goes into a nested one (`main.hr@8`).
        remeasured: newer metrics of releases, by name, to compare with in place of those recorded with them.
        force: promote in spite of the guard.

    Raises:
        ConfigError: no such release, or an allowed drop outside [0, 1).
        ReleaseMismatch: the guard forbids it; the message holds the figures.
    """
    _lock(connection)
    chosen = named_release(connection, release)
    live = live_release(connection)
    if chosen.status == "live":
        return chosen
    if live is not None and not force:
        problems = shortfalls(chosen.metrics, (remeasured or {}).get(live.release, live.metrics), guard or {})
        if problems:
            raise ReleaseMismatch(
                f"release {release!r} is not promoted over {live.release!r}: {'; '.join(problems)}. "
                "Train a better one, or promote it by force"
            )
    # Strictly later than any other, even when the clock was set back: rollback goes by this order.
    later = text("greatest(clock_timestamp(), (SELECT max(promoted_at) + interval '1 microsecond' FROM releases))")
    return _make_live(connection, release, promoted_at=later)


def rollback(connection: Connection, *, from_release: str | None = None) -> ReleaseRow:
    """Make the release live that was live before the live one, which counts as never promoted from then on.

    Args:
        connection: in a transaction.
        from_release: the release that has to be the live one; None: whichever is.

    Returns:
        The release that is live again.

    Raises:
        ConfigError: none is live, none was before it, or another one is live than `from_release`.
    """
    _lock(connection)
    live = live_release(connection)
    if live is None:
        raise ConfigError("no release is live, so there is none to roll back")
    if from_release not in (None, live.release):
        raise ConfigError(f"{live.release!r} is live by now, not {from_release!r}: look again before you roll back")
    earlier = releases.c.promoted_at < live.promoted_at
    previous = connection.execute(
        select(*_COLUMNS).where(earlier).order_by(releases.c.promoted_at.desc()).limit(1)
    ).one_or_none()
    if previous is None:
        raise ConfigError(f"no release was live before {live.release!r}; promote another one instead")
    live_again = _make_live(connection, previous.release, promoted_at=releases.c.promoted_at)
    connection.execute(update(releases).where(releases.c.release == live.release).values(promoted_at=None))
    return live_again


def live_release(connection: Connection) -> ReleaseRow | None:
    """Return the live release, if there is one."""
    row = connection.execute(select(*_COLUMNS).where(releases.c.status == "live")).one_or_none()
    return None if row is None else _release(row)


def named_release(connection: Connection, release: str | None = None) -> ReleaseRow:
    """Return a release by its name; the live one unless named.

    Raises:
        ConfigError: there is none of this name, and the message has the nearest one; or none is live.
    """
    if release is None:
        if (live := live_release(connection)) is None:
            raise ConfigError("no release is live: `leadre train` makes one, `leadre release promote` makes it live")
        return live
    row = connection.execute(select(*_COLUMNS).where(releases.c.release == release)).one_or_none()
    if row is None:
        known = connection.scalars(select(releases.c.release))
        raise not_there("release", release, known, lists="leadre release list")
    return _release(row)


def named_or_newest(connection: Connection, release: str | None) -> ReleaseRow:
    """Return a release by its name; without one, that which was trained last.

    Raises:
        ConfigError: there is no such release, or none at all.
    """
    if release is not None:
        return named_release(connection, release)
    if newest := list_releases(connection)[:1]:
        return newest[0]
    raise ConfigError("there is no release yet: `leadre train` makes one")


def list_releases(connection: Connection) -> list[ReleaseRow]:
    """Return all releases, newest first."""
    rows = connection.execute(select(*_COLUMNS).order_by(releases.c.created_at.desc(), releases.c.sequence.desc()))
    return [_release(row) for row in rows]


def indexes_seen_until(connection: Connection) -> dict[str, datetime]:
    """Return, for every index whose codebooks were fitted on behaviors, until when they were read; others read none."""
    query = text("""
        SELECT index_version, min(event_at) FROM semantic_ids JOIN index_versions USING (index_version)
        WHERE recipe ->> 'signal' = 'collaborative' GROUP BY index_version
    """)
    return {version: until for version, until in connection.execute(query)}  # noqa: C416 - rows are not pairs to mypy


def _lock(connection: Connection) -> None:
    """Let nobody else promote before this transaction ends. A row's lock is not enough: at first no row is live."""
    connection.execute(text("LOCK TABLE releases IN SHARE ROW EXCLUSIVE MODE"))


def _make_live(connection: Connection, release: str, *, promoted_at: Any) -> ReleaseRow:
    connection.execute(update(releases).where(releases.c.status == "live").values(status="retired"))
    statement = (
        update(releases)
        .where(releases.c.release == release)
        .values(status="live", promoted_at=promoted_at, sequence=literal_column("DEFAULT"))
    )
    return _release(connection.execute(statement.returning(*_COLUMNS)).one())


def _release(row: Row[Any]) -> ReleaseRow:
    return ReleaseRow(**cast(dict[str, Any], dict(row._mapping)))
