from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select

from leadre.domain.ads import Ad
from leadre.domain.behavior import Domain
from leadre.domain.identity import stable_id
from leadre.errors import InvalidInput
from leadre.store.importers.amazon import import_amazon
from leadre.store.importers.load import ImportCounts
from leadre.store.records.catalog import ItemLabel, item_labels, read_ads
from leadre.store.records.events import ACTIONS, DOMAINS, read_sequences
from leadre.store.records.tables import ads, users

ITEMS = [
    {
        "item_id": 1,
        "original_id": "A0000001",
        "title": "Lu  Rose\tCream",
        "keyphrase": "rose cream",
        "brand": "Lu",
        "categories": ["Skin", "Face", "Cream", "Night"],
    },
    {"item_id": 2, "original_id": "A0000002", "title": "", "keyphrase": "sun oil", "brand": "", "categories": ["Sun"]},
    {"item_id": 3, "original_id": "A0000003", "title": "T" * 300, "keyphrase": "", "brand": "Lu", "categories": []},
    {"item_id": 4, "original_id": "A0000004", "title": None},
]
CONTENT = [
    {"content_id": 1, "title": "trail shoe", "brand": "Ko", "categories": ["Sports", "Running", "Shoes"]},
    {"content_id": 9, "title": "", "brand": "", "categories": ["Sports"]},
]
DAY = 86_400

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in ITEMS))
    rows = [(8, 2, 20), (8, 1, 20), (8, 3, 19), (8, 4, 21), (6, 3, 18)]
    lines = [f"{user}\t{item}\t{day * DAY}\n" for user, item, day in rows]
    (tmp_path / "interactions.tsv").write_text("user_id\titem_id\ttimestamp\n" + "".join(lines))
    return tmp_path


@pytest.fixture
def content_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("content")
    (folder / "content_items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in CONTENT))
    (folder / "content_events.tsv").write_text(f"user_id\tcontent_id\ttimestamp\n8\t9\t{19 * DAY}\n8\t1\t{19 * DAY}\n")
    return folder


def test_reviews_become_conversions_in_the_files_order(folder: Path, database_url: str, connection: Connection) -> None:
    counts = import_amazon(folder, database_url=database_url, now=NOW)
    assert counts == ImportCounts(ads=4, users=2, content_items=0, behaviors=5, impressions=0)
    read = read_sequences(connection)
    assert (read.users.tolist(), read.offsets.tolist()) == ([6, 8], [0, 1, 5])
    assert read.item_ids.tolist() == [3, 2, 1, 3, 4]  # two on one day, and one whose day goes backwards
    assert (read.occurred_at_s / DAY).tolist() == [18, 20, 20, 20, 21]
    assert {ACTIONS[action] for action in read.actions} == {"conversion"}
    assert connection.scalars(select(users.c.source_id).order_by("user_id")).all() == ["6", "8"]


def test_items_become_ads(folder: Path, database_url: str, connection: Connection) -> None:
    import_amazon(folder, database_url=database_url, now=NOW)
    cream, oil, long, bare = read_ads(connection)
    assert cream == Ad(
        ad_id=1,
        source_id="1",
        name="Lu Rose Cream",
        ad_type="product",
        first_category="Skin",
        second_category="Face",
        attributes=("brand_Lu", "Cream", "Night"),
        advertiser_id=stable_id("Lu"),
        bid=1.0,
        bid_simulated=True,
        created_at=datetime.fromtimestamp(18 * DAY, UTC),
    )
    assert (oil.name, oil.first_category, oil.second_category, oil.advertiser_id) == ("sun oil", "Sun", "", 0)
    assert (len(long.name), long.first_category) == (256, "")
    assert (bare.name, bare.attributes) == ("A0000004", ())


def test_another_department_is_the_content_domain(
    folder: Path, content_folder: Path, database_url: str, connection: Connection
) -> None:
    counts = import_amazon(folder, database_url=database_url, now=NOW, content_folder=content_folder)
    assert counts == ImportCounts(ads=4, users=2, content_items=2, behaviors=7, impressions=0)
    assert item_labels(connection, Domain.CONTENT) == {
        1: ItemLabel(title="trail shoe", category="Running"),
        9: ItemLabel(title="Sports", category="Sports"),
    }
    read = read_sequences(connection, domains=[Domain.CONTENT])
    assert (read.users.tolist(), read.item_ids.tolist()) == ([8], [9, 1])
    assert [(DOMAINS[domain], ACTIONS[action]) for domain, action in zip(read.domains, read.actions, strict=True)] == [
        ("content", "watch")
    ] * 2


def test_importing_again_changes_nothing(
    folder: Path, content_folder: Path, database_url: str, connection: Connection
) -> None:
    for _ in range(2):
        import_amazon(folder, database_url=database_url, now=NOW, content_folder=content_folder)
    assert len(read_sequences(connection).item_ids) == 7
    assert connection.scalar(select(func.count()).select_from(ads)) == 4


@pytest.mark.parametrize(
    ("name", "old", "new", "problem"),
    [
        ("interactions.tsv", "timestamp", "time", "the header is"),
        ("interactions.tsv", f"8\t1\t{20 * DAY}", "8\t1", "row 2: the row has 2 columns, expected 3"),
        ("interactions.tsv", f"8\t1\t{20 * DAY}", "8\t-1\t5", "row 2, column 'item_id'"),
        ("interactions.tsv", f"8\t1\t{20 * DAY}", f"8\t1\t{10**15}", "row 2, column 'timestamp'"),
        ("interactions.tsv", "8\t1\t", "8\t5\t", "interactions.tsv.*row 2, column 'item_id': 5 is not in ads"),
        ("items.jsonl", '{"item_id": 2', '{"item_id" 2', "row 2: the line is not JSON"),
        ("items.jsonl", '"item_id": 2', '"item_id": "two"', "row 2, column 'item_id'"),
        ("items.jsonl", '"item_id": 2', '"item_id": 1', "items.jsonl, row 2, column 'ad_id'"),
        ("items.jsonl", '["Sun"]', "[5]", "row 2, column 'categories'"),
        ("items.jsonl", '"sun oil"', "5", "row 2, column 'keyphrase': 5 is not a text"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_written(
    folder: Path, database_url: str, connection: Connection, name: str, old: str, new: str, problem: str
) -> None:
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))
    with pytest.raises(InvalidInput, match=problem):
        import_amazon(folder, database_url=database_url, now=NOW)
    assert read_ads(connection) == []


def test_a_folder_without_the_files_is_refused(tmp_path: Path, database_url: str) -> None:
    with pytest.raises(InvalidInput, match=r"interactions.tsv: the file does not exist"):
        import_amazon(tmp_path, database_url=database_url, now=NOW)
    (tmp_path / "interactions.tsv").write_text("user_id\titem_id\ttimestamp\n")
    with pytest.raises(InvalidInput, match="no rows below the header"):
        import_amazon(tmp_path, database_url=database_url, now=NOW)
