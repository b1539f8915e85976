from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from sqlalchemy import Connection, func, select

from leadre.domain.ads import Ad
from leadre.domain.identity import stable_id
from leadre.domain.targeting import EVERYBODY, Targeting
from leadre.domain.users import Profile
from leadre.errors import InvalidInput
from leadre.store.importers.load import ImportCounts, Progress
from leadre.store.importers.tabular import delimited
from leadre.store.importers.tabular.folder import import_tabular
from leadre.store.importers.tabular.rules import OPTIONAL, column_names
from leadre.store.records.catalog import profiles, read_ads
from leadre.store.records.events import ACTIONS, read_sequences
from leadre.store.records.tables import behaviors, impressions, metadata, users

FOLDER = {
    "ads.csv": """ad_id,name,ad_type,first_category,second_category,attributes,advertiser_id,bid,live,created_at
        SKU-1,"Lu, a\tcream",product,Beauty,Skin Care,brand_Lu|50 ml,Lu,0.25,yes,2025-01-01T00:00:00+00:00
        7,Bali,trip,,,,,,,
        """,
    "users.csv": "user_id,age,arpu\nann,22,1.5\n12,,\n0012,,\n",
    "content_items.csv": "content_id,title,category\n5,,Hotels\n",
    "behaviors.csv": """user_id,domain,action,item_id,occurred_at,ordinal
        ann,ad,click,SKU-1,1735700000,1
        ann,content,watch,5,1735700000.5,
        12,ad,conversion,7,2025-01-02T03:04:05+02:00,
        """,
    "impressions.csv": "user_id,ad_id,occurred_at,ecpm,clicked\nann,SKU-1,1735600000,12.5,1\n",
}


NOW = datetime(2026, 1, 1, tzinfo=UTC)


def load(folder: Path, database_url: str, *, progress: Progress | None = None) -> ImportCounts:
    done = import_tabular(
        folder, database_url=database_url, now=NOW, rejected=folder / "home" / "rejected.csv", progress=progress
    )
    assert not (folder / "home").exists()
    return done.counts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FOLDER.items():
        (tmp_path / name).write_text("".join(line.strip(" ") for line in content.splitlines(keepends=True)))
    return tmp_path


@pytest.fixture
def refused(database_url: str, connection: Connection) -> Callable[[Path, str], InvalidInput]:
    """Import a bad folder: it must be refused in these words, and leave nothing behind."""

    def check(folder: Path, problem: str) -> InvalidInput:
        with pytest.raises(InvalidInput, match=problem) as error:
            load(folder, database_url)
        for name in column_names():
            assert connection.scalar(select(func.count()).select_from(metadata.tables[name])) == 0
        return error.value

    return check


def test_a_folder_is_imported_whole(folder: Path, database_url: str, connection: Connection) -> None:
    told: list[tuple[str, int]] = []
    counts = load(folder, database_url, progress=lambda table, count: told.append((table, count)))
    assert counts == ImportCounts(ads=2, users=3, content_items=1, behaviors=3, impressions=1)
    read = [("ads", 2), ("users", 3), ("content_items", 1), ("behaviors", 3), ("impressions", 1)]
    read += [("written", rows) for rows in (2, 5, 6, 9, 10)]
    assert list(dict.fromkeys(told)) == read

    first = datetime.fromtimestamp(1735600000, UTC)
    cream = Ad(
        ad_id=stable_id("SKU-1"),
        source_id="SKU-1",
        name="Lu, a cream",
        ad_type="product",
        first_category="Beauty",
        second_category="Skin Care",
        attributes=("brand_Lu", "50 ml"),
        advertiser_id=stable_id("Lu"),
        bid=0.25,
        created_at=datetime(2025, 1, 1, tzinfo=UTC),
    )
    bali = Ad(
        ad_id=7,
        source_id="7",
        name="Bali",
        ad_type="trip",
        first_category="",
        second_category="",
        attributes=(),
        advertiser_id=0,
        bid=1.0,
        bid_simulated=True,
        created_at=first,
    )
    assert read_ads(connection) == [bali, cream]
    ann = stable_id("ann")
    assert profiles(connection, [ann]) == {ann: Profile(user_id=ann, age=22, arpu=1.5)}
    known = connection.execute(select(users.c.source_id, users.c.user_id, users.c.event_at)).all()
    assert {tuple(row) for row in known} == {("ann", ann, first), ("12", 12, first), ("0012", stable_id("0012"), first)}
    read = read_sequences(connection)
    assert read.item_ids.tolist() == [7, cream.ad_id, 5]
    assert [ACTIONS[action] for action in read.actions] == ["conversion", "click", "watch"]
    assert connection.execute(select(impressions.c.ecpm, impressions.c.clicked)).one() == (12.5, True)


