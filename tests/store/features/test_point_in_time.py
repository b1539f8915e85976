"""Training rows join the features of their own time, and those are the features that serving saw."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from feast.infra.utils.postgres.connection_utils import _get_conn
from sqlalchemy import Engine

from leadre.derivation import NEUTRAL, item_match, retrieved_ad_features
from leadre.domain.identity import id_of
from leadre.domain.retrieval import RetrievalList
from leadre.errors import FeatureRowMismatch, InvalidInput
from leadre.indexing.ad_index import AdIndex
from leadre.store.features import retrieval_log
from leadre.store.features.client import FeatureClient
from leadre.store.records.database import transaction

MakeList = Callable[..., RetrievalList]
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def training_rows(*rows: tuple[int, int, timedelta]) -> pd.DataFrame:
    """Return a frame of (user, ad, time after NOW) in this order, with a label."""
    users, target_ads, after = zip(*rows, strict=True)
    return pd.DataFrame(
        {
            "user_id": users,
            "ad_id": target_ads,
            "event_timestamp": pd.to_datetime([NOW + later for later in after], utc=True),
            "clicked": np.arange(len(rows)) % 2,
        }
    )


def test_a_row_sees_the_newest_list_of_its_past_and_none_of_its_future(
    features: FeatureClient, promoted: None, index: AdIndex, make_list: MakeList
) -> None:
    features.push_lists([make_list(7, 101, 102, 100)], index=index)
    features.push_lists([make_list(7, 100, at=NOW + timedelta(hours=1))], index=index)
    second, microsecond = timedelta(seconds=1), timedelta(microseconds=1)
    rows = training_rows(
        (7, 100, timedelta(hours=1)),  # the instant it was generated
        (7, 100, timedelta(hours=1) - microsecond),
        (7, 100, timedelta(0)),
        (7, 102, timedelta(0)),  # a second candidate of the same user and instant
        (7, 100, -microsecond),
        (7, 100, timedelta(days=7, hours=1)),  # as old as a list may be
        (7, 100, timedelta(days=7, hours=1) + second),
        (8, 100, timedelta(0)),
        (7, 999, timedelta(0)),
    )

    joined = features.point_in_time(rows)

    assert list(joined.columns[:4]) == list(rows.columns)
    pd.testing.assert_frame_equal(joined[list(rows.columns)], rows, check_dtype=False)
    assert joined["event_timestamp"].dt.tz is not None
    assert joined["rank"].tolist() == [1, 3, 3, 2, 0, 1, 0, 0, 0]
    ages = [0.0, 3600 - 1e-6, 0.0, 0.0, -1.0, 7 * 86_400.0, -1.0, -1.0, 0.0]
    assert joined["list_age_s"].tolist() == pytest.approx(ages, abs=1e-6)
    assert joined["retrieved_count"].tolist() == [1, 3, 3, 3, 0, 1, 0, 0, 3]
    for absent in (4, 6, 7):
        assert {name: joined[name][absent] for name in NEUTRAL} == NEUTRAL


def test_the_join_the_online_store_and_the_function_give_the_same_bits(
    features: FeatureClient, promoted: None, index: AdIndex, make_list: MakeList, database: Engine
) -> None:
    rng = np.random.default_rng(11)
    users, candidates = (21, 22, 23, 24), [*range(100, 130), 555]
    lists = []
    for user, length in zip(users, (20, 3, 1, 0), strict=True):
        retrieved = rng.permutation(np.arange(100, 130))[:length].tolist()
        at = NOW + timedelta(microseconds=int(rng.integers(10**9)))
        lists.append(make_list(user, *retrieved, at=at, step=float(rng.random())))
    features.push_lists(lists, index=index)
    with transaction(database) as connection:
        logged = retrieval_log.newest(connection, users)
    later = NOW + timedelta(hours=1, microseconds=333_333)
    features.materialize(now=later)

    rows = training_rows(*((user, ad_id, later - NOW) for user in (*users, 25) for ad_id in candidates))
    joined = features.point_in_time(rows)
    names = [name for name in joined.columns if name not in rows.columns]
    assert set(NEUTRAL) < set(names)
    for user in (*users, 25):
        online = features.ranker_features(user, candidates, now=later)
        part = joined[joined["user_id"] == user]
        for name in names:
            assert [_plain(value) for value in part[name]] == [_plain(value) for value in online[name]], name
        first, second = index.categories_at(index.rows(np.array(candidates[:-1])))
        record = logged[user]["record"] if user in logged else None
        columns = {
            "retrieved_list": [record] * len(candidates),
            "request_time_s": [later.timestamp()] * len(candidates),
            "ad_id": candidates,
            "indexed_first_category": [*first, None],
            "indexed_second_category": [*second, None],
            "indexed_advertiser_id": [*index.advertiser_ids[index.rows(np.array(candidates[:-1]))].tolist(), None],
            "sid": [*(str(index.sid(ad_id)) for ad_id in candidates[:-1]), None],
            "embedding": [*index.embeddings[index.rows(np.array(candidates[:-1]))].tolist(), None],
            "ad_index_version": [*[index.version] * (len(candidates) - 1), None],
        }
        for derive in (item_match, retrieved_ad_features):
            assert all(values == online[name] for name, values in derive(columns).items())


def _plain(value: object) -> object:
    """Return Feast's value without its dress: the join gives arrays and NaN, the online store lists and None."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    return value


