"""Data, index and release: each missing in turn, and files that were altered or lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, text

from leadre.pipelines.doctor import release
from leadre.settings import Settings
from leadre.store.records.database import connect, transaction


@pytest.fixture
def filled(well: Settings) -> Iterator[Connection]:
    database = connect(well.database_url)
    with transaction(database) as opened:
        yield opened
    database.dispose()


def test_an_empty_catalog_says_what_fills_it(connection: Connection) -> None:
    (found,) = release.data(connection)
    assert (found.state, found.run) == ("fault", "leadre import parquet FOLDER")


def test_behaviors_without_summaries_say_what_makes_them(filled: Connection) -> None:
    (found,) = release.data(filled)
    assert (found.state, found.run) == ("fault", "leadre summarize")
    filled.execute(text("TRUNCATE behaviors CASCADE"))
    (found,) = release.data(filled)
    assert "no behaviors" in found.said


def test_without_an_index_a_release_or_a_live_one_the_next_step_is_named(filled: Connection, well: Settings) -> None:
    assert [it.state for it in release.release(filled, well)] == ["ok", "ok"]
    filled.execute(text("UPDATE releases SET status = 'candidate', promoted_at = NULL"))
    (found,) = release.release(filled, well)
    assert (found.state, found.run) == ("fault", "leadre release promote")
    filled.execute(text("DELETE FROM releases"))
    (found,) = release.release(filled, well)
    assert (found.state, found.run) == ("fault", "leadre train")
    filled.execute(text("DELETE FROM index_versions"))
    (found,) = release.release(filled, well)
    assert (found.state, found.run) == ("fault", "leadre index build")


def test_an_altered_byte_of_the_index_is_a_fault(filled: Connection, well: Settings) -> None:
    folder = (well.indexes / "i1").resolve()
    file = max(
        (path for path in folder.rglob("*") if path.name != "manifest.json"), key=lambda path: path.stat().st_size
    )
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    found = release.release(filled, well)[-1]
    assert (found.check, found.state) == ("index", "fault")
    assert file.name in found.said


def test_a_live_release_whose_folder_is_gone_is_a_fault(filled: Connection, well: Settings) -> None:
    (well.releases / "r1" / "manifest.json").unlink()
    found = release.release(filled, well)[0]
    assert (found.check, found.state, found.run) == ("release", "fault", "leadre release rollback")