def _target(folder: Path, targeting: str, starts_at: str, ends_at: str) -> None:
    (folder / "ads.csv").write_text(
        "ad_id,name,targeting,starts_at,ends_at,budget_exhausted\n"
        f'SKU-1,Lu,"{targeting.replace(chr(34), 2 * chr(34))}",{starts_at},{ends_at},yes\n7,Bali,,,,\n'
    )


def test_targeting_schedules_budgets_and_devices_are_imported(
    folder: Path, database_url: str, connection: Connection
) -> None:
    _target(folder, '{"age": [18, 45], "residence": ["Beijing"]}', "1735700000", "2025-02-01T00:00:00Z")
    (folder / "users.csv").write_text("user_id,device\nann,iOS\n12,\n")
    load(folder, database_url)
    bali, cream = read_ads(connection)
    assert cream.targeting == Targeting.of({"age": [18, 45], "residence": ["Beijing"]})
    assert (cream.starts_at, cream.ends_at) == (
        datetime.fromtimestamp(1735700000, UTC),
        datetime(2025, 2, 1, tzinfo=UTC),
    )
    assert cream.budget_exhausted
    assert (bali.targeting, bali.starts_at, bali.ends_at, bali.budget_exhausted) == (EVERYBODY, None, None, False)
    assert {user.device for user in profiles(connection, [stable_id("ann"), 12]).values()} == {"iOS", ""}


@pytest.mark.parametrize(
    ("targeting", "starts_at", "ends_at", "column", "problem"),
    [
        ('{"age": [18', "", "", "targeting", "is not JSON"),
        ("[" * 100_000, "", "", "targeting", "is not JSON"),
        ("[1]", "", "", "targeting", "targeting is an object"),
        ('{"residense": ["x"]}', "", "", "targeting", "did you mean 'residence'"),
        ('{"age": [45, 18]}', "", "", "targeting", "lowest, highest"),
        ("", "2025-02-01", "", "starts_at", "no UTC offset"),
        ("", "1735700000", "1735700000", "ends_at", "is not after starts_at"),
    ],
)
def test_a_bad_targeting_or_schedule_names_row_and_column(
    folder: Path,
    refused: Callable[[Path, str], InvalidInput],
    targeting: str,
    starts_at: str,
    ends_at: str,
    column: str,
    problem: str,
) -> None:
    _target(folder, targeting, starts_at, ends_at)
    error = refused(folder, problem)
    assert (error.source, error.row, error.column) == (str(folder / "ads.csv"), 1, column)


def test_importing_again_changes_nothing(folder: Path, database_url: str, connection: Connection) -> None:
    first = load(folder, database_url)
    before = connection.execute(select(behaviors).order_by("behavior_id")).all()
    assert load(folder, database_url) == first
    connection.rollback()
    assert connection.execute(select(behaviors).order_by("behavior_id")).all() == before


