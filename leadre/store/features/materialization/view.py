"""A feature view as materialization sees it: where its rows are, and how they go to Redis. LEADRE §4.4.1.

Rows come in COPY's binary format, so that what PostgreSQL and Redis write alike goes straight through.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from struct import Struct

from leadre.errors import ConfigError, InvalidInput
from leadre.store.features.layout import around_id, field, timestamp_field, timestamp_value
from leadre.store.features.materialization.values import KINDS
from leadre.store.features.online_rows import Row

_EPOCH_US = 946_684_800_000_000
"""PostgreSQL's epoch, 2000-01-01, as Unix microseconds."""
_ID, _TIME, _FEATURES = slice(6, 14), slice(18, 26), 26
"""Where a row's id, time and features are: behind a count of columns (2 bytes), a length (4 bytes) before each."""
_LENGTH = Struct(">i")
_COLUMNS = b"\0\0"
"""Stands for COPY's count of columns, which nobody reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What materialization needs of a feature view. Plain data, for other processes.

    Args:
        name: the view's.
        project: of feature_store.yaml.
        source: the batch source as it stands after FROM; it has the column `changed_in` (docs/adr/0006).
        join_key: column of the entity's id.
        event_at: column of the time from which a row counts.
        created_at: column that decides between rows of one time; None: none does.
        features: name and Feast's type of each, e.g. `("age", "Int64")`.
        fence: SQL over the source that comes before time when rows are put in order; None: time alone.
        in_place: whether rows of the source are updated in place, so that a row replaces one of an equal time.
        ttl_s: seconds after its last write at which a key expires; 0: never.
    """

    name: str
    project: str
    source: str
    join_key: str
    event_at: str
    created_at: str | None
    features: tuple[tuple[str, str], ...]
    fence: str | None
    in_place: bool
    ttl_s: int

    def __post_init__(self) -> None:
        for name, kind in self.features:
            if kind not in KINDS:
                raise ConfigError(
                    f"feature {name} of {self.name} is of type {kind}, which leadre cannot materialize: use one of "
                    f"{', '.join(KINDS)}, or leave the view to `feast materialize`"
                )

    def copy_newest(self, condition: str) -> str:
        """Return the COPY of each entity's newest row, of the rows of the source that fulfil an SQL condition."""
        # All fall, as an index on id and time has them when it is read backwards: no sort of wide rows.
        order = f'"{self.join_key}" DESC, {self._order}'
        return (
            f'COPY (SELECT DISTINCT ON ("{self.join_key}") {self._columns} FROM {self.source} AS source '  # noqa: S608 - our own definitions
            f"WHERE {condition} ORDER BY {order}) TO STDOUT (FORMAT binary)"
        )

    def newest_of(self, ids: str, until: str) -> str:
        """Return the SELECT of some entities' newest rows with event times up to an instant.

        Args:
            ids: SQL of an int8[].
            until: SQL of the instant.

        Returns:
            SQL that gives a row an entity that has any: the binary form of PostgreSQL's record of it, for `copied`.
        """
        return (
            f"SELECT record_send(newest) AS newest FROM unnest({ids}) AS asked (id), "  # noqa: S608 - our own definitions
            f'LATERAL (SELECT {self._columns} FROM {self.source} AS source WHERE "{self.join_key}" = asked.id '
            f'AND "{self.event_at}" <= {until} ORDER BY {self._order} LIMIT 1) AS newest'
        )

    def online(self, copied: Iterable[bytes]) -> Iterator[Row]:
        """Yield rows of that COPY as `online_rows.set_rows` takes them.

        Raises:
            InvalidInput: a value that Feast has no form for.
        """
        head, tail = around_id(self.join_key, self.project)
        time = timestamp_field(self.name)
        features = [(name, field(self.name, name), KINDS[kind][1]) for name, kind in self.features]
        for row in copied:
            time_us = int.from_bytes(row[_TIME], "big", signed=True) + _EPOCH_US
            fields, place = [time, timestamp_value(time_us * 1000)], _FEATURES
            for name, stored_as, encode in features:
                (length,) = _LENGTH.unpack_from(row, place)
                place += 4
                try:
                    # Null is -1 bytes long, and nothing at all in Feast's format.
                    fields += [stored_as, encode(row[place : place + length]) if length >= 0 else b""]
                except InvalidInput as error:
                    raise InvalidInput(error.problem, source=self.name, column=name) from None
                place += max(length, 0)
            yield head + row[_ID][::-1] + tail, fields

    @property
    def _columns(self) -> str:
        columns = [f'"{self.join_key}"::int8', f'"{self.event_at}"::timestamptz']
        return ", ".join([*columns, *(f'"{name}"::{KINDS[kind][0]}' for name, kind in self.features)])

    @property
    def _order(self) -> str:
        columns = [f'"{name}"' for name in (self.event_at, self.created_at) if name]
        return ", ".join(f"{of} DESC" for of in [*filter(None, [self.fence]), *columns])


def copied(record: bytes) -> bytes:
    """Return a row as COPY's binary format has it, of what `record_send` gives: there a type precedes each length."""
    parts, place = [_COLUMNS], 4
    while place < len(record):
        (length,) = _LENGTH.unpack_from(record, place + 4)
        end = place + 8 + max(length, 0)
        parts.append(record[place + 4 : end])
        place = end
    return b"".join(parts)
