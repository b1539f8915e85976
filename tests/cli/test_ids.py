"""`leadre ids`: the owner's ids and Feast's, both ways."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from leadre.cli import cli
from leadre.domain.ads import ContentItem
from leadre.domain.identity import stable_id
from leadre.domain.users import Profile
from leadre.errors import InvalidInput
from leadre.settings import Settings
from leadre.store.records.catalog import upsert_content_items, upsert_users
from leadre.store.records.database import connect, transaction


def run(*arguments: str, lines: str = "") -> str:
    done = CliRunner().invoke(cli, ["ids", *arguments], input=lines, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def catalog(environment: dict[str, str], settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        if name.startswith("LEADRE_"):
            monkeypatch.setenv(name, value)
    database, at = connect(settings.database_url), datetime(2026, 1, 1, tzinfo=UTC)
    with transaction(database) as connection:
        some = [Profile(user_id=7), Profile(user_id=stable_id("Jörg Ö"))]
        upsert_users(connection, some, event_at=at, source_ids=["7", "Jörg Ö"])
        upsert_content_items(connection, [ContentItem(content_id=7, source_id="7", title="Tea", category="")])
    database.dispose()


def test_ids_are_encoded_without_asking_anybody() -> None:
    assert (
        run("encode", "SKU-1", "7", "007")
        == f"source_id\tid\nSKU-1\t{stable_id('SKU-1')}\n7\t7\n007\t{stable_id('007')}\n"
    )
    said = run("encode", "7", "-", "--json", lines="Jörg Ö\r\n12\n")
    rows = [json.loads(line) for line in said.splitlines()]
    assert rows == [
        {"source_id": 7, "id": 7},
        {"source_id": "Jörg Ö", "id": stable_id("Jörg Ö")},
        {"source_id": 12, "id": 12},
    ]


def test_what_is_no_id_is_refused() -> None:
    with pytest.raises(InvalidInput, match="is no id"):
        run("encode", "-", lines="\n")


def test_ids_are_decoded_by_the_catalog_with_the_table_they_stand_in(catalog: None) -> None:
    ann = stable_id("Jörg Ö")
    assert run("decode", "7", str(ann), "8") == (
        f"id\ttable\tsource_id\n7\tusers\t7\n7\tcontent_items\t7\n{ann}\tusers\tJörg Ö\n8\t\t\n"
    )
    rows = [json.loads(line) for line in run("decode", "--json", "-", lines=f"{ann}\n8\n").splitlines()]
    assert rows == [
        {"id": ann, "table": "users", "source_id": "Jörg Ö"},
        {"id": 8, "table": None, "source_id": None},
    ]


def test_more_ids_than_are_asked_for_at_once_come_back_in_order(catalog: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leadre.cli.ids._AT_ONCE", 2)
    said = run("decode", "-", lines="8\n7\n9\n10\n11\n")
    assert [line.split("\t")[0] for line in said.splitlines()[1:]] == ["8", "7", "7", "9", "10", "11"]


@pytest.mark.parametrize("bad", ["SKU-1", "-1", "9223372036854775808", "1.0", ""])
def test_only_64_bit_ids_are_decoded(catalog: None, bad: str) -> None:
    with pytest.raises(InvalidInput, match="is no 64-bit id"):
        run("decode", "-", lines=f"{bad}\n")