def test_the_join_on_analysed_tables_plans_no_nested_loops(
    features: FeatureClient, promoted: None, index: AdIndex, make_list: MakeList, database: Engine
) -> None:
    lists = [make_list(user, *range(100, 105), at=NOW - timedelta(hours=h)) for user in range(1500) for h in (1, 2)]
    features.push_lists(lists[::2], index=index)  # at most one a user
    features.push_lists(lists[1::2], index=index)
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")
    rows = training_rows(*((n % 1500, 100 + n % 30, timedelta(seconds=n)) for n in range(3000)))
    joined = features.point_in_time(rows)
    assert joined["hit"].sum() == 500
    assert joined["user_id"].tolist() == rows["user_id"].tolist()
    with _get_conn(features.store.config.offline_store) as connection:
        assert connection.execute("SHOW enable_nestloop").fetchone() == ("off",)
        assert connection.execute("SHOW search_path").fetchone() == ("feast_registry,public",)


def test_rows_that_the_join_doubles_or_drops_raise(
    features: FeatureClient, promoted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = training_rows((7, 100, timedelta(0)), (7, 101, timedelta(0)), (7, 102, timedelta(0)))
    whole = features.store.get_historical_features

    class Losing:
        def __init__(self, **arguments: object) -> None:
            self.arguments = arguments

        def to_arrow(self) -> pa.Table:
            found = whole(**self.arguments).to_arrow()
            return found.slice(0, max(1, found.num_rows - 1))

    monkeypatch.setattr(features.store, "get_historical_features", Losing)
    with pytest.raises(FeatureRowMismatch, match="2 rows for 3"):
        features.point_in_time(rows)


@pytest.mark.parametrize("dtype", ["object", "string", "category", "str"])
def test_rows_with_the_owners_ids_join_and_come_back_as_they_came(
    features: FeatureClient, promoted: None, index: AdIndex, make_list: MakeList, dtype: str
) -> None:
    features.push_lists([make_list(id_of("Jörg/Ö"), 104, 100), make_list(7, 101)], index=index)
    rows = training_rows(*((7, 101, timedelta(0)) for _ in range(5))).set_index(pd.Index([3, 1, 4, 5, 9]))
    rows["user_id"] = pd.Series(["Jörg/Ö", "7", "Jörg/Ö", "Jörg/Ö", "nobody"], rows.index).astype(dtype)
    rows["ad_id"] = [100, "101", "SKU-404", np.int64(104), 104]

    joined = features.point_in_time(rows)

    assert joined["rank"].tolist() == [2, 1, 0, 1, 0]
    pd.testing.assert_frame_equal(joined[["user_id", "ad_id"]], rows[["user_id", "ad_id"]].reset_index(drop=True))
    assert rows["ad_id"].tolist() == [100, "101", "SKU-404", 104, 104]  # the frame given is not written to


@pytest.mark.parametrize("dtype", ["int64", "uint64", "int32", "Int64"])
def test_numbers_of_any_width_are_ids(
    features: FeatureClient, promoted: None, index: AdIndex, make_list: MakeList, dtype: str
) -> None:
    features.push_lists([make_list(7, 101)], index=index)
    rows = training_rows((7, 101, timedelta(0)), (7, 102, timedelta(0))).astype({"user_id": dtype, "ad_id": dtype})
    joined = features.point_in_time(rows)
    assert joined["rank"].tolist() == [1, 0]
    assert joined["ad_id"].dtype == rows["ad_id"].dtype


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda rows: rows.assign(user_id=[" ann"]), "column 'user_id': ' ann' is no id"),
        (lambda rows: rows.assign(ad_id=[100.0]), "column 'ad_id': .*100.0.* is no id"),
        (lambda rows: rows.assign(ad_id=pd.array([None], "Int64")), "column 'ad_id': .*NA.* is no id"),
        (lambda rows: rows.assign(ad_id=[None]), "column 'ad_id': None is no id"),
        (lambda rows: rows.drop(columns="ad_id"), r"\['ad_id'\]"),
        (lambda rows: rows.assign(event_timestamp=rows["event_timestamp"].dt.tz_localize(None)), "zone"),
        (lambda rows: rows.iloc[:0], "no training rows"),
    ],
)
def test_rows_that_cannot_be_joined_are_refused(
    features: FeatureClient, change: Callable[[pd.DataFrame], pd.DataFrame], problem: str
) -> None:
    with pytest.raises(InvalidInput, match=problem):
        features.point_in_time(change(training_rows((7, 100, timedelta(0)))))
