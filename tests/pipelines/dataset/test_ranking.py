"""From impressions to a training set: every row once, with the list of its past, whoever joins and however often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from sqlalchemy import text

from leadre.cli.dataset import dataset
from leadre.derivation import NEUTRAL
from leadre.pipelines.dataset.backfill import PastDecoder, choose_existing, plan
from leadre.pipelines.dataset.check import check
from leadre.pipelines.dataset.days import days_there, path_of, read_about
from leadre.pipelines.dataset.ranking import Written, write_ranking_set
from leadre.store.records.database import transaction
from leadre.store.release.records import promote

from .conftest import NOW, TRAINED, Past

DAY = timedelta(days=1)
FIRST, LAST = (NOW - 4 * DAY).date(), NOW.date()
INSTANTS = [NOW - n * DAY for n in (3, 2, 1)]


@pytest.fixture
def listed(past: Past) -> Iterator[Past]:
    """Lists of the past at three midnights, none for users 0 to 3; user 4 has one that is older than a week."""
    plan(past.database, choose_existing(past.database, INSTANTS), user_ids=np.arange(5, 40))
    PastDecoder(past.settings, database=past.database).work_off()
    past.add_release("r0", until=NOW - 30 * DAY)
    plan(past.database, choose_existing(past.database, [NOW - 17 * DAY]), user_ids=np.array([4]))
    PastDecoder(past.settings, database=past.database).work_off()
    with transaction(past.database) as connection:
        connection.execute(text("ANALYZE"))
    return past


def written(past: Past, folder: Path, **options: object) -> Written:
    return write_ranking_set(past.settings, folder, since=FIRST, until=LAST, **options)  # type: ignore[arg-type]


def rows_of(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path_of(folder, day), partitioning=None) for day in days_there(folder)])


def test_every_impression_is_a_row_with_the_newest_list_of_its_past(listed: Past, tmp_path: Path) -> None:
    made = written(listed, tmp_path)
    rows = rows_of(tmp_path)
    since = NOW - 4 * DAY
    shown = [it for it in listed.world.impressions if since <= it.occurred_at < NOW]
    assert (made.days, made.kept, made.rows) == (4, 0, len(shown))
    key = ("user_id", "ad_id", "requested_at", "clicked", "converted", "ecpm")
    found = Counter(zip(*(rows[name].to_pylist() for name in key), strict=True))
    assert found == Counter((it.user_id, it.ad_id, it.occurred_at, it.clicked, it.converted, it.ecpm) for it in shown)
    assert rows["user"].to_pylist() == [str(user) for user in rows["user_id"].to_pylist()]
    at = rows["requested_at"].cast(pa.int64()).to_numpy() / 1e6
    ages = rows["list_age_s"].to_numpy()
    assert ((ages >= 0) == (rows["retrieved_count"].to_numpy() == 8)).all()
    assert (ages[ages >= 0] == (at - rows["generated_at_s"].to_numpy())[ages >= 0]).all()
    assert ages.max() < DAY.total_seconds()
    retrieved = [
        ad in ads for ad, ads in zip(*(rows[it].to_pylist() for it in ("ad_id", "retrieved_ad_ids")), strict=True)
    ]
    assert rows["hit"].to_pylist() == list(map(int, retrieved))
    # nothing was ever promoted: the index of the lists counts for the targets as well
    assert (rows["max_cosine"].to_numpy()[ages >= 0] != 0).all()
    reasons = Counter(rows["neutral"].to_pylist())
    assert set(reasons) == {"", "no list", "expired"}
    assert {
        row["user_id"] for row in rows.select(["user_id", "neutral"]).to_pylist() if row["neutral"] == "expired"
    } == {4}
    assert read_about(path_of(tmp_path, LAST - DAY)).releases == {"r1": (NOW - 10 * DAY).isoformat()}


def test_a_set_is_sound_and_goes_on_where_it_was(listed: Past, tmp_path: Path) -> None:
    written(listed, tmp_path)
    report = check(tmp_path)
    assert report.findings == ()
    assert 0 < report.neutral_share < 0.5
    rows = rows_of(tmp_path)
    path_of(tmp_path, FIRST).unlink()
    kept = path_of(tmp_path, LAST - DAY).stat().st_mtime_ns
    assert written(listed, tmp_path).days == 1
    assert path_of(tmp_path, LAST - DAY).stat().st_mtime_ns == kept
    assert rows_of(tmp_path).equals(rows)


def test_duckdb_writes_the_same_rows(listed: Past, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADRE_FEAST_PARQUET", "")
    for engine in ("postgres", "duckdb"):
        written(listed, tmp_path / engine, engine=engine)
    one, other = (rows_of(tmp_path / engine) for engine in ("postgres", "duckdb"))
    assert one.equals(other)
    assert check(tmp_path / "duckdb").findings == ()


def test_a_list_of_the_future_is_never_used_and_one_that_saw_too_much_is_found(listed: Past, tmp_path: Path) -> None:
    at = NOW - 2 * DAY
    with transaction(listed.database) as connection:
        connection.execute(text("DELETE FROM retrieval_log WHERE event_at < :at"), {"at": at})
    written(listed, tmp_path / "cut")
    rows = rows_of(tmp_path / "cut")
    early = np.array([it < at for it in rows["requested_at"].to_pylist()])
    for name, neutral in NEUTRAL.items():
        assert (rows[name].to_numpy()[early] == neutral).all(), name
    with transaction(listed.database) as connection:
        connection.execute(text("UPDATE releases SET trained_until = :now WHERE release = 'r1'"), {"now": NOW})
    written(listed, tmp_path / "seen")
    findings = check(tmp_path / "seen").findings
    assert len(findings) == 2
    assert all("release 'r1', which has seen what happened until" in said for said in findings)


def test_rows_of_another_index_and_of_unknown_ads_say_so(listed: Past, tmp_path: Path) -> None:
    with transaction(listed.database) as connection:
        connection.execute(
            text("UPDATE backfill_shards SET event_at = event_at + interval '1 year'")
        )  # no index counts
    written(listed, tmp_path / "none")
    reasons = Counter(rows_of(tmp_path / "none")["neutral"].to_pylist())
    assert set(reasons) == {"ad not in the index", "no list", "expired"}
    with transaction(listed.database) as connection:
        promote(connection, "r1")
        connection.execute(text("UPDATE releases SET promoted_at = :at"), {"at": NOW - 20 * DAY})
        connection.execute(text("UPDATE semantic_ids SET event_at = :at"), {"at": NOW - 20 * DAY})
    written(listed, tmp_path / "live")
    assert "" in set(rows_of(tmp_path / "live")["neutral"].to_pylist())


def test_the_commands_make_lists_and_a_set_and_check_it(
    past: Past, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEADRE_HOME", str(past.settings.home))
    monkeypatch.setenv("LEADRE_DATABASE_URL", past.settings.database_url)
    monkeypatch.setenv("LEADRE_REDIS_URL", past.settings.redis_url)
    monkeypatch.setenv("LEADRE_FEATURE_REPO", str(past.settings.feature_repo))
    monkeypatch.setenv("LEADRE_ENGINE", "stub")

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(dataset, list(arguments), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return " ".join(done.output.split())

    start = TRAINED.date().isoformat()  # the release has seen this instant
    span = ("--from", start, "--to", str(LAST), "--every", "8d")
    dry = run("lists", *span, "--dry-run")
    assert "1 of 2 instants are left out" in dry
    assert "40 users x 1 instants x" in dry
    assert "40 lists in the log" in run("lists", *span)
    assert "40 lists in the log" in run("lists", *span, "--workers", "1")
    assert "rows of 2 days" in run("ranking", "--from", "2026-03-13", "--to", str(LAST), "--out", str(tmp_path))
    assert "hit, clicked" in run("check", str(tmp_path))
    assert "40 rows of 1 sources" in run("export", "--out", str(tmp_path / "s"), "--view", "retrieved_ads")
