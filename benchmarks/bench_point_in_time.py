"""How fast is a ranker's training set joined? PostgreSQL and DuckDB, beside Feast alone with its on-demand views.

LEADRE §5.3. A log of one list a day and user, of 20 ads each; rows are slates of 10 ads shown to a user at one time. 16
features a row: the 14 match scores, entropy and expected eCPM. Every engine joins the same rows, in rounds that take
turns, and their values are compared bit for bit; medians of the rounds. `postgres_rows_per_s` and `duckdb_rows_per_s`
are of finished rows; `duckdb_join_rows_per_s` counts Feast's join alone, before anything is derived. Where the time
goes: `*_join_s`, `*_unpack_s` (from Arrow to arrays of lists), `*_match_s`.

Usage: python benchmarks/bench_point_in_time.py [--rows N] [--rounds N] [--peer-rows N] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from servers import own_servers, print_figures
from sqlalchemy import Engine, text

from leadre.derivation import NEUTRAL, pack
from leadre.derivation.user_side import derive
from leadre.domain.semantic_id import SemanticId
from leadre.settings import Settings
from leadre.store.features import retrieval_log
from leadre.store.features.command import run_feast
from leadre.store.features.point_in_time import RankerJoin, columns, join
from leadre.store.past.joins import open_join
from leadre.store.records.bulk import copy_rows
from leadre.store.records.database import connect, migrate, transaction
from leadre.store.records.tables import ads as ads_table
from leadre.store.records.tables import index_versions, releases, semantic_ids

FEATURES = (*NEUTRAL, "entropy", "expected_ecpm")
ADS, LIST, LEVELS, WIDTH, DAYS, SLATE = 5_000, 20, 5, 8, 30, 10
END = datetime(2026, 3, 31, tzinfo=UTC)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="of the training set")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer-rows", type=int, default=20_000, help="that Feast alone joins and derives")
    parser.add_argument("--quick", action="store_true", help="5,000 rows, 1,000 for the peer, 1 round")
    parser.add_argument("--json", action="store_true", help="JSON on the last line instead of a table")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rows, arguments.peer_rows, arguments.rounds = 5_000, 1_000, 1
    with own_servers() as settings:
        figures = measure(settings, rows=arguments.rows, peer_rows=arguments.peer_rows, rounds=arguments.rounds)
    print_figures(figures, as_json=arguments.json)


def measure(settings: Settings, *, rows: int, peer_rows: int, rounds: int) -> dict[str, float]:
    """Return the figures: rows a second by engine, and seconds of each part."""
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="ibis")  # of DuckDB, by ibis
    migrate(settings.database_url)
    os.environ.update(settings.feast_environment())
    run_feast(settings.feature_repo, "apply")
    database = connect(settings.database_url)
    fill(database, users=max(100, rows // 50))
    postgres, duckdb = (
        open_join(
            settings.feature_repo,
            settings.feast_environment(),
            database,
            engine=engine,
            sources=settings.home / "sources",
            since=END - timedelta(days=DAYS),
            until=END,
        )
        for engine in ("postgres", "duckdb")
    )
    asked = make_rows(rows, users=max(100, rows // 50))
    clock: dict[str, list[float]] = {}
    for number in range(rounds + 1):  # the first round warms everything up
        found = {}
        for name, way in (("postgres", postgres), ("duckdb", duckdb)):
            with parts(name) as spent:
                began = time.perf_counter()
                _, found[name] = way.features(**asked, names=FEATURES)
                spent[f"{name}_s"] = time.perf_counter() - began
            note(clock, spent, number)
        for feature in FEATURES:
            if not found["postgres"][feature].equals(found["duckdb"][feature]):
                raise AssertionError(f"{feature} differs between PostgreSQL and DuckDB")
        began = time.perf_counter()
        peer = peer_frame(postgres, {name: values[:peer_rows] for name, values in asked.items()})
        note(clock, {"peer_s": time.perf_counter() - began}, number)
        for feature in FEATURES:
            if (
                not pa.array(peer[feature])
                .cast(found["postgres"][feature].type)
                .equals(found["postgres"][feature][:peer_rows])
            ):
                raise AssertionError(f"{feature} differs from Feast's on-demand view")
    database.dispose()
    seconds = {name: median(values) for name, values in clock.items()}
    return {
        "rows": rows,
        "columns": len(FEATURES),
        "postgres_rows_per_s": rows / seconds["postgres_s"],
        "duckdb_join_rows_per_s": rows / seconds["duckdb_join_s"],
        "duckdb_rows_per_s": rows / seconds["duckdb_s"],
        "feast_odfv_rows_per_s": min(rows, peer_rows) / seconds["peer_s"],
        **{name: value for name, value in seconds.items() if name.count("_") > 1 or name == "peer_s"},
    }


class parts:  # noqa: N801 - a context manager, used like a function
    """Time the join, the reading of records and the match, by wrapping the functions that do them."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._spent: dict[str, float] = {}
        self._kept: dict[str, Any] = {}

    def __enter__(self) -> dict[str, float]:
        for module, name, part in ((join, "_joined", "join"), (join, "unpack", "unpack"), (columns, "match", "match")):
            self._kept[name] = module, getattr(module, name)
            setattr(module, name, self._timed(getattr(module, name), f"{self._engine}_{part}_s"))
        return self._spent

    def __exit__(self, *_: object) -> None:
        for name, (module, function) in self._kept.items():
            setattr(module, name, function)

    def _timed(self, function: Any, part: str) -> Any:
        def timed(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self._spent[part] = self._spent.get(part, 0.0) + time.perf_counter() - began

        return timed


def note(clock: dict[str, list[float]], spent: dict[str, float], number: int) -> None:
    """Keep the seconds of a round, but for the first."""
    for name, value in spent.items():
        if number:
            clock.setdefault(name, []).append(value)


def peer_frame(way: RankerJoin, asked: dict[str, NDArray[np.int64]]) -> pd.DataFrame:
    """Return what `get_historical_features` alone gives, in the rows' order."""
    frame = pd.DataFrame(
        {
            "user_id": asked["user_ids"],
            "ad_id": asked["ad_ids"],
            "event_timestamp": pd.to_datetime(asked["requested_at_us"], unit="us", utc=True),
            "request_time_s": asked["requested_at_us"] / 1e6,
            "row": np.arange(len(asked["user_ids"])),
        }
    )
    service = way.store.get_feature_service("ranker_features_v1")
    return way.store.get_historical_features(entity_df=frame, features=service).to_df().sort_values("row")


def make_rows(rows: int, *, users: int) -> dict[str, NDArray[np.int64]]:
    """Return slates of `SLATE` ads, at times of the last three weeks."""
    rng = np.random.default_rng(1)
    slates = -(-rows // SLATE)
    user_ids = np.repeat(rng.integers(0, users, slates), SLATE)[:rows]
    before_us = rng.integers(0, (DAYS - 9) * 86_400 * 10**6, slates)
    at_us = np.repeat(int(END.timestamp() * 1e6) - 1 - before_us, SLATE)[:rows]
    return {"user_ids": user_ids, "ad_ids": rng.integers(0, ADS, rows), "requested_at_us": at_us}


def fill(database: Engine, *, users: int) -> None:
    """Write ads, their index, and a list a day and user; then analyse the tables."""
    rng = np.random.default_rng(0)
    long_ago = END - timedelta(days=100)
    names = [f"first {n}" for n in range(8)] + [f"second {n}" for n in range(40)]
    first, second = rng.integers(0, 8, ADS), 8 + rng.integers(0, 40, ADS)
    advertisers, codes = rng.integers(1, 300, ADS), rng.integers(0, 1024, (ADS, LEVELS))
    embeddings = rng.normal(size=(ADS, WIDTH)).astype(np.float32)
    facts = [(names[first[n]], names[second[n]], int(advertisers[n])) for n in range(ADS)]
    with transaction(database) as connection:
        columns = (
            "ad_id",
            "source_id",
            "name",
            "first_category",
            "second_category",
            "advertiser_id",
            "bid",
            "event_at",
        )
        rows: Iterator[Any] = ((n, f"SKU-{n}", f"ad {n}", *facts[n], 1.0 + n / 1e3, long_ago) for n in range(ADS))
        copy_rows(connection, ads_table, columns, rows, key=["ad_id"])
        connection.execute(index_versions.insert(), {"index_version": "i1", "uri": "", "recipe": {}, "quality": {}})
        release = {"release": "r1", "index_version": "i1", "uri": "", "recipe": {}, "metrics": {}}
        connection.execute(releases.insert(), {**release, "status": "live", "promoted_at": long_ago})
        columns = ("index_version", "ad_id", "sid", "codes", "embedding", "event_at")
        columns += ("first_category", "second_category", "advertiser_id")
        rows = (
            ("i1", n, str(SemanticId(tuple(codes[n].tolist()))), codes[n].tolist(), embeddings[n].tolist(), long_ago)
            + facts[n]
            for n in range(ADS)
        )
        copy_rows(connection, semantic_ids, columns, rows, key=["index_version", "ad_id"])
        for day in range(1, DAYS + 1):
            at = (END - timedelta(days=day)).timestamp() + 60
            retrieved = rng.integers(0, ADS, users * LIST)
            lists = derive(
                counts=[LIST] * users,
                ad_ids=retrieved,
                log_probabilities=-np.sort(rng.exponential(2, (users, LIST)), axis=1).ravel(),
                codes=codes[retrieved],
                first_categories=first[retrieved],
                second_categories=second[retrieved],
                category_names=names,
                advertiser_ids=advertisers[retrieved],
                embeddings=embeddings[retrieved],
                ecpms=rng.uniform(1, 5, users * LIST),
                generated_at_s=at,
                behavior_at_s=at - 3600,
                release="r1",
                index_version="i1",
            )
            retrieval_log.append(connection, np.arange(users), lists, pack(lists))
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))


if __name__ == "__main__":
    main()
