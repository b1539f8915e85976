from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Connection, func, select

from leadre.errors import InvalidInput
from leadre.store.records.bulk import copy_rows
from leadre.store.records.tables import ads, content_items, impressions, users

ADS = ("ad_id", "source_id", "name", "attributes", "bid", "live", "event_at")
AT = datetime(2025, 3, 4, 5, 6, 7, 89, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
HOSTILE = st.sampled_from(
    ["\\N", "\\.", "a\tb", "a\nb\r\n", '"', '{"a",b}', "NULL", "\\\\t", "", " ", "'; DROP TABLE ads; --"]
)


def ad(ad_id: int, **changes: Any) -> tuple[Any, ...]:
    row = {"source_id": f"s{ad_id}", "name": "n", "attributes": (), "bid": 1.5, "live": True, "event_at": AT, **changes}
    return (ad_id, *(row[column] for column in ADS[1:]))


def write(connection: Connection, rows: Any, **arguments: Any) -> int:
    return copy_rows(connection, ads, ADS, rows, key=["ad_id"], **arguments)


@given(
    name=TEXT | HOSTILE,
    attributes=st.lists(TEXT | HOSTILE, max_size=4),
    bid=st.floats(min_value=0, allow_infinity=False, allow_nan=False),
    live=st.booleans(),
    at=st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(timezone(timedelta(hours=-7)))),
    ad_id=st.integers(-(2**63), 2**63 - 1),
)
@hypothesis_settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_value_comes_back_as_it_went_in(
    connection: Connection, name: str, attributes: list[str], bid: float, live: bool, at: datetime, ad_id: int
) -> None:
    connection.execute(ads.delete())
    write(connection, [ad(ad_id, name=name, attributes=attributes, bid=bid, live=live, event_at=at)])
    row = connection.execute(select(*(ads.c[column] for column in ADS))).one()
    assert tuple(row) == (ad_id, f"s{ad_id}", name, attributes, bid, live, at)


def test_none_is_null(connection: Connection) -> None:
    copy_rows(connection, users, ("user_id", "source_id", "age", "event_at"), [(3, "u", None, AT)], key=["user_id"])
    assert connection.scalars(select(users.c.age)).one() is None


def test_update_replaces_and_writing_again_changes_nothing(connection: Connection) -> None:
    assert write(connection, [ad(1), ad(2), ad(3)]) == 3
    assert write(connection, [ad(1), ad(2, name="new"), ad(3)]) == 1
    assert write(connection, [ad(2, name="new")]) == 0
    assert connection.scalars(select(ads.c.name).order_by(ads.c.ad_id)).all() == ["n", "new", "n"]


def test_nothing_leaves_what_is_there(connection: Connection) -> None:
    write(connection, [ad(1)])
    assert write(connection, [ad(1, name="new"), ad(2)], on_conflict="nothing") == 1
    assert connection.scalars(select(ads.c.name).where(ads.c.ad_id == 1)).one() == "n"


def test_of_rows_with_one_key_the_last_counts(connection: Connection) -> None:
    long_and_short = [ad(1, name="x" * 5000), ad(2), ad(1, name="second"), ad(1, name="third")]
    assert write(connection, long_and_short) == 2
    assert connection.scalars(select(ads.c.name).where(ads.c.ad_id == 1)).one() == "third"


def test_columns_that_are_not_given_stay(connection: Connection) -> None:
    columns = ("user_id", "source_id", "event_at")
    copy_rows(connection, users, (*columns, "arpu"), [(5, "u", AT, 2.5)], key=["user_id"])
    copy_rows(connection, users, columns, [(5, "renamed", AT)], key=["user_id"])
    assert connection.execute(select(users.c.source_id, users.c.arpu)).one() == ("renamed", 2.5)


@pytest.mark.parametrize(
    ("changes", "column", "problem"),
    [
        ({"name": "a\0b"}, "name", "NUL"),
        ({"attributes": ["fine", "a\0b"]}, "attributes", "NUL"),
        ({"name": "\ud800"}, "name", "surrogate"),
        ({"bid": float("nan")}, "bid", "finite"),
        ({"event_at": datetime(2025, 1, 1)}, "event_at", "offset"),
        ({"attributes": "text"}, "attributes", "list"),
        ({"name": 7}, "name", "not a text"),
    ],
)
def test_a_bad_value_names_row_and_column(
    connection: Connection, changes: dict[str, Any], column: str, problem: str
) -> None:
    with pytest.raises(InvalidInput, match=problem) as error:
        write(connection, [ad(1), ad(2), ad(3, **changes)])
    assert (error.value.row, error.value.column) == (3, column)


@pytest.mark.parametrize("ad_id", [2**63, -(2**63) - 1, 1.5])
def test_an_id_beyond_64_bits_is_refused(connection: Connection, ad_id: float) -> None:
    with pytest.raises(InvalidInput, match="64-bit"):
        copy_rows(connection, ads, ADS, [(ad_id, *ad(1)[1:])], key=["ad_id"])


def test_a_row_of_another_length_is_refused(connection: Connection) -> None:
    with pytest.raises(InvalidInput, match="row 2: the row has 6 values, its columns are 7"):
        write(connection, [ad(1), ad(2)[:-1]])


def test_a_broken_constraint_is_invalid_input(connection: Connection) -> None:
    with pytest.raises(InvalidInput, match="ck_ads_bid"):
        write(connection, [ad(1, bid=-0.5)])


def test_an_error_of_the_source_reaches_the_caller(connection: Connection) -> None:
    def rows() -> Iterator[tuple[Any, ...]]:
        yield ad(1)
        raise InvalidInput("mine", row=2)

    with pytest.raises(InvalidInput, match="mine"):
        write(connection, rows())


def test_rows_stream_in_chunks_and_two_loads_share_a_transaction(connection: Connection) -> None:
    columns = ("content_id", "source_id", "title")
    count = 3001  # of 1,000 characters: three chunks
    for _ in range(2):
        rows = ((number, str(number), "t" * 1000) for number in range(count))
        copy_rows(connection, content_items, columns, rows, key=["content_id"])
    assert connection.scalar(select(func.count()).select_from(content_items)) == count


def test_no_rows_are_no_work(connection: Connection) -> None:
    columns = ("impression_id", "user_id", "ad_id", "occurred_at", "ecpm")
    assert copy_rows(connection, impressions, columns, [], key=["impression_id"]) == 0


def test_a_rolled_back_transaction_keeps_nothing(connection: Connection) -> None:
    write(connection, [ad(1)])
    connection.rollback()
    assert connection.scalars(select(ads.c.ad_id)).all() == []
