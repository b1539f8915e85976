"""Drift against a training set: what is read of it, and that a day unlike it is found."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from pyarrow import parquet

from leadre.cli import cli
from leadre.errors import InvalidInput
from leadre.pipelines.feature_quality.drift import ITEM_SIDE, USER_SIDE, _rows, read_training_set
from leadre.store.records.database import transaction

from .conftest import DAY, NOW, USER_IDS, World


def write(folder: Path, columns: dict[str, NDArray[np.float64]], *, days: int = 3, group: int = 100) -> Path:
    """Write a training set partitioned by day, beside files that are none of it."""
    rows = len(next(iter(columns.values())))
    for day in range(days):
        part = folder / f"day=2026-03-0{day + 1}"
        part.mkdir(parents=True)
        table = pa.table(
            {name: values[day * rows // days : (day + 1) * rows // days] for name, values in columns.items()}
        )
        table = table.append_column("retrieved_sids", pa.array([["<a_1>"]] * len(table)))
        parquet.write_table(table, part / "part-0.parquet", row_group_size=group)
    (folder / "dataset.json").write_text("{}")
    (folder / ".sources").mkdir()
    (folder / ".sources" / "retrieved_ads.parquet").write_bytes(b"no Parquet")
    return folder


def rows_of_the_week(world: World) -> dict[str, NDArray[np.float64]]:
    with transaction(world.database) as connection:
        rows = _rows(connection, USER_IDS, after=NOW - 8 * DAY, until=NOW - DAY)
    return {name: np.asarray(values, dtype=np.float64) for name, values in rows.items()}


def test_a_day_like_the_training_set_is_well_and_one_unlike_it_is_not(world: World, tmp_path: Path) -> None:
    week = rows_of_the_week(world)
    assert set(week) == {*USER_SIDE, *ITEM_SIDE}
    like = write(tmp_path / "like", week)
    assert world.check(training_set=like).out == ()
    unlike = write(tmp_path / "unlike", {**week, "entropy": week["entropy"] + 1, "hit": 1 - week["hit"]})
    assert {figure.of["feature"] for figure in world.check(training_set=unlike).out} == {"entropy", "hit"}
    few = write(tmp_path / "few", {"rank": week["rank"]})
    checked = world.check(training_set=few)
    assert {figure.of["feature"] for figure in checked.of("psi") if figure.value is not None} == {"rank"}


@pytest.mark.parametrize("broken", [b"", b"PAR1 and no more"])
def test_a_training_set_that_cannot_be_read_is_one_line_and_exit_code_3(
    world: World, tmp_path: Path, broken: bytes
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    arguments = ["features", "check", "--now", NOW.isoformat(), "--training-set", str(folder)]
    done = CliRunner().invoke(cli, arguments)
    assert (done.exit_code, "holds no Parquet file" in done.output) == (3, True)
    (folder / "part-0.parquet").write_bytes(broken)
    done = CliRunner().invoke(cli, arguments)
    assert (done.exit_code, "cannot be read as a training set" in done.output) == (3, True)


def test_of_a_large_training_set_rows_of_all_its_days_are_read_and_no_more_than_asked(tmp_path: Path) -> None:
    values = np.arange(30_000.0)
    folder = write(tmp_path, {"rank": values, "hit": np.where(values > 1e4, np.nan, 1.0)}, group=500)
    read = read_training_set(folder, rows=300)
    assert set(read) == {"rank", "hit"}
    assert 200 <= len(read["rank"]) <= 450
    assert np.bincount((read["rank"] // 10_000).astype(int)).min() >= 60
    other = write(tmp_path / "other", {"clicked": values})
    with pytest.raises(InvalidInput, match="none of the columns retrieved_count, top_probability"):
        read_training_set(other, rows=300)


def test_an_impression_is_matched_with_the_list_of_its_time(world: World) -> None:
    world.do("DELETE FROM retrieval_log WHERE event_at > :at", at=NOW - 2 * DAY)
    with transaction(world.database) as connection:
        rows = _rows(connection, USER_IDS, after=NOW - DAY, until=NOW)
    # The newest list left was made two days and an hour ago, the impressions a minute ago.
    assert np.unique(rows["list_age_s"]).tolist() == [timedelta(days=2, minutes=59).total_seconds()]
    assert rows["hit"].mean() == pytest.approx(12 / 40, abs=0.08)
    assert (rows["first_category_mass"] > 0).mean() > 0.9
    world.do("UPDATE releases SET promoted_at = :at", at=NOW)  # no index was live when the ads were shown
    with transaction(world.database) as connection:
        rows = _rows(connection, USER_IDS, after=NOW - DAY, until=NOW)
    assert not rows["first_category_mass"].any()
    assert rows["hit"].any()
