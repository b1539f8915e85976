"""A folder as another system writes it: semicolons, Latin-1, local times, text ids, other names, known bad rows.

What the options of an import make of it, and what each line says without them.
"""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Connection, text

from leadre.errors import InvalidInput
from leadre.store.importers.load import ImportCounts
from leadre.store.importers.tabular.folder import import_tabular
from leadre.store.importers.tabular.options import ImportOptions

NOW = datetime.fromisoformat("2026-03-01T00:00:00+00:00")
FIRST = datetime(2025, 4, 1)  # no clock changes for half a year
ADS, USERS, CONTENT = 500, 10_000, 800
BAD = (
    ("uid", "", "missing_value"),
    ("uid", "nobody_{row}", "unknown_user"),
    ("item", "SKU-gone-{row}", "unknown_ad"),
    ("item", "art/gone-{row}", "unknown_content"),
    ("action", "clikc", "unknown_choice"),
    ("occurred_at", "2025-03-30 02:30:00", "bad_time"),  # the clocks skip it
    ("item", " SKU-{row}", "bad_id"),
    ("", "", "wrong_width"),
)
OPTIONS: dict[str, Any] = {
    "on_bad_row": "skip",
    "unknown_ads": "skip",
    "long_texts": "cut",
    "time_zone": ZoneInfo("Europe/Berlin"),
    "encoding": "latin-1",
    "columns": {"user_id": "uid", "behaviors.item_id": "item"},
}
IMPORT = """
import json, resource, sys
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo
from leadre.store.importers.tabular.options import ImportOptions
from leadre.store.importers.tabular.folder import import_tabular

folder, url, now, rejected, options = sys.argv[1:]
options = json.loads(options)
options["time_zone"] = ZoneInfo(options["time_zone"])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
done = import_tabular(
    Path(folder), database_url=url, now=datetime.fromisoformat(now), rejected=Path(rejected),
    options=ImportOptions(**options),
)
growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
counts = {name: getattr(done.counts, name) for name in done.counts.__slots__}
kinds = {kind: count for (table, kind), count in done.rejected.items() if table == "behaviors"}
print(json.dumps({"growth_mb": growth / 1024, "counts": counts, "kinds": kinds, "facts": done.facts}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """What was written: (file, row, column, value, kind) of every bad row, and the number of good rows by table."""

    rejected: list[tuple[str, int, str, str, str]]
    counts: dict[str, int]


def write_foreign(folder: Path, *, behaviors: int, seed: int = 5, bad_share: float = 0.005) -> Foreign:
    """Write ads, users, content items and behaviors; `bad_share` of the behaviors are bad, in eight ways in turn."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    names = ["Crème " + "brûlée " * 60, *(f"Crème Nº {n}" for n in range(1, ADS))]
    _write(folder / "ads.csv", "ad_id;name;bid", (f"SKU-{n:04};{name};0.{n % 90 + 10}" for n, name in enumerate(names)))
    _write(folder / "users.csv", "uid;residence;age", (f"müller_{n};Köln, Süd;{n % 70 + 18}" for n in range(USERS)))
    _write(folder / "content_items.csv", "content_id;title", (f"art/{n};Über {n}" for n in range(CONTENT)))
    rejected, lines = [], []
    bad_rows = {row: turn for turn, row in enumerate(rng.sample(range(2, behaviors + 1), round(behaviors * bad_share)))}
    for row in range(1, behaviors + 1):
        at = (FIRST + timedelta(seconds=rng.randrange(180 * 86_400))).isoformat(sep=" ")
        column, value, kind = BAD[bad_rows[row] % len(BAD)] if row in bad_rows else ("", "", "")
        ad = rng.random() < 0.4 if kind not in ("unknown_ad", "unknown_content") else kind == "unknown_ad"
        values = {
            "uid": f"müller_{rng.randrange(USERS)}",
            "domain": "ad" if ad else "content",
            "action": "click" if ad else "watch",
            "item": f"SKU-{rng.randrange(ADS):04}" if ad else f"art/{rng.randrange(CONTENT)}",
            "occurred_at": at,
        }
        if column:
            values[column] = value = value.format(row=row)
        lines.append(";".join(values.values()))
        if kind == "wrong_width":
            lines[-1] = value = f"{lines[-1]};{row}"
        if kind:
            rejected.append(("behaviors.csv", row, column, value, kind))
    _write(folder / "behaviors.csv", "uid;domain;action;item;occurred_at", lines)
    counts = {"ads": ADS, "users": USERS, "content_items": CONTENT, "behaviors": behaviors - len(rejected)}
    return Foreign(rejected=rejected, counts={**counts, "impressions": 0})


def _write(path: Path, header: str, lines: Iterable[str]) -> None:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="latin-1")


