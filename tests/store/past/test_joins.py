"""One training set, three ways to join it: PostgreSQL, DuckDB over Parquet, Feast alone. The same bits."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore
from feast.infra.utils.postgres.connection_utils import _get_conn
from numpy.typing import NDArray
from sqlalchemy import Engine, text

from leadre.derivation import NEUTRAL, USER_NEUTRAL
from leadre.domain.retrieval import RetrievalList
from leadre.errors import ConfigError
from leadre.indexing.ad_index import AdIndex
from leadre.settings import Settings
from leadre.store.features.client import FeatureClient
from leadre.store.features.point_in_time import RankerJoin
from leadre.store.past.export import export_sources
from leadre.store.past.joins import open_join
from leadre.store.records.database import transaction

MakeList = Callable[..., RetrievalList]
Rows = dict[str, NDArray[np.int64]]
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SINCE, UNTIL = NOW - timedelta(days=3), NOW + timedelta(days=30)


@pytest.fixture
def rows(features: FeatureClient, promoted: None, index: AdIndex, make_list: MakeList, database: Engine) -> Rows:
    """A log with every kind of hole, and rows of all its users and ads at times around it."""
    day = timedelta(days=1)
    for number, at in enumerate((NOW - 20 * day, NOW - day, NOW, NOW + 3 * day)):
        kept = [make_list(user, *range(100 + user, 110 + number), at=at) for user in range(6)]
        features.push_lists([*kept, make_list(6, at=at), make_list(7, 101, at=at)], index=index)
    other = replace(index, version="index-2")
    features.push_lists([replace(make_list(8, 100, 104), index_version="index-2")], index=other)
    with transaction(database) as connection:
        connection.execute(
            text("UPDATE retrieval_log SET record = 'junk' WHERE user_id = 7 AND event_at = :now"), {"now": NOW}
        )
        connection.execute(text("UPDATE ads SET event_at = :later WHERE ad_id = 103"), {"later": NOW + 9 * day})
    rng = np.random.default_rng(3)
    users, ads = np.meshgrid(np.arange(10), np.array([100, 103, 104, 109, 129, 777]), indexing="ij")
    repeat = 7
    spread = rng.integers(-2 * 86_400, 12 * 86_400, (repeat, users.size)) * 10**6 + rng.integers(0, 10**6, users.size)
    at_us = (int(NOW.timestamp()) * 10**6 + spread).ravel()
    order = rng.permutation(at_us.size)
    return {
        "user_ids": np.tile(users.ravel(), repeat)[order],
        "ad_ids": np.tile(ads.ravel(), repeat)[order],
        "requested_at_us": at_us[order],
    }


@pytest.fixture
def joined(applied: Settings, database: Engine, rows: Rows) -> Iterator[dict[str, pa.Array]]:
    """The rows as PostgreSQL joins them."""
    join = open_join(
        applied.feature_repo,
        applied.feast_environment(),
        database,
        engine="postgres",
        sources=Path(),
        since=SINCE,
        until=UNTIL,
    )
    yield join.features(**rows)[1]
    join.close()


@pytest.fixture
def parquet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget afterwards where the sources are."""
    monkeypatch.setenv("LEADRE_FEAST_PARQUET", "")


def test_feast_alone_gives_the_same_values(features: FeatureClient, rows: Rows, joined: dict[str, pa.Array]) -> None:
    frame = pd.DataFrame(
        {
            "user_id": rows["user_ids"],
            "ad_id": rows["ad_ids"],
            "event_timestamp": pd.to_datetime(rows["requested_at_us"], unit="us", utc=True),
            "request_time_s": rows["requested_at_us"] / 1e6,
            "row": np.arange(len(rows["ad_ids"])),
        }
    )
    service = features.store.get_feature_service("ranker_features_v1")
    plain = features.store.get_historical_features(entity_df=frame, features=service).to_arrow().sort_by("row")
    assert set(joined) == {*NEUTRAL, *USER_NEUTRAL, "first_category", "second_category", "advertiser_id", "bid"}
    for name, values in joined.items():
        assert plain[name].to_pylist() == values.to_pylist(), name
    assert len(set(joined["rank"].to_pylist())) > 5
    assert {row.as_py() for row in joined["retrieved_count"].unique()} > {0, 1, 10}


def test_duckdb_gives_the_same_bits(
    applied: Settings, database: Engine, rows: Rows, joined: dict[str, pa.Array], tmp_path: Path, parquet: None
) -> None:
    join = open_join(
        applied.feature_repo,
        applied.feast_environment(),
        database,
        engine="duckdb",
        sources=tmp_path / "sources",
        since=SINCE,
        until=UNTIL,
    )
    stored, found = join.features(**rows)
    assert list(found) == list(joined)
    for name, values in joined.items():
        assert values.equals(found[name]), name
    assert sorted(path.name for path in (tmp_path / "sources/retrieval_log").iterdir()) == [
        "2026-02.parquet",
        "2026-03.parquet",
    ]
    some = join.features(**rows, names=("hit", "entropy"))[1]
    assert list(some) == ["entropy", "hit"]
    assert some["entropy"].equals(joined["entropy"])
    assert stored.alive.sum() == sum(count > 0 for count in joined["retrieved_count"].to_pylist())


def test_an_export_holds_whole_months_and_overwrites_them(
    applied: Settings, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in applied.feast_environment().items():
        monkeypatch.setenv(name, value)

    def exported(since: datetime | None, until: datetime) -> dict[str, int]:
        return export_sources(
            applied.feature_repo, applied.database_url, tmp_path, names=("retrieved_ads",), since=since, until=until
        )

    assert exported(None, UNTIL) == {"retrieval_log": 33}
    assert exported(NOW, NOW + timedelta(days=1)) == {"retrieval_log": 9}
    rows_of = {path.name: pq.read_metadata(path).num_rows for path in (tmp_path / "retrieval_log").glob("*.parquet")}
    assert rows_of == {"2026-02.parquet": 16, "2026-03.parquet": 9}
    assert not list(tmp_path.rglob(".*"))
    with pytest.raises(ConfigError, match="no feature view 'nonsense'"):
        export_sources(applied.feature_repo, applied.database_url, tmp_path, names=("nonsense",), since=None, until=NOW)


def test_a_role_that_plans_no_nested_loops_does_without_start_up_options(
    applied: Settings, rows: Rows, joined: dict[str, pa.Array], database: Engine, tmp_path: Path
) -> None:
    repo = Path(shutil.copytree(applied.feature_repo, tmp_path / "repo", ignore=shutil.ignore_patterns("__pycache__")))
    yaml = (repo / "feature_store.yaml").read_text()
    options = "feast_registry -c enable_nestloop=off -c search_path=feast_registry"
    assert options in yaml
    (repo / "feature_store.yaml").write_text(yaml.replace(options, "feast_registry"))
    with transaction(database) as connection:
        role, name = connection.execute(text("SELECT current_user, current_database()")).one()
        connection.execute(text(f"ALTER ROLE {role} IN DATABASE {name} SET enable_nestloop = off"))
    os.environ.update(applied.feast_environment())
    join = RankerJoin.over(FeatureStore(repo_path=str(repo)))
    found = join.features(**rows)[1]
    join.close()
    assert all(values.equals(found[name]) for name, values in joined.items())
    with _get_conn(join.store.config.offline_store) as connection:
        assert connection.execute("SHOW enable_nestloop").fetchone() == ("off",)
        assert connection.execute("SHOW search_path").fetchone() == ("feast_registry,public",)
