"""What each option of an import does, on small folders."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from sqlalchemy import Connection, text

from leadre.domain.identity import stable_id
from leadre.errors import InvalidInput
from leadre.store.importers.tabular import delimited
from leadre.store.importers.tabular.folder import Imported, import_tabular
from leadre.store.importers.tabular.options import ImportOptions, read_columns, read_encoding
from leadre.store.importers.tabular.rules import column_names

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AT = "2025-06-01T12:30:00+00:00"
FOLDER = {
    "ads": "ad_id,name\nSKU-1,Lu\nSKU-2,Bali\n",
    "users": "user_id,age\nann,22\nbob,33\n",
    "content_items": "content_id,title\nart-1,News\n",
    "behaviors": f"user_id,domain,action,item_id,occurred_at\nann,ad,click,SKU-1,{AT}\nbob,content,watch,art-1,{AT}\n",
    "impressions": f"user_id,ad_id,occurred_at,ecpm\nann,SKU-1,{AT},2.5\n",
}
Load = Callable[..., Imported]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for table, content in FOLDER.items():
        (tmp_path / f"{table}.csv").write_text(content)
    return tmp_path


@pytest.fixture
def load(folder: Path, database_url: str) -> Load:
    def run(**options: Any) -> Imported:
        return import_tabular(
            folder,
            database_url=database_url,
            now=NOW,
            rejected=folder / "home" / "rejected.csv",
            options=ImportOptions(**{"max_bad_share": 1.0, **options}),
        )

    return run


def add(folder: Path, table: str, *lines: str) -> None:
    with (folder / f"{table}.csv").open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def listed(folder: Path) -> list[tuple[str, ...]]:
    with (folder / "home" / "rejected.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["file", "row", "column", "value", "reason", "kind"]
    return [(file, row, column, value, kind) for file, row, column, value, _, kind in rows]


def behaviors(connection: Connection) -> list[tuple[Any, ...]]:
    query = """
        SELECT u.source_id, b.domain, b.action, coalesce(a.source_id, c.source_id) FROM behaviors b
        JOIN users u USING (user_id)
        LEFT JOIN ads a ON b.domain = 'ad' AND a.ad_id = b.item_id
        LEFT JOIN content_items c ON b.domain = 'content' AND c.content_id = b.item_id ORDER BY 1, 2, 3, 4
    """
    found = [tuple(row) for row in connection.execute(text(query))]
    connection.rollback()
    return found


@pytest.mark.parametrize(("separator", "said"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars"), (",", "commas")])
def test_a_separator_is_recognised_and_said(folder: Path, load: Load, separator: str, said: str) -> None:
    for path in folder.glob("*.csv"):
        path.write_text(path.read_text().replace(",", separator))
    done = load()
    assert done.counts.behaviors == 2
    assert [fact for fact in done.facts if "separated" in fact] == [
        f"{table}: values separated by {said}" for table in FOLDER
    ]


def test_lines_may_end_as_any_system_ends_them(folder: Path, load: Load) -> None:
    for path in folder.glob("*.csv"):
        path.write_bytes(b"\n" + path.read_bytes())
    for end in (b"\n", b"\r\n", b"\r"):
        for path in folder.glob("*.csv"):
            path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", end))
        assert load().counts.behaviors == 2


def test_a_header_of_several_lines_is_refused(folder: Path, load: Load) -> None:
    (folder / "users.csv").write_text('user_id,"a\nge"\n007,5\n')  # else the ids would be read as numbers
    with pytest.raises(InvalidInput, match=r"users.csv: a column's name holds a line break"):
        load()


def test_a_quote_that_nothing_closes_is_told(folder: Path, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "_BLOCK_BYTES", 1 << 10)
    add(folder, "users", '"eve,5', *(f"user_{number},5" for number in range(1000)))
    with pytest.raises(InvalidInput, match=r"users.csv: a row is longer than .* a double quote .* is never closed"):
        load(on_bad_row="skip")


def test_a_file_of_one_column_needs_no_separator(folder: Path, load: Load) -> None:
    (folder / "users.csv").write_text("user_id\nann\nbob\n")
    assert load().counts.users == 2


@pytest.mark.parametrize(
    ("encoding", "looks"), [("latin-1", "latin-1"), ("cp1252", "cp1252"), ("utf-16", "utf-16"), ("utf-16-le", None)]
)
def test_another_encoding_is_told_from_utf_8_and_read_when_named(
    folder: Path, load: Load, connection: Connection, encoding: str, looks: str | None
) -> None:
    name = "Crème €" if encoding == "cp1252" else "Crème"
    lines = "".join(f"SKU-{number},{name}\n" for number in range(20_000))  # beyond the first block that is looked at
    for path in folder.glob("*.csv"):
        path.write_bytes(path.read_text().encode(encoding))
    (folder / "ads.csv").write_bytes(f"ad_id,name\n{lines}".encode(encoding))
    with pytest.raises(InvalidInput, match=f"ads.csv: is not UTF-8.*looks like {looks or encoding}: --encoding"):
        load()
    load(encoding=read_encoding(encoding), on_bad_row="skip")
    assert connection.scalar(text("SELECT name FROM ads WHERE source_id = 'SKU-7'")) == name


def test_bytes_that_are_foreign_late_in_a_file_are_told_with_their_line(folder: Path, load: Load) -> None:
    plain = "".join(f"SKU-{number},Lu number {number}\n" for number in range(10_000))
    (folder / "ads.csv").write_bytes(f"ad_id,name\n{plain}SKU-L,Crème\n".encode("latin-1"))
    with pytest.raises(InvalidInput, match=r"line 10002, byte 0xe8\); it looks like latin-1: --encoding latin-1"):
        load(on_bad_row="skip")


def test_a_wrong_or_unknown_encoding_is_one_line(folder: Path, load: Load) -> None:
    (folder / "ads.csv").write_bytes(b"ad_id,name\nSKU-1,\x81\n")
    with pytest.raises(InvalidInput, match="is not in cp1252: byte 0x81 has no meaning there; --encoding latin-1"):
        load(encoding="cp1252")
    for name in ("klingon", "base64"):
        with pytest.raises(InvalidInput, match=f"there is no text encoding '{name}'; usual ones are utf-8, latin-1"):
            read_encoding(name)


def test_a_byte_order_mark_is_no_part_of_the_first_name(folder: Path, load: Load) -> None:
    for path in folder.glob("*.csv"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load().counts.behaviors == 2
    assert load(encoding="utf-8-sig").counts.behaviors == 2


def test_compressed_files_and_folders_of_parts_are_read_as_one_table(
    folder: Path, load: Load, connection: Connection
) -> None:
    (folder / "ads.csv").rename(folder / "ads.txt")
    (folder / "ads.csv.gz").write_bytes(gzip.compress((folder / "ads.txt").read_bytes()))
    with pa.CompressedOutputStream(str(folder / "users.csv.zst"), "zstd") as stream:
        stream.write((folder / "users.csv").read_bytes())
    (folder / "users.csv").unlink()
    header, *lines = (folder / "behaviors.csv").read_text().splitlines(keepends=True)
    (folder / "behaviors.csv").unlink()
    deep = folder / "behaviors" / "day=2025-06-01"
    deep.mkdir(parents=True)
    (deep / "part-0.csv").write_text(header + lines[0])
    (deep / "part-1.csv").write_text(header)  # engines write empty parts
    (folder / "behaviors" / "_SUCCESS").touch()
    (deep / ".part-0.csv.crc").touch()
    rows = [line.strip().split(",") for line in lines[1:]]
    columns = dict(zip(header.strip().split(","), zip(*rows, strict=True), strict=True))
    parquet.write_table(pa.table(columns), folder / "behaviors" / "part-2.snappy.parquet")
    assert load().counts.behaviors == 2
    assert behaviors(connection) == [("ann", "ad", "click", "SKU-1"), ("bob", "content", "watch", "art-1")]

    (deep / "part-1.csv").write_text(header + lines[0].replace("ann", "eve") + "short\n")
    load(on_bad_row="skip")
    name = "behaviors/day=2025-06-01/part-1.csv"
    assert listed(folder) == [(name, "2", "", "short", "wrong_width"), (name, "1", "user_id", "eve", "unknown_user")]


def test_broken_parts_are_told_by_their_path(folder: Path, load: Load) -> None:
    parts = folder / "users.parquet"
    parts.mkdir()
    with pytest.raises(InvalidInput, match=r"both users.csv and users.parquet; remove one"):
        load()
    (folder / "users.csv").unlink()
    with pytest.raises(InvalidInput, match=r"users.parquet: the folder holds no parts"):
        load()
    (parts / "notes.txt").touch()
    with pytest.raises(InvalidInput, match=r"notes.txt: is none of .csv, .csv.gz, .csv.zst, .parquet"):
        load()
    (parts / "notes.txt").rename(parts / "part.csv.gz")
    (parts / "part.csv.gz").write_bytes(gzip.compress(b"user_id\n" + b"ann\n" * 10_000)[:30])
    with pytest.raises(InvalidInput, match=r"part.csv.gz: cannot be read after row 0"):
        load(on_bad_row="skip")


def test_renamed_columns_are_found_by_their_names_in_the_file(folder: Path, load: Load) -> None:
    users, log = folder / "users.csv", folder / "behaviors.csv"
    users.write_text(users.read_text().replace("user_id", "uid"))
    log.write_text(log.read_text().replace("user_id", "uid").replace("item_id", "sku") + "eve,ad,click,SKU-1,never\n")
    columns = read_columns(["user_id=uid, behaviors.item_id = sku"], column_names())
    with pytest.raises(InvalidInput, match="row 3, column 'occurred_at'"):
        load(columns=columns)
    done = load(columns=columns, on_bad_row="skip")  # impressions keeps user_id
    assert (done.counts.behaviors, done.counts.impressions) == (2, 1)
    add(folder, "behaviors", f"eve,ad,click,SKU-1,{AT}")
    load(columns=columns, on_bad_row="skip")
    assert listed(folder)[1] == ("behaviors.csv", "4", "uid", "eve", "unknown_user")
    with pytest.raises(InvalidInput, match="there is no column 'nr' to be age; the file has uid, age"):
        load(columns={"user_id": "uid", "users.age": "nr"})


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("user_id", "'user_id' renames no column; write OURS=THEIRS, e.g. user_id=uid"),
        ("user_id=", "renames no column"),
        ("usr_id=uid", "no table has a column 'usr_id'; did you mean 'user_id'"),
        ("ads.user_id=uid", "no table has a column 'ads.user_id'"),
        ("user_id=a,user_id=b", "'user_id' is renamed twice, to 'a' and 'b'"),
    ],
)
def test_a_renaming_that_cannot_be_is_refused(given: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        read_columns([given], column_names())


@pytest.mark.parametrize(("unit", "per_second"), [("s", 1), ("ms", 1000), ("us", 1_000_000)])
def test_numbers_for_times_are_recognised_by_their_size_and_it_is_said(
    folder: Path, load: Load, connection: Connection, unit: str, per_second: int
) -> None:
    for name in ("behaviors", "impressions"):
        path = folder / f"{name}.csv"
        path.write_text(path.read_text().replace(AT, str(1748781000 * per_second)))
    words = {"s": "seconds", "ms": "milliseconds", "us": "microseconds"}[unit]
    said = f"behaviors.occurred_at: numbers are Unix {words} (recognised by their size; --time-unit sets it)"
    assert said in load().facts
    assert connection.scalars(text("SELECT DISTINCT occurred_at FROM behaviors")).all() == [datetime.fromisoformat(AT)]
    connection.rollback()
    assert said.replace("recognised by their size; --time-unit sets it", "--time-unit") in load(time_unit=unit).facts


def test_32_bit_floats_are_no_times_and_64_bit_ones_keep_their_order(
    folder: Path, load: Load, connection: Connection
) -> None:
    (folder / "behaviors.csv").unlink()
    seconds = [1748781000.25, 1748781000.125, 1748781001.0]
    columns = {"user_id": ["ann"] * 3, "domain": ["ad"] * 3, "item_id": ["SKU-1"] * 3}
    columns["action"] = ["click", "conversion", "skip"]
    for kind in (pa.float32(), pa.float64()):
        table = pa.table({**columns, "occurred_at": pa.array(seconds, kind)})
        parquet.write_table(table, folder / "behaviors.parquet")
        if kind == pa.float32():
            with pytest.raises(InvalidInput, match=r"'occurred_at': the times are 32-bit floats.* step is 128 s today"):
                load(on_bad_row="skip")
    load()
    order = text("SELECT action FROM behaviors ORDER BY occurred_at")
    assert connection.scalars(order).all() == ["conversion", "click", "skip"]


def test_parquet_times_beyond_all_years_are_bad_rows(folder: Path, load: Load) -> None:
    (folder / "behaviors.csv").unlink()
    at = pa.array([2**62, 1748781000_000_000, None], pa.timestamp("us", "UTC"))
    columns = {"user_id": ["ann"] * 3, "domain": ["ad"] * 3, "item_id": ["SKU-1"] * 3, "action": ["click"] * 3}
    parquet.write_table(pa.table({**columns, "occurred_at": at}), folder / "behaviors.parquet")
    assert load(on_bad_row="skip").counts.behaviors == 1
    assert [row[-1] for row in listed(folder)] == ["bad_time", "missing_value"]


@pytest.mark.parametrize(
    ("at", "good"),
    [
        ("1999-12-31T23:59:59Z", False),
        ("2000-01-01T00:00:00Z", True),
        ((NOW + timedelta(days=1)).isoformat(), True),
        ((NOW + timedelta(days=1, seconds=1)).isoformat(), False),
    ],
)
def test_events_are_from_2000_to_a_day_after_now(folder: Path, load: Load, at: str, good: bool) -> None:
    add(folder, "behaviors", f"ann,ad,click,SKU-2,{at}")
    add(folder, "impressions", f"ann,SKU-2,{at},1")
    if not good:
        with pytest.raises(InvalidInput, match="is not from 2000-01-01 to 2026-01-02T00:00Z, a day after now"):
            load()
    done = load(on_bad_row="skip")
    assert (done.counts.behaviors, done.counts.impressions) == ((3, 2) if good else (2, 1))
    assert [row[-1] for row in listed(folder)] == ([] if good else ["bad_time"] * 2)


def test_every_bad_row_is_left_out_once_by_its_first_fault(folder: Path, load: Load, connection: Connection) -> None:
    add(folder, "ads", "SKU-1,again", ",", "SKU-3", 'SKU-4,"a ""b"", c"')
    add(folder, "users", "ann,44", "carl,-1", "dora,300")
    add(folder, "behaviors", f"carl,ad,click,SKU-1,{AT}", f"eve,ad,click,nothing,{AT}", "eve,add,clik,,")
    add(folder, "impressions", f"ann,SKU-9,{AT},1", f"ann,SKU-4,{AT},-1")
    done = load(on_bad_row="skip", unknown_ads="skip")
    assert listed(folder) == [
        ("ads.csv", "4", "ad_id", "", "missing_value"),
        ("ads.csv", "5", "", "SKU-3", "wrong_width"),
        ("users.csv", "4", "age", "-1", "bad_number"),
        ("users.csv", "5", "age", "300", "bad_number"),
        ("behaviors.csv", "5", "domain", "add", "unknown_choice"),
        ("impressions.csv", "3", "ecpm", "-1", "bad_number"),
        ("ads.csv", "3", "ad_id", "SKU-1", "duplicate_id"),
        ("users.csv", "3", "user_id", "ann", "duplicate_id"),
        ("behaviors.csv", "3", "user_id", "carl", "unknown_user"),
        ("behaviors.csv", "4", "user_id", "eve", "unknown_user"),
        ("impressions.csv", "2", "ad_id", "SKU-9", "unknown_ad"),
    ]
    assert sum(done.rejected.values()) == 11
    assert (done.counts.ads, done.counts.users, done.counts.behaviors, done.counts.impressions) == (3, 2, 2, 1)
    assert connection.scalar(text("SELECT name FROM ads WHERE source_id = 'SKU-4'")) == 'a "b", c'
    assert (folder / "home" / "rejected.csv").read_bytes().count(b"\r\n") == 12


def test_the_first_fault_of_the_first_bad_row_stops_a_strict_import(folder: Path, load: Load) -> None:
    add(folder, "behaviors", f"ann,add,click,SKU-1,{AT}", "short")
    with pytest.raises(InvalidInput, match=r"behaviors.csv, row 3, column 'domain': .*--on-bad-row skip"):
        load()
    assert not (folder / "home").exists()


def test_a_file_of_nothing_but_bad_rows_is_refused_and_listed(folder: Path, load: Load) -> None:
    (folder / "impressions.csv").unlink()
    (folder / "behaviors.csv").write_text("user_id,domain,action,item_id,occurred_at\nann\nbob\n")
    with pytest.raises(InvalidInput, match="no row of behaviors can be read"):
        load(on_bad_row="skip")
    assert [row[-1] for row in listed(folder)] == ["wrong_width"] * 2


def test_behaviors_of_unknown_ads_become_content_of_the_same_id(
    folder: Path, load: Load, connection: Connection
) -> None:
    add(folder, "content_items", "art-2,Not an ad")
    gone = [f"ann,ad,click,gone-1,{AT}", f"bob,ad,conversion,gone-1,{AT}", f"bob,ad,click,art-2,{AT}"]
    add(folder, "behaviors", *gone)
    add(folder, "impressions", f"ann,gone-1,{AT},1")
    with pytest.raises(InvalidInput, match=r"row 3, column 'item_id': 'gone-1' is not in ads; .*--unknown-ads skip"):
        load(on_bad_row="skip")
    for _ in range(2):
        done = load(unknown_ads="content", max_bad_share=0)
        assert done.became_content == 2
        assert (done.counts.behaviors, done.counts.impressions) == (4, 1)
        assert listed(folder) == [
            ("behaviors.csv", "5", "item_id", "art-2", "unknown_ad"),  # the content item of that id is another thing
            ("impressions.csv", "2", "ad_id", "gone-1", "unknown_ad"),
        ]
        assert behaviors(connection) == [
            ("ann", "ad", "click", "SKU-1"),
            ("ann", "content", "click", "gone-1"),
            ("bob", "content", "conversion", "gone-1"),
            ("bob", "content", "watch", "art-1"),
        ]
    assert connection.execute(text("SELECT title, category FROM content_items WHERE title = 'gone-1'")).one() == (
        "gone-1",
        "",
    )
    assert load(unknown_ads="skip", max_bad_share=0).counts.behaviors == 2


@pytest.mark.parametrize(
    ("table", "line", "file", "row", "column", "other"),
    [
        ("ads", "{SKU-1},Twin", "ads.csv", 3, "ad_id", "SKU-1"),
        ("users", "{ann},5", "users.csv", 3, "user_id", "ann"),
        ("behaviors", "{ann},ad,click,SKU-1," + AT, "behaviors.csv", 3, "user_id", "ann"),
        ("behaviors", "ann,ad,click,{SKU-1}," + AT, "behaviors.csv", 3, "item_id", "SKU-1"),
        ("behaviors", "ann,content,watch,{art-1}," + AT, "behaviors.csv", 3, "item_id", "art-1"),
        ("impressions", "ann,{SKU-1}," + AT + ",1", "impressions.csv", 2, "ad_id", "SKU-1"),
    ],
)
def test_two_texts_of_one_id_are_refused_by_name(
    folder: Path,
    load: Load,
    connection: Connection,
    table: str,
    line: str,
    file: str,
    row: int,
    column: str,
    other: str,
) -> None:
    """A number in the file that is the id derived from another text there is a collision."""
    number = str(stable_id(other))
    add(folder, table, line.replace(f"{{{other}}}", number))
    with pytest.raises(InvalidInput) as error:
        load(on_bad_row="skip", unknown_ads="content")
    assert f"{file}, row {row}, column '{column}': '{number}' and '{other}' share one id inside" in str(error.value)
    assert connection.scalar(text("SELECT count(*) FROM users")) == 0


def test_a_text_of_one_id_with_another_in_the_database_is_refused_by_name(folder: Path, load: Load) -> None:
    load()
    (folder / "users.csv").write_text(f"user_id\n{stable_id('ann')}\n")
    with pytest.raises(InvalidInput, match=f"'{stable_id('ann')}' and 'ann' share one id inside"):
        load()


def test_two_advertisers_of_one_id_are_refused_by_name(folder: Path, load: Load) -> None:
    (folder / "ads.csv").write_text(f"ad_id,name,advertiser_id\nSKU-1,a,Lu\nSKU-2,b,\nSKU-3,c,{stable_id('Lu')}\n")
    with pytest.raises(InvalidInput, match=f"row 3, column 'advertiser_id': '{stable_id('Lu')}' and 'Lu' share one"):
        load()


def test_an_id_that_another_importer_gave_otherwise_is_refused(
    folder: Path, load: Load, connection: Connection
) -> None:
    connection.execute(text("INSERT INTO ads (ad_id, source_id, name, event_at) VALUES (5, 'SKU-2', 'x', now())"))
    connection.commit()
    with pytest.raises(InvalidInput, match="row 2, column 'ad_id': 'SKU-2': the database holds it from another"):
        load(on_bad_row="skip")


def test_no_message_or_line_holds_a_derived_id(folder: Path, load: Load) -> None:
    add(folder, "behaviors", f"eve,ad,click,SKU-1,{AT}", f"ann,ad,click,SKU-9,{AT}", f"ann,content,watch,art-9,{AT}")
    said = []
    for options in ({}, {"on_bad_row": "skip"}, {"on_bad_row": "skip", "unknown_ads": "skip"}):
        try:
            load(**options)
        except InvalidInput as error:
            said.append(str(error))
    said.append((folder / "home" / "rejected.csv").read_text())
    assert len(said) == 3
    for name in ("eve", "SKU-9", "art-9"):
        assert any(name in line for line in said)
        assert not any(str(stable_id(name)) in line for line in said)
