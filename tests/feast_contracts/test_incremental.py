"""Incremental materialization: what it takes for new, and what stops it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from tests.feast_contracts.conftest import MakeStore
from tests.feast_contracts.tiny import HOUR, NOON, online, source, view


def test_a_row_written_late_with_an_older_event_time_is_never_taken(store: MakeStore, tmp_path: Path) -> None:
    tiny = store(view(source(tmp_path, {"user_id": [1], "score": [0.5], "at": [NOON - 2 * HOUR]})))
    tiny.materialize_incremental(NOON)
    source(tmp_path, {"user_id": [1, 2], "score": [0.5, 0.25], "at": [NOON - 2 * HOUR, NOON - HOUR]})
    tiny.materialize_incremental(NOON + HOUR)
    assert online(tiny, "facts:score", 1, 2) == [0.5, None]
    tiny.materialize(NOON - 3 * HOUR, NOON + HOUR)
    assert online(tiny, "facts:score", 1, 2) == [0.5, 0.25]


def test_one_end_in_the_future_stops_all_later_runs_without_a_word(store: MakeStore, tmp_path: Path) -> None:
    # feast issue 4222.
    tiny = store(view(source(tmp_path, {"user_id": [1], "score": [0.5], "at": [NOON]})))
    tiny.materialize_incremental(NOON + timedelta(days=3650))
    source(tmp_path, {"user_id": [1, 2], "score": [0.75, 0.25], "at": [NOON + HOUR, NOON + HOUR]})
    tiny.materialize_incremental(NOON + 2 * HOUR)
    assert online(tiny, "facts:score", 1, 2) == [0.5, None]
    start, end = tiny.get_feature_view("facts").materialization_intervals[-1]
    assert start > end  # what tells


def test_the_first_run_of_a_view_without_ttl_starts_a_year_ago(store: MakeStore, tmp_path: Path) -> None:
    # By the clock of the machine, whatever the end is.
    tiny = store(view(source(tmp_path, {"user_id": [1], "score": [0.5], "at": [NOON - timedelta(days=4000)]})))
    tiny.materialize_incremental(NOON)
    assert online(tiny, "facts:score", 1) == [None]


def test_the_newest_row_in_the_window_wins_whatever_their_order(store: MakeStore, tmp_path: Path) -> None:
    rows = {"user_id": [1, 1, 1], "score": [1.0, 3.0, 2.0], "at": [NOON, NOON + 2 * HOUR, NOON + HOUR]}
    tiny = store(view(source(tmp_path, rows)))
    tiny.materialize(NOON - HOUR, NOON + HOUR)
    assert online(tiny, "facts:score", 1) == [2.0]
