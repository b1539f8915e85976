"""What an online store gives back, whichever it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from feast import FeatureService, Field
from feast.types import Float64

from tests.feast_contracts.conftest import MakeStore
from tests.feast_contracts.tiny import HOUR, IDS, NOON, SCORE, SCORES, frame, online, source, view

ROW = {"user_id": [1], "score": [0.5], "scores": [[0.5, 0.25]], "ids": [[1, 2]], "at": [NOON]}


def test_ttl_is_not_applied_online(store: MakeStore, tmp_path: Path) -> None:
    tiny = store(view(source(tmp_path, {**ROW, "at": [NOON - 240 * HOUR]}), ttl=HOUR))
    tiny.materialize(NOON - 1000 * HOUR, NOON)
    assert online(tiny, "facts:score", 1) == [0.5]


def test_empty_and_absent_lists_come_back_as_they_were(store: MakeStore, tmp_path: Path) -> None:
    tiny = store(view(source(tmp_path, ROW), SCORES, IDS))
    rows = {"user_id": [1, 2, 3], "scores": [[0.5], [], None], "ids": [[1], [], [3]], "at": [NOON] * 3}
    tiny.write_to_online_store("facts", frame(rows))
    assert online(tiny, "facts:scores", 1, 2, 3, 4) == [[0.5], [], None, None]
    assert online(tiny, "facts:ids", 1, 2, 3, 4) == [[1], [], [3], None]


def test_a_frame_without_a_single_value_is_dropped_so_a_list_is_cleared_with_an_empty_one(
    store: MakeStore, tmp_path: Path
) -> None:
    tiny = store(view(source(tmp_path, ROW), SCORES, IDS))
    tiny.write_to_online_store("facts", frame({"user_id": [1], "scores": [[0.5]], "ids": [[1]], "at": [NOON]}))
    nothing = {"user_id": [1], "scores": [None], "ids": [None], "at": [NOON + HOUR]}
    with pytest.warns(UserWarning, match="Cannot write dataframe with empty feature columns"):
        tiny.write_to_online_store("facts", frame(nothing))
    assert online(tiny, "facts:scores", 1) == [[0.5]]
    tiny.write_to_online_store("facts", frame({**nothing, "scores": [[]], "at": [NOON + 2 * HOUR]}))
    assert online(tiny, "facts:scores", 1) == [[]]
    assert online(tiny, "facts:ids", 1) == [None]


def test_parallel_lists_of_unequal_length_are_accepted(store: MakeStore, tmp_path: Path) -> None:
    tiny = store(view(source(tmp_path, ROW), SCORES, IDS))
    unequal = {"user_id": [1], "scores": [[0.5, 0.25, 0.125]], "ids": [[1]], "at": [NOON]}
    tiny.write_to_online_store("facts", frame(unequal))
    assert [online(tiny, name, 1) for name in ("facts:scores", "facts:ids")] == [[[0.5, 0.25, 0.125]], [[1]]]


def test_the_features_of_an_answer_are_not_in_the_order_that_was_asked_for(store: MakeStore, tmp_path: Path) -> None:
    names = [f"f{number}" for number in range(16)]  # one order in 16! is right by chance: it comes from a set
    row = {"user_id": [1], **{name: [1.0] for name in names}, "at": [NOON]}
    tiny = store(view(source(tmp_path, row), *(Field(name=name, dtype=Float64) for name in names)))
    answer = tiny.get_online_features([f"facts:{name}" for name in names], [{"user_id": 1}]).to_dict()
    assert [*answer] != ["user_id", *names]
    assert {*answer} == {"user_id", *names}


def test_of_an_absent_user_feast_says_present_and_only_the_time_tells(store: MakeStore, tmp_path: Path) -> None:
    tiny = store(view(source(tmp_path, ROW)))
    tiny.materialize(NOON - HOUR, NOON + HOUR)
    answer = tiny.get_online_features(["facts:score"], [{"user_id": 1}, {"user_id": 2}])
    score = answer.proto.results[list(answer.proto.metadata.feature_names.val).index("score")]
    # SQLite says NOT_FOUND, Redis PRESENT: test_redis.py.
    assert [time.seconds > 0 for time in score.event_timestamps] == [True, False]


def test_rows_of_another_entity_are_refused_by_the_missing_key(store: MakeStore, tmp_path: Path) -> None:
    # feast issue 3270: they once crashed far away from the mistake.
    tiny = store(view(source(tmp_path, ROW)))
    with pytest.raises(KeyError, match=r"Missing join key values for keys: \['user_id'\]"):
        tiny.get_online_features(["facts:score"], [{"ad_id": 1}])


def test_a_key_that_no_view_knows_is_left_out_without_a_word(store: MakeStore, tmp_path: Path) -> None:
    tiny = store(view(source(tmp_path, ROW)))
    tiny.materialize(NOON - HOUR, NOON + HOUR)
    assert tiny.get_online_features(["facts:score"], [{"user_id": 1, "ad_id": 2}]).to_dict() == {
        "user_id": [1],
        "score": [0.5],
    }


def test_the_entity_s_name_stands_for_its_join_key(store: MakeStore, tmp_path: Path) -> None:
    tiny = store(view(source(tmp_path, ROW)))
    tiny.materialize(NOON - HOUR, NOON + HOUR)
    with pytest.warns(UserWarning, match="Using entity name is deprecated"):
        answer = tiny.get_online_features(["facts:score"], [{"user": 1}]).to_dict()
    assert answer == {"user_id": [1], "score": [0.5]}


def test_precomputed_services_cannot_be_read(redis_store: MakeStore, tmp_path: Path) -> None:
    of = view(source(tmp_path, ROW))
    tiny = redis_store(of, FeatureService(name="all", features=[of], precompute_online=True))
    tiny.materialize(NOON - HOUR, NOON + HOUR)
    with pytest.raises(RuntimeError, match="pre-computed vectors could not be read"):
        tiny.get_online_features(tiny.get_feature_service("all"), [{"user_id": 1}])


# pandas 2.3 (2026-11): of a concatenation inside Feast.
@pytest.mark.filterwarnings("ignore:The behavior of DataFrame concatenation:FutureWarning")
def test_monitoring_a_view_with_lists_reports_success_over_nothing(store: MakeStore, tmp_path: Path) -> None:
    from feast.monitoring.monitoring_service import MonitoringService

    days = {"start_date": (NOON - 24 * HOUR).date(), "end_date": (NOON + 24 * HOUR).date()}
    computed = {}
    for features in ((SCORE,), (SCORE, SCORES)):
        monitor = MonitoringService(store(view(source(tmp_path, ROW), *features)))
        report = monitor.compute_metrics(project="tiny", feature_view_name="facts", **days)
        assert report["status"] == "completed"
        computed[len(features)] = report["computed_features"]
    assert computed == {1: 1, 2: 0}


def test_numbers_are_as_exact_online_as_they_were_written(store: MakeStore, tmp_path: Path) -> None:
    tiny = store(view(source(tmp_path, ROW), SCORE, IDS))
    score, largest = np.nextafter(0.1, 1.0), 2**63 - 1
    tiny.write_to_online_store(
        "facts", frame({"user_id": [largest], "score": [score], "ids": [[largest]], "at": [NOON]})
    )
    assert online(tiny, "facts:score", largest) == [score]
    assert online(tiny, "facts:ids", largest) == [[largest]]
