"""Planted leaks are found, each by a line of its own; a sound set has none."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner

from leadre.cli.dataset import dataset
from leadre.errors import ConfigError
from leadre.pipelines.dataset.check import check
from leadre.pipelines.dataset.days import MANIFEST, About, Description, describe, path_of, writing
from leadre.store.past.labels import SCHEMA

DAYS = [date(2026, 3, 1), date(2026, 3, 2), date(2026, 3, 3)]
FEATURES = {
    "hit": pa.int64(),
    "generated_at_s": pa.float64(),
    "behavior_at_s": pa.float64(),
    "release": pa.string(),
    "entropy": pa.float64(),
}
ROWS = 40
RELEASES = {"r1": "2026-02-28T00:00:00+00:00"}
Columns = dict[str, list[Any]]


def columns_of(day: date) -> Columns:
    """Forty impressions of ten users; clicked ones were retrieved, and some of the others."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    times = [start + timedelta(minutes=n) for n in range(ROWS)]
    ids = [int(f"{day:%d}{n:03d}") for n in range(ROWS)]
    clicked = [n % 4 == 0 for n in range(ROWS)]
    return {
        "impression_id": ids,
        "user": [f"u{n % 10}" for n in range(ROWS)],
        "ad": [f"a{n}" for n in range(ROWS)],
        "user_id": [n % 10 for n in range(ROWS)],
        "ad_id": list(range(ROWS)),
        "requested_at": times,
        "clicked": clicked,
        "converted": [False] * ROWS,
        "ecpm": [1.0] * ROWS,
        "ecpm_simulated": [False] * ROWS,
        "neutral": ["no list" if n == 1 else "" for n in range(ROWS)],
        "hit": [int(click or n % 8 == 1) for n, click in enumerate(clicked)],
        "generated_at_s": [0.0 if n == 1 else start.timestamp() - 60 for n in range(ROWS)],
        "behavior_at_s": [0.0 if n == 1 else start.timestamp() - 3600 for n in range(ROWS)],
        "release": ["" if n == 1 else "r1" for n in range(ROWS)],
        "entropy": [0.5] * ROWS,
    }


def write(folder: Path, day: date, columns: Columns, **about: Any) -> None:
    schema = pa.schema([*SCHEMA, pa.field("neutral", pa.string()), *FEATURES.items()])
    known = About(rows=len(columns["user"]), neutral={"no list": 1}, releases=dict(RELEASES))
    for name, value in about.items():
        setattr(known, name, value)
    extra = [name for name in columns if name not in schema.names]
    schema = pa.schema([*(schema.field(name) for name in schema.names if name in columns)])
    table = pa.table({name: columns[name] for name in schema.names}, schema=schema)
    for name in extra:
        table = table.append_column(name, pa.array(columns[name]))
    with writing(folder, day, table.schema, known) as writer:
        writer.write_table(table)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound set of three days."""
    describe(tmp_path, Description(since=DAYS[0], until=DAYS[-1] + timedelta(days=1), features=tuple(FEATURES)))
    for day in DAYS:
        write(tmp_path, day, columns_of(day))
    return tmp_path


def test_a_sound_set_has_no_finding_and_says_what_a_hit_is_worth(folder: Path) -> None:
    report = check(folder)
    assert report.findings == ()
    assert (report.rows, report.neutral) == (120, {"no list": 3})
    assert report.neutral_share == pytest.approx(3 / 120)
    assert report.clicked.mean == 1.0
    assert report.not_clicked.mean == pytest.approx(5 / 30)
    assert 0 < report.difference.low <= report.difference.mean <= report.difference.high
    done = CliRunner().invoke(dataset, ["check", str(folder)])
    assert done.exit_code == 0
    assert "120 rows, 2.5% without a list" in done.output


def put(row: int, **values: Any) -> Callable[[Columns], None]:
    def change(columns: Columns) -> None:
        for name, value in values.items():
            columns[name][row] = value

    return change


NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("change", "about", "finding"),
    [
        (put(3, generated_at_s=NOON.timestamp()), {}, "1 rows have a list that was generated after their impression"),
        (
            put(3, behavior_at_s=NOON.timestamp()),
            {},
            "1 rows have a list made from behaviors at their impression's time",
        ),
        (
            lambda _: None,
            {"releases": {"r1": "2026-03-02T00:10:00+00:00"}},
            "10 rows have lists of release 'r1', which has seen what happened until 2026-03-02T00:10:00",
        ),
        (
            lambda _: None,
            {"releases": {"r1": None}},
            "39 rows have lists of release 'r1'; what it has seen is not known",
        ),
        (put(3, release="r2"), {}, "1 rows have lists of release 'r2', of which the day does not know"),
        (put(3, impression_id=2004), {}, "1 rows are there twice"),
        (put(3, requested_at=NOON + timedelta(days=1)), {}, "1 rows are of another day"),
        (lambda _: None, {"rows": 41}, "40 rows, and it says it has 41"),
        (lambda columns: columns.pop("entropy"), {}, "columns are missing: entropy"),
        (lambda columns: columns.update(clicked_later=[0] * ROWS), {}, "columns that are no features: clicked_later"),
    ],
)
def test_a_planted_leak_is_one_line_and_exit_code_1(
    folder: Path, change: Callable[[Columns], None], about: dict[str, Any], finding: str
) -> None:
    columns = columns_of(DAYS[1])
    change(columns)
    write(folder, DAYS[1], columns, **about)
    (found,) = check(folder).findings
    assert found.startswith(f"{DAYS[1]}: {finding}")
    done = CliRunner().invoke(dataset, ["check", str(folder)])
    assert done.exit_code == 1
    assert sum("✗" in line for line in done.output.splitlines()) == 1


def test_labels_among_the_features_are_found(folder: Path) -> None:
    plain = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**plain, "features": [*plain["features"], "converted"]}))
    assert "'converted' is among the features, and is a label or an id" in check(folder).findings


def test_missing_days_damaged_files_and_leftovers_are_found(folder: Path) -> None:
    path_of(folder, DAYS[0]).unlink()
    path_of(folder, DAYS[1]).write_bytes(b"PAR1 no more")
    (folder / ".day=2026-03-09").mkdir()
    report = check(folder)
    assert report.rows == ROWS
    assert [said.split(":")[0] for said in report.findings] == [
        "1 days are missing, from 2026-03-01 to 2026-03-01",
        ".day=2026-03-09 is what a killed run has left",
        "2026-03-02",
    ]
    done = CliRunner().invoke(dataset, ["check", str(folder), "--json"])
    assert done.exit_code == 1
    assert json.loads(done.output)["findings"] == list(report.findings)


def test_a_day_is_whole_or_as_it_was(folder: Path) -> None:
    before = path_of(folder, DAYS[0]).read_bytes()
    with pytest.raises(ZeroDivisionError), writing(folder, DAYS[0], SCHEMA, About()):
        raise ZeroDivisionError
    assert path_of(folder, DAYS[0]).read_bytes() == before
    assert check(folder).findings == ()


def test_a_folder_without_a_set_or_with_another_one_is_refused(folder: Path, tmp_path_factory: Any) -> None:
    with pytest.raises(ConfigError, match="no training set"):
        check(tmp_path_factory.mktemp("empty"))
    with pytest.raises(ConfigError, match="other features"):
        describe(folder, Description(since=DAYS[0], until=DAYS[1], features=("hit",)))
    wider = describe(folder, Description(since=DAYS[0], until=DAYS[-1] + timedelta(days=9), features=tuple(FEATURES)))
    assert len(wider.days) == 11
    assert check(folder).findings[0].startswith("8 days are missing")