def test_parquet_and_csv_give_the_same(folder: Path, database_url: str, connection: Connection) -> None:
    load(folder, database_url)
    written = {name: connection.execute(select(metadata.tables[name])).all() for name in ("behaviors", "ads")}
    for name in ("behaviors.csv", "ads.csv"):
        (folder / name).unlink()
    at = pa.array([1735700000_000_000_000, 1735700000_500_000_000, 1735779845_000_000_000], pa.timestamp("ns", "UTC"))
    behavior_columns = {
        "user_id": ["ann", "ann", "12"],
        "domain": pa.array(["ad", "content", "ad"]).dictionary_encode(),
        "action": ["click", "watch", "conversion"],
        "item_id": ["SKU-1", "5", "7"],
        "occurred_at": at,
        "ordinal": [1.0, None, None],
    }
    parquet.write_table(pa.table(behavior_columns), folder / "behaviors.parquet")
    ad_columns = {
        "ad_id": ["SKU-1", "7"],
        "name": ["Lu, a cream", "Bali"],
        "ad_type": ["product", "trip"],
        "first_category": ["Beauty", None],
        "second_category": ["Skin Care", None],
        "attributes": [["brand_Lu", "50 ml"], None],
        "advertiser_id": ["Lu", None],
        "bid": pa.array([0.25, None], pa.float32()),
        "live": [True, None],
        "created_at": [datetime(2025, 1, 1, tzinfo=UTC), None],
    }
    parquet.write_table(pa.table(ad_columns), folder / "ads.parquet")
    load(folder, database_url)
    connection.rollback()
    for name, before in written.items():
        assert connection.execute(select(metadata.tables[name])).all() == before


def test_optional_files_may_be_absent(folder: Path, database_url: str) -> None:
    for name in OPTIONAL:
        (folder / f"{name}.csv").unlink()
    lines = (folder / "behaviors.csv").read_text().splitlines(keepends=True)
    (folder / "behaviors.csv").write_text("".join(line for line in lines if "content" not in line))
    counts = load(folder, database_url)
    assert counts == ImportCounts(ads=2, users=3, content_items=0, behaviors=2, impressions=0)


@pytest.mark.parametrize("name", sorted(set(column_names()) - OPTIONAL))
def test_the_others_may_not(folder: Path, refused: Callable[[Path, str], InvalidInput], name: str) -> None:
    (folder / f"{name}.csv").unlink()
    refused(folder, f"neither {name}.csv nor {name}.parquet")


@pytest.mark.parametrize(
    ("name", "old", "new", "row", "column", "problem"),
    [
        ("ads.csv", "0.25", "-0.25", 1, "bid", "not a number from 0"),
        ("ads.csv", "0.25", "nan", 1, "bid", "not a number from 0"),
        ("ads.csv", "Bali", "", 2, "name", "empty"),
        ("ads.csv", "Bali", "x" * 300, 2, "name", "300 characters"),
        ("ads.csv", "7,Bali", "SKU-1,Bali", 2, "ad_id", "already in row 1"),
        ("ads.csv", "+00:00", "", 1, "created_at", "no UTC offset"),
        ("users.csv", "22", "220", 1, "age", "from 0 to 150"),
        ("users.csv", "12,,\n", "ann,,\n", 2, "user_id", "already in row 1"),
        ("content_items.csv", "Hotels", "", 1, None, "both empty"),
        ("behaviors.csv", "conversion", "convert", 3, "action", "did you mean 'conversion'"),
        ("behaviors.csv", "content", "contents", 2, "domain", "did you mean 'content'"),
        ("behaviors.csv", "12,ad", "99,ad", 3, "user_id", "'99' is not in users"),
        ("behaviors.csv", "conversion,7", "conversion,8", 3, "item_id", "'8' is not in ads"),
        ("behaviors.csv", "watch,5", "watch,6", 2, "item_id", "'6' is not in content_items"),
        ("impressions.csv", "12.5", "-1", 1, "ecpm", "not a number from 0"),
        ("impressions.csv", "12.5", "", 1, "ecpm", "empty"),
        ("impressions.csv", "SKU-1", "SKU-2", 1, "ad_id", "'SKU-2' is not in ads"),
    ],
)
def test_a_bad_value_names_file_row_and_column_and_nothing_is_written(
    folder: Path,
    refused: Callable[[Path, str], InvalidInput],
    name: str,
    old: str,
    new: str,
    row: int,
    column: str | None,
    problem: str,
) -> None:
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))
    error = refused(folder, problem)
    assert (error.source, error.row, error.column) == (str(folder / name), row, column)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "is empty"),
        ("user_id,age\n", "holds no rows"),
        ("user_id,aeg\n1,2\n", r"column 'aeg': unknown column; did you mean 'age'\? known are user_id, age, sex"),
        ("user_id,xyzzy\n1,2\n", r"column 'xyzzy': unknown column; known are"),
        (
            "aeg,xyzzy,user_id\n2,3,4\n",
            r"users.csv: unknown columns aeg, xyzzy; did you mean 'age'\? known are user_id, age",
        ),
        ("age\n2\n", "column 'user_id': the column is missing; the file has age"),
        ("user_id,age,age\n1,2,3\n", "column 'age': the column appears twice"),
        ("user_id,age\n1,2\n2,3,4\n", "row 2: the row has 3 columns, the header 2"),
        ("user_id,age\n1,2\n2\n", "row 2: the row has 1 columns, the header 2"),
    ],
)
def test_a_bad_file_is_refused(
    folder: Path, refused: Callable[[Path, str], InvalidInput], content: str, problem: str
) -> None:
    (folder / "users.csv").write_text(content)
    assert refused(folder, problem).source == str(folder / "users.csv")


