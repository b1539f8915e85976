"""Old months go, into a file first where one is wanted; what still holds of a user stays."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pyarrow import parquet
from sqlalchemy import Engine, Table, select

from leadre.errors import ArtifactIncomplete
from leadre.pipelines.retention import OldMonth, drop_old_months
from leadre.settings import Settings
from leadre.store.records import partitions
from leadre.store.records.database import connect, transaction
from leadre.store.records.tables import behavior_sequences, interest_summaries, retrieval_log

NOW = datetime(2026, 6, 15, tzinfo=UTC)
JANUARY, MARCH, JUNE = (datetime(2026, month, 20, 3, 4, 5, 678_901, tzinfo=UTC) for month in (1, 3, 6))


@pytest.fixture
def database(settings: Settings) -> Iterator[Engine]:
    engine = connect(settings.database_url)
    try:
        yield engine
    finally:
        engine.dispose()


def write(database: Engine, table: Table, *rows: dict[str, object]) -> None:
    with transaction(database) as connection:
        partitions.ensure_months(connection, table.name, [row["event_at"] for row in rows])
        connection.execute(table.insert(), list(rows))


def summary(user_id: int, at: datetime, *categories: str) -> dict[str, object]:
    return {"user_id": user_id, "event_at": at, "categories": list(categories), "counts": [1] * len(categories)}


def sequence(user_id: int, at: datetime, *items: int, domain: str = "ad") -> dict[str, object]:
    none = dict.fromkeys(("actions", "titles"), ["x"] * len(items))
    return {
        "user_id": user_id,
        "domain": domain,
        "event_at": at,
        "item_ids": list(items),
        **none,
        "occurred_at_s": [0.5] * len(items),
        "ordinals": [0] * len(items),
    }


def logged(user_id: int, at: datetime) -> dict[str, object]:
    return {
        "user_id": user_id,
        "event_at": at,
        "behavior_at": None if user_id % 2 else at,
        "release": "r",
        "index_version": "ü",
        "retrieved_ad_ids": [2**62, user_id][:user_id],
        "record": bytes([0, user_id, 255]),
    }


def read(database: Engine, table: Table) -> list[dict[str, object]]:
    with transaction(database) as connection:
        return [dict(row) for row in connection.execute(select(table).order_by(*table.primary_key)).mappings()]


def test_months_before_the_bound_go_and_the_others_stay(database: Engine) -> None:
    write(database, retrieval_log, logged(1, JANUARY), logged(1, MARCH), logged(2, JUNE))
    assert drop_old_months(database, now=NOW, days=60, export=None) == [
        OldMonth(name=f"retrieval_log_2026_{month}", still_valid=0, exported=None) for month in ("01", "03")
    ]
    assert [row["event_at"] for row in read(database, retrieval_log)] == [JUNE]
    assert drop_old_months(database, now=NOW, days=60, export=None) == []


@pytest.mark.parametrize("table", [interest_summaries, behavior_sequences, retrieval_log], ids=lambda table: table.name)
def test_an_exported_month_holds_every_value(database: Engine, table: Table, tmp_path: Path) -> None:
    make = {"interest_summaries": summary, "behavior_sequences": sequence, "retrieval_log": logged}[table.name]
    rows = [make(user_id, JANUARY) for user_id in range(4)]
    write(database, table, *rows, make(5, JANUARY + timedelta(days=1)))
    before = read(database, table)
    (month,) = drop_old_months(database, now=NOW, days=60, export=tmp_path)
    assert month.exported == tmp_path / table.name / f"{table.name}_2026_01.parquet"
    assert sorted(parquet.read_table(month.exported).to_pylist(), key=lambda row: row["user_id"]) == before
    assert read(database, table) == []
    assert [path.name for path in month.exported.parent.iterdir()] == [month.exported.name]


def test_a_month_that_is_written_again_does_not_replace_the_file_of_before(database: Engine, tmp_path: Path) -> None:
    for user_id in (1, 2):
        write(database, retrieval_log, logged(user_id, JANUARY))
        drop_old_months(database, now=NOW, days=60, export=tmp_path)
    files = sorted((tmp_path / "retrieval_log").iterdir())
    assert [file.name for file in files] == ["retrieval_log_2026_01-2.parquet", "retrieval_log_2026_01.parquet"]
    assert [parquet.read_table(file)["user_id"].to_pylist() for file in files] == [[2], [1]]


def test_what_still_holds_of_a_user_keeps_its_month_until_a_newer_row_says_otherwise(database: Engine) -> None:
    write(database, interest_summaries, summary(1, JANUARY, "tea"), summary(2, JANUARY, "toys"), summary(2, MARCH))
    write(database, behavior_sequences, sequence(1, JANUARY, 5), sequence(1, JANUARY, 6, domain="content"))
    write(database, behavior_sequences, sequence(1, JUNE, domain="content"))

    def kept() -> dict[str, int]:
        return {month.name: month.still_valid for month in drop_old_months(database, now=NOW, days=60, export=None)}

    for _ in range(2):
        assert kept() == {"interest_summaries_2026_01": 1, "behavior_sequences_2026_01": 1}
    write(database, interest_summaries, summary(1, JUNE))
    write(database, behavior_sequences, sequence(1, JUNE))
    assert kept() == {
        "interest_summaries_2026_01": 0,
        "interest_summaries_2026_03": 0,
        "behavior_sequences_2026_01": 0,
    }


def test_dropping_a_month_never_makes_an_older_row_the_newest_again(database: Engine) -> None:
    write(database, interest_summaries, summary(1, JANUARY, "tea"), summary(2, JANUARY, "toys"), summary(2, MARCH))
    drop_old_months(database, now=NOW, days=60, export=None)  # January stays for user 1
    newest = {row["user_id"]: row["categories"] for row in read(database, interest_summaries)}
    assert newest == {1: ["tea"], 2: []}


def test_a_file_that_lacks_rows_drops_nothing(
    database: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(database, retrieval_log, logged(1, JANUARY), logged(2, JANUARY))
    whole = partitions.select
    monkeypatch.setattr(partitions, "select", lambda month: whole(month).limit(1))
    with pytest.raises(ArtifactIncomplete, match="holds 1 of the 2 rows of retrieval_log_2026_01"):
        drop_old_months(database, now=NOW, days=60, export=tmp_path)
    assert len(read(database, retrieval_log)) == 2
    assert not list(tmp_path.rglob("*.parquet"))
    monkeypatch.undo()
    (month,) = drop_old_months(database, now=NOW, days=60, export=tmp_path)
    assert month.exported is not None
