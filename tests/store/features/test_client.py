"""The Feast client on real servers: contexts, lists, ranker features."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from feast import FeatureStore
from sqlalchemy import Engine

from leadre.derivation import NEUTRAL, USER_NEUTRAL, pack
from leadre.domain.behavior import Action, Domain, Impression
from leadre.domain.identity import id_of
from leadre.domain.retrieval import RetrievalList
from leadre.domain.users import InterestSummary, Profile
from leadre.errors import FeatureRowMismatch, InvalidInput, Unavailable
from leadre.evaluation.diversity import mean_ecpm
from leadre.indexing.ad_index import AdIndex
from leadre.store.features.client import FeatureClient
from leadre.store.records.database import transaction
from leadre.store.records.ecpm import read_ecpm, read_ecpm_log
from leadre.store.records.events import upsert_impressions
from leadre.store.records.partitions import ensure_months
from leadre.store.records.tables import behavior_sequences, interest_summaries, users

MakeList = Callable[..., RetrievalList]
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def histories(database: Engine) -> None:
    """User 1 with everything; user 2 with a profile alone."""

    def sequence(domain: str, *, seconds: list[float], ordinals: list[int]) -> dict[str, object]:
        return {
            "user_id": 1,
            "domain": domain,
            "event_at": NOW,
            "item_ids": [len(domain) * 10 + n for n in range(len(seconds))],
            "actions": ["click" if domain == "ad" else "watch"] * len(seconds),
            "titles": [f"{domain} {n}" for n in range(len(seconds))],
            "occurred_at_s": [NOW.timestamp() + s for s in seconds],
            "ordinals": ordinals,
        }

    with transaction(database) as connection:
        for table in ("interest_summaries", "behavior_sequences"):
            ensure_months(connection, table, [NOW])
        rows = [{"user_id": n, "source_id": str(n), "sex": "female", "event_at": NOW} for n in (1, 2)]
        connection.execute(users.insert(), [{**rows[0], "age": 31}, {**rows[1], "age": None}])
        for table in (interest_summaries, behavior_sequences):
            ensure_months(connection, table.name, [NOW])
        connection.execute(
            interest_summaries.insert(),
            {
                "user_id": 1,
                "event_at": NOW,
                "categories": ["toys", "tea"],
                "counts": [5, 2],
                "disliked_categories": ["cars"],
                "disliked_counts": [3],
            },
        )
        connection.execute(behavior_sequences.insert(), sequence("ad", seconds=[-30.5, -10, 60], ordinals=[0, 2, 0]))
        connection.execute(behavior_sequences.insert(), sequence("content", seconds=[-20, -10], ordinals=[0, 1]))


def test_a_context_merges_both_domains_in_time_order_and_ends_now(features: FeatureClient, histories: None) -> None:
    features.refresh_user_features([1, 2], now=NOW)

    full, profile_only, unknown = features.contexts([1, 2, 3], now=NOW)

    assert full.profile == Profile(user_id=1, age=31, sex="female")
    assert full.summary == InterestSummary(liked=(("toys", 5), ("tea", 2)), disliked=(("cars", 3),))
    assert [known.title for known in full.behaviors] == ["ad 0", "content 0", "content 1", "ad 1"]
    assert full.behaviors[0].behavior.occurred_at == NOW - timedelta(seconds=30.5)
    assert [known.behavior.domain for known in full.behaviors[:2]] == [Domain.AD, Domain.CONTENT]
    assert full.behaviors[1].behavior.action is Action.WATCH
    assert profile_only.profile == Profile(user_id=2, sex="female")
    assert (unknown.profile, unknown.behaviors) == (Profile(user_id=3), ())
    assert unknown.summary == InterestSummary()
    assert len(features.contexts([1], now=NOW + timedelta(minutes=1))[0].behaviors) == 5


def test_a_sequence_with_unequal_lists_is_refused_not_cut(
    features: FeatureClient, histories: None, database: Engine
) -> None:
    with transaction(database) as connection:
        connection.exec_driver_sql("UPDATE behavior_sequences SET titles = '{one}' WHERE domain = 'ad'")
    features.refresh_user_features([1], now=NOW)
    with pytest.raises(FeatureRowMismatch, match=r"ad sequence of user 1 has lists of \[3, 3, 1, 3, 3\]"):
        features.contexts([1], now=NOW)


def test_pushed_lists_are_read_back(features: FeatureClient, index: AdIndex, make_list: MakeList) -> None:
    features.push_lists([make_list(7, 100, 104, 101), make_list(8)], index=index)
    three, none, unknown = features.retrieval_lists([7, 8, 9])
    assert unknown is None
    assert three is not None
    assert none is not None
    assert (three.ad_ids, none.ad_ids) == ((100, 104, 101), ())
    assert features.retrieval_lists([]) == []


def test_a_stock_sdk_reads_the_record_that_was_written(
    features: FeatureClient, stock: FeatureStore, index: AdIndex, make_list: MakeList
) -> None:
    written = features.push_lists([make_list(7, 100, 104, 101), make_list(8)], index=index)
    asked = [{"user_id": user_id} for user_id in (7, 8, 9)]
    read = stock.get_online_features(["retrieved_ads:retrieved_list"], asked)
    assert read.to_dict()["retrieved_list"] == [*pack(written), None]
    times = read.proto.results[list(read.proto.metadata.feature_names.val).index("retrieved_list")].event_timestamps
    assert times[0].ToDatetime(UTC) == NOW


def test_the_expected_ecpm_is_in_the_unit_of_the_log_and_of_evaluation(
    features: FeatureClient, promoted: None, index: AdIndex, make_list: MakeList, database: Engine
) -> None:
    shown = [
        Impression(
            user_id=user_id,
            ad_id=ad_id,
            occurred_at=NOW,
            ecpm=284.0 + of_user,
            clicked=False,
            converted=False,
            simulated=False,
        )
        for ad_id in (100, 104, 101)
        for user_id, of_user in ((1, 60.0), (2, -60.0))
    ]
    with transaction(database) as connection:
        upsert_impressions(connection, shown, arrived_at=NOW)
        ecpm = read_ecpm(connection, [100, 104, 101], log=read_ecpm_log(connection))
    alike, other = make_list(7, 100, 104, 101), make_list(8, 129)  # ad 129 was never shown, and bids 1.29
    written = features.push_lists([alike, other], index=index)

    assert written.expected_ecpm[0] == pytest.approx(284.0)
    assert mean_ecpm(np.array([[ecpm[ad] for ad in (100, 104, 101)]]), cutoff=8) == pytest.approx(284.0)
    assert written.expected_ecpm[1] == pytest.approx(3 * 284.0 / (1.0 + 1.04 + 1.01) * 1.29)


def test_ranker_features_of_present_absent_expired_and_future_lists(
    features: FeatureClient, promoted: None, index: AdIndex, make_list: MakeList
) -> None:
    assert features.materialize(now=NOW).read["ad_index"] == 30
    features.push_lists([make_list(7, 100, 104)], index=index)

    row = features.ranker_features(7, [104, 100, 777], now=NOW + timedelta(seconds=9))

    assert row["ad_id"] == [104, 100, 777]
    assert (row["hit"], row["rank"]) == ([1, 1, 0], [2, 1, 0])
    assert row["list_age_s"] == [9.0] * 3
    assert row["longest_shared_prefix"][:2] == [2, 2]
    assert sum(row["probability"]) == pytest.approx(1)
    assert row["bid"] == [1.04, 1.0, None]
    for user_id, now in ((8, NOW), (7, NOW + timedelta(days=7, seconds=1)), (7, NOW - timedelta(seconds=1))):
        absent = features.ranker_features(user_id, [100], now=now)
        assert {name: absent[name][0] for name in NEUTRAL} == NEUTRAL
        assert {name: absent[name][0] for name in USER_NEUTRAL} == {
            name: [] if value == () else value for name, value in USER_NEUTRAL.items()
        }
    assert features.ranker_features(7, [], now=NOW) == {}


def test_a_ranker_asks_with_its_own_ids_and_gets_them_back(
    features: FeatureClient, promoted: None, index: AdIndex, make_list: MakeList
) -> None:
    features.push_lists([make_list(id_of("Jörg/Ö"), 104, 100), make_list(7, 101)], index=index)
    candidates = ("SKU-404", "100", 104, np.int64(101))

    row = features.ranker_features("Jörg/Ö", candidates, now=NOW)

    assert row["ad_id"] == list(candidates)
    assert all(found is given for found, given in zip(row["ad_id"], candidates, strict=True))
    assert row["rank"] == [0, 2, 1, 0]
    assert features.ranker_features("7", [101], now=NOW)["hit"] == [1]
    for user, ads in (("", [101]), (7, [101, True]), (7, ["a\nb"])):
        with pytest.raises(InvalidInput, match="is no id"):
            features.ranker_features(user, ads, now=NOW)


def test_an_index_that_was_never_promoted_is_not_served(
    features: FeatureClient, promoted: None, database: Engine
) -> None:
    with transaction(database) as connection:
        connection.exec_driver_sql("UPDATE releases SET promoted_at = NULL, status = 'candidate'")
    assert features.materialize(now=NOW).read["ad_index"] == 0


def test_a_silent_redis_is_unavailable(features: FeatureClient, monkeypatch: pytest.MonkeyPatch) -> None:
    import redis

    def silent(*_: object, **__: object) -> None:
        raise redis.ConnectionError("refused")

    monkeypatch.setattr(features.store, "get_online_features", silent)
    with pytest.raises(Unavailable, match="Redis"):
        features.contexts([1], now=NOW)