def _listed(path: Path) -> list[tuple[str, int, str, str, str]]:
    """Return what rejected.csv lists, by file and row; every row must give a reason."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["reason"] for row in rows)
    return sorted((row["file"], int(row["row"]), row["column"], row["value"], row["kind"]) for row in rows)


def _contents(connection: Connection) -> list[str | None]:
    """Return a digest of each table with the numbers of the transactions that wrote its rows."""
    tables = ("ads", "users", "content_items", "behaviors", "impressions")
    query = "SELECT md5(string_agg(t.xmin || t::text, ',' ORDER BY t::text)) FROM {} t"
    digests = [connection.scalar(text(query.format(table))) for table in tables]
    connection.rollback()
    return digests


@pytest.mark.slow
def test_200_000_foreign_behaviors_are_imported_right_to_the_row_in_bounded_memory(
    tmp_path: Path, database_url: str, connection: Connection
) -> None:
    foreign = write_foreign(tmp_path / "log", behaviors=200_000)
    assert len(foreign.rejected) == 1000
    rejected = tmp_path / "home" / "rejected.csv"
    options = json.dumps({**OPTIONS, "time_zone": "Europe/Berlin"})
    command = [sys.executable, "-c", IMPORT, tmp_path / "log", database_url, NOW.isoformat(), rejected, options]
    contents = []
    for _ in range(2):
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        done = json.loads(run.stdout)
        assert done["counts"] == foreign.counts
        assert (
            done["kinds"]
            == Counter(kind for *_, kind in foreign.rejected)
            == dict.fromkeys((kind for *_, kind in BAD), 125)
        )
        assert _listed(rejected) == sorted(foreign.rejected)
        assert done["growth_mb"] <= 200
        contents.append(_contents(connection))
    assert contents[0] == contents[1]
    assert done["facts"] == [
        "ads: values separated by semicolons, latin-1",
        "ads.name: 1 texts of more than 256 characters, cut",
        "users: values separated by semicolons, latin-1",
        "content_items: values separated by semicolons, latin-1",
        "behaviors: values separated by semicolons, latin-1",
        "behaviors.occurred_at: times without an offset are of Europe/Berlin",
    ]
    found = connection.execute(
        text("SELECT count(*), count(DISTINCT user_id), min(occurred_at), max(occurred_at) FROM behaviors")
    ).one()
    first = FIRST.replace(tzinfo=ZoneInfo("Europe/Berlin"))
    assert found[0] == foreign.counts["behaviors"]
    assert 9_990 < found[1] <= USERS
    assert first <= found[2] < first + timedelta(minutes=10)
    assert found[3] < first + timedelta(days=180)
    names = connection.scalars(text("SELECT source_id FROM users ORDER BY source_id LIMIT 2")).all()
    assert names == ["müller_0", "müller_1"]


def test_each_foreign_trait_is_one_line_that_names_its_option(
    tmp_path: Path, database_url: str, connection: Connection
) -> None:
    folder = tmp_path / "log"
    write_foreign(folder, behaviors=2_000, bad_share=0.004)
    ads, users, behaviors = (str(folder / f"{name}.csv") for name in ("ads", "users", "behaviors"))
    steps = [
        ("encoding", f"{ads}: is not UTF-8 (line 2, byte 0xe8); it looks like latin-1: ", "--encoding latin-1"),
        ("long_texts", f"{ads}, row 1, column 'name': the text is 425 characters long", "--long-texts cut"),
        ("columns", f"{users}, column 'user_id': the column is missing", "--columns user_id=NAME"),
        ("time_zone", f"{behaviors}, row 1, column 'occurred_at': 2025-", "--time-zone Europe/Berlin"),
        ("on_bad_row", f"{behaviors}, row ", "--on-bad-row skip"),
        ("unknown_ads", f"{behaviors}, row ", "--unknown-ads skip"),
    ]
    options: dict[str, Any] = {}
    rejected = tmp_path / "home" / "rejected.csv"

    def run() -> ImportCounts:
        done = import_tabular(
            folder, database_url=database_url, now=NOW, rejected=rejected, options=ImportOptions(**options)
        )
        return done.counts

    for option, line, remedy in steps:  # each option given, the next trait is in the way
        with pytest.raises(InvalidInput) as error:
            run()
        said = str(error.value)
        assert (said.startswith(line), remedy in said, "\n" in said) == (True, True, False), said
        assert connection.scalar(text("SELECT count(*) FROM ads")) == 0
        options[option] = OPTIONS[option]
    assert "'SKU-gone-" in said
    assert run() == ImportCounts(ads=ADS, users=USERS, content_items=CONTENT, behaviors=1992, impressions=0)


def test_too_many_bad_rows_import_nothing_and_are_all_listed(
    tmp_path: Path, database_url: str, connection: Connection
) -> None:
    foreign = write_foreign(tmp_path / "log", behaviors=1_600, bad_share=0.02)
    rejected = tmp_path / "home" / "rejected.csv"

    def run(**changes: Any) -> ImportCounts:
        options = ImportOptions(**{**OPTIONS, **changes})
        done = import_tabular(tmp_path / "log", database_url=database_url, now=NOW, rejected=rejected, options=options)
        return done.counts

    with pytest.raises(InvalidInput) as error:
        run()
    assert str(error.value) == (  # 4 of the 32 are of unknown ads, which --unknown-ads leaves out
        "28 of 1,600 rows of behaviors are bad (1.75%), more than --max-bad-share 0.01 allows: nothing was imported; "
        f"{rejected} lists them, mend them or raise it"
    )
    assert _listed(rejected) == sorted(foreign.rejected)
    assert [connection.scalar(text(f"SELECT count(*) FROM {table}")) for table in ("users", "behaviors")] == [0, 0]
    connection.rollback()
    assert run(max_bad_share=28 / 1600).behaviors == 1_568
    assert _listed(rejected) == sorted(foreign.rejected)
    assert rejected.stat().st_mode & 0o077 == 0  # it holds what users did
    assert [path.name for path in rejected.parent.iterdir()] == ["rejected.csv"]