def test_all_missing_columns_are_named_at_once(folder: Path, refused: Callable[[Path, str], InvalidInput]) -> None:
    (folder / "ads.csv").write_text("sku,title\n1,Shoes\n")
    found = refused(folder, "the columns ad_id, name are missing; the file has sku, title; ")
    assert "--columns ad_id=NAME,name=NAME names them" in str(found)


def test_bytes_that_are_not_utf8_are_refused(folder: Path, refused: Callable[[Path, str], InvalidInput]) -> None:
    (folder / "users.csv").write_bytes(b"user_id,sex\n1,\xff\xfe\n")
    refused(folder, "is not UTF-8 .line 2, byte 0xff")


def test_a_file_that_is_not_parquet_is_refused(folder: Path, refused: Callable[[Path, str], InvalidInput]) -> None:
    (folder / "users.csv").rename(folder / "users.parquet")
    refused(folder, "cannot be read after row 0")


def test_two_files_for_one_table_are_refused(folder: Path, refused: Callable[[Path, str], InvalidInput]) -> None:
    (folder / "users.parquet").touch()
    refused(folder, "both users.csv and users.parquet")


def test_a_byte_order_mark_and_quoted_lines_are_read(folder: Path, database_url: str, connection: Connection) -> None:
    users_csv = folder / "users.csv"
    users_csv.write_bytes(
        b"\xef\xbb\xbf" + users_csv.read_bytes().replace(b"age,arpu", b"residence,arpu").replace(b"22", b'"a\nb"')
    )
    load(folder, database_url)
    ann = stable_id("ann")
    assert profiles(connection, [ann])[ann].residence == "a b"


@pytest.mark.parametrize(
    ("last", "problem"), [("9999,-5", "row 401, .*from 0 to 150"), ("9999", "row 401: the row has 1 columns")]
)
def test_rows_are_numbered_across_batches(
    folder: Path,
    refused: Callable[[Path, str], InvalidInput],
    monkeypatch: pytest.MonkeyPatch,
    last: str,
    problem: str,
) -> None:
    monkeypatch.setattr(delimited, "_BLOCK_BYTES", 512)
    lines = [f"{number},5\n" for number in range(1000, 1400)]
    (folder / "users.csv").write_text("user_id,age\n" + "".join(lines) + last + "\n")
    refused(folder, problem)
