"""How fast are lists written? Derived, packed, set online, logged; beside Feast's own writes and a bare COPY.

LEADRE §4.4.1, §5.3. Lists of 20 ads, S-IDs of 5 codes, embeddings of 8 numbers, 256 lists a batch; durable servers of
its own in a temporary folder. Every way writes the same lists, in rounds that take turns; medians of the rounds. Feast
and COPY are handed what ours derives and packs within its time. `per_cpu_s` counts this process's CPU seconds instead
of the clock's, which other programs on the machine do not enter (nor do the servers).

Usage: python benchmarks/bench_feature_writer.py [--batches N] [--rounds N] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import redis
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, RepoConfig, ValueType
from feast.types import Array, Bytes, Float32, Float64, Int64, String
from servers import own_servers, print_figures
from sqlalchemy import text

from leadre.derivation import Lists, pack
from leadre.derivation.lists import SHARE
from leadre.derivation.user_side import derive
from leadre.domain.retrieval import Beam, RetrievalList
from leadre.domain.semantic_id import sid_texts
from leadre.indexing.ad_index import AdIndex
from leadre.store.features import retrieval_log
from leadre.store.features.layout import field, timestamp_field, timestamp_value, user_keys
from leadre.store.features.list_writer import ListWriter, derive_lists, set_lists
from leadre.store.features.online_rows import set_rows
from leadre.store.records.database import connect, migrate, transaction

LISTS, ADS, TTL_S = 256, 20, 86_400
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
COLUMNS = ", ".join(retrieval_log.COLUMNS)
FORMER = {
    **dict.fromkeys(("retrieved_ad_ids", "retrieved_advertiser_ids"), Array(Int64)),
    **dict.fromkeys(("retrieved_sids", "retrieved_first_categories", "retrieved_second_categories"), Array(String)),
    **dict.fromkeys(("retrieved_log_probabilities", "retrieved_probabilities"), Array(Float64)),
    **dict.fromkeys(("retrieved_embeddings", "mean_embedding"), Array(Float32)),
    **dict.fromkeys(("top_probability", "entropy", "category_concentration", "expected_ecpm"), Float64),
    **dict.fromkeys(("generated_at_s", "behavior_at_s"), Float64),
    "categories": Array(String),
    "category_probabilities": Array(Float64),
    "retrieved_count": Int64,
    **dict.fromkeys(("release", "index_version"), String),
}
"""The view before a list was one record: 20 features."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ads", type=int, default=20_000, help="of the index")
    parser.add_argument("--batches", type=int, default=16, help="of 256 lists, a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="2,000 ads, 1 batch, 1 round")
    parser.add_argument("--json", action="store_true", help="JSON on the last line instead of a table")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.ads, arguments.batches, arguments.rounds = 2_000, 1, 1
    with own_servers() as settings:
        figures = measure(
            settings.database_url,
            settings.redis_url,
            folder=settings.home,
            ads=arguments.ads,
            batches=arguments.batches,
            rounds=arguments.rounds,
        )
    print_figures(figures, as_json=arguments.json)


def measure(
    database_url: str, redis_url: str, *, folder: Path, ads: int, batches: int, rounds: int
) -> dict[str, float]:
    """Return the figures: rows a second by way of writing, and bytes."""
    migrate(database_url)
    index = make_index(ads)
    made = [make_lists(index, batch) for batch in range(batches)]
    database, online = connect(database_url), redis.Redis.from_url(redis_url)
    writer = ListWriter(database=database, online=online, project="logged", ttl_s=TTL_S)
    feast = make_feast(folder, redis_url)
    with transaction(database) as connection:
        connection.execute(text("CREATE TABLE twin (LIKE retrieval_log INCLUDING ALL)"))

    def derived_from(lists: Sequence[RetrievalList]) -> tuple[Lists, list[bytes]]:
        derived = derive_lists(lists, index=index, ecpm_of=np.ones_like)
        return derived, pack(derived)

    def ours(lists: Sequence[RetrievalList]) -> None:
        derived, records = derived_from(lists)
        ids = np.array([of_user.user_id for of_user in lists])
        set_lists(online, ids, derived, records, project="ours", ttl_s=TTL_S)

    clock: dict[str, list[tuple[float, float]]] = {}
    with closing(psycopg.connect(database_url)) as copying:
        for number in range(rounds + 1):  # the first round warms everything up
            now = NOW + timedelta(minutes=number)  # newer than what is there
            batch_of = [[replace(it, generated_at=now) for it in lists] for lists in made]
            known = [(lists, *derived_from(lists)) for lists in batch_of]
            frames = [frame_of(lists, records) for lists, _, records in known]
            later = [frame.assign(event_at=now + timedelta(seconds=1)) for frame in frames]
            plain = [plain_rows(lists, records) for lists, _, records in known]
            ways: dict[str, tuple[Callable[[Any], object], Sequence[Any]]] = {
                "derive": (lambda facts: pack(derive(**facts)), [facts_of(lists, index) for _, lists, _ in known]),
                "ours": (ours, batch_of),
                "feast_batch": (lambda frame: feast.write_to_online_store("retrieved_ads", df=frame), frames),
                "feast_push": (lambda frame: feast.push("lists", frame), later),
                "feast_former_batch": (
                    lambda frame: feast.write_to_online_store("former_ads", df=frame),
                    [former_frame_of(lists, derived) for lists, derived, _ in known],
                ),
                "copy": (lambda rows: copy(copying, rows), plain),
                "copy_binary": (lambda rows: copy(copying, rows, binary=True), plain),
                "with_log": (lambda lists: writer.write(lists, index=index), batch_of),
            }
            for name, (way, given) in ways.items():
                with transaction(database) as connection:
                    connection.execute(text("TRUNCATE twin, retrieval_log"))
                began, worked = time.perf_counter(), time.process_time()
                for batch in given:
                    way(batch)
                clock.setdefault(name, []).append((time.perf_counter() - began, time.process_time() - worked))
    rows = batches * LISTS
    figures = {f"{name}_rows_per_s": rows / median(wall for wall, _ in took[1:]) for name, took in clock.items()}
    for name in ("derive", "ours", "with_log", "feast_batch", "feast_former_batch", "copy"):
        figures[f"{name}_rows_per_cpu_s"] = rows / median(cpu for _, cpu in clock[name][1:])
    figures["record_bytes"] = float(np.mean([len(record) for _, _, records in known for record in records]))
    figures["bytes_per_user_hashed_ids"] = bytes_per_user(online, batch_of[0])
    like_the_demo = make_index(ads, numbers=True)
    lists = [replace(it, generated_at=now + timedelta(minutes=1)) for it in make_lists(like_the_demo, 0)]
    derived = derive_lists(lists, index=like_the_demo, ecpm_of=np.ones_like)
    ids = np.array([it.user_id for it in lists])
    set_lists(online, ids, derived, pack(derived), project="ours", ttl_s=TTL_S)
    figures["bytes_per_user"] = bytes_per_user(online, lists)
    online.close()
    database.dispose()
    return figures


def make_index(ads: int, *, numbers: bool = False) -> AdIndex:
    """Return ads whose categories follow their codes, as an index's do.

    Args:
        ads: how many, about.
        numbers: whether their ids, and those of their advertisers, are small numbers, as in the demo's world; else they
            are hashes of texts, each advertiser's another.
    """
    rng = np.random.default_rng(0)
    codes = np.unique(rng.integers(0, 48, (ads, 5)) * [1, 1, 1, 1, 0], axis=0).astype(np.int32)
    count = len(codes)
    return AdIndex.assemble(
        version="2026-03-01-index",
        ad_ids=np.arange(count) if numbers else rng.integers(0, 2**63 - 1, count),
        codes=codes,
        first_categories=[f"First category {a % 24}" for a in codes[:, 0]],
        second_categories=[f"Second category {a % 24}-{b % 16}" for a, b, *_ in codes],
        advertiser_ids=rng.integers(1, 75, count) if numbers else rng.integers(1, 2**62, count),
        embeddings=rng.normal(size=(count, 8)).astype(np.float32),
        code_counts=(48, 48, 48, 48, 1),
        quality={},
    )


def make_lists(index: AdIndex, batch: int) -> list[RetrievalList]:
    """Return lists of one batch: five neighbours of the trie around each of four ads."""
    rng = np.random.default_rng(batch + 1)
    made = []
    for user_id in range(batch * LISTS, (batch + 1) * LISTS):
        rows = (rng.integers(0, len(index) - 5, 4)[:, None] + np.arange(5)).ravel()
        scores = np.sort(rng.normal(-8, 2, ADS))[::-1].tolist()
        beams = [
            Beam(sid=index.sid_at(row), ad_id=int(index.ad_ids[row]), log_probability=score)
            for row, score in zip(rows, scores, strict=True)
        ]
        made.append(
            RetrievalList(
                user_id=user_id,
                release="2026-03-01-release",
                index_version=index.version,
                generated_at=NOW,
                event_at=NOW - timedelta(hours=1, microseconds=user_id),
                beams=tuple(beams),
            )
        )
    return made


def make_feast(home: Path, redis_url: str) -> FeatureStore:
    """Return a feature store with the view as it is and as it was, over Feast's own Redis store."""
    where = redis_url.rpartition("@")[2].partition("/")[0]
    password = redis_url.partition("//:")[2].rpartition("@")[0]
    pd.DataFrame({"user_id": [0], "event_at": [pd.Timestamp(NOW)]}).to_parquet(home / "none.parquet")
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    source = FileSource(name="none", path=str(home / "none.parquet"), timestamp_field="event_at")
    pushed = PushSource(name="lists", batch_source=source)
    fields = [Field(name=name, dtype=dtype) for name, dtype in FORMER.items()]
    record = [Field(name="retrieved_list", dtype=Bytes)]
    store = FeatureStore(
        config=RepoConfig(
            project="feast",
            provider="local",
            registry=str(home / "registry.db"),
            online_store={"type": "redis", "connection_string": f"{where},password={password}"},
            entity_key_serialization_version=3,
        )
    )
    store.apply(
        [
            user,
            pushed,
            FeatureView(name="retrieved_ads", entities=[user], schema=record, source=pushed, ttl=timedelta(days=7)),
            FeatureView(name="former_ads", entities=[user], schema=fields, source=source, ttl=timedelta(days=7)),
        ]
    )
    return store


def facts_of(lists: Lists, index: AdIndex) -> dict[str, Any]:
    """Return what the user side of a batch is derived from, in arrays."""
    names = ("counts", "ad_ids", "log_probabilities", "codes", "first_categories", "second_categories")
    names += ("category_names", "advertiser_ids", "generated_at_s", "behavior_at_s")
    facts = {name: getattr(lists, name) for name in names}
    facts |= {"embeddings": index.embeddings[index.rows(lists.ad_ids)], "ecpms": np.ones(len(lists.ad_ids))}
    return facts | {"release": lists.releases, "index_version": lists.index_versions}


def frame_of(lists: Sequence[RetrievalList], records: Sequence[bytes]) -> pd.DataFrame:
    """Return what Feast writes of a batch."""
    frame = pd.DataFrame({"user_id": [it.user_id for it in lists], "retrieved_list": list(records)})
    return frame.assign(event_at=pd.Series([it.generated_at for it in lists], dtype="datetime64[ns, UTC]"))


def former_frame_of(lists: Sequence[RetrievalList], derived: Lists) -> pd.DataFrame:
    """Return what Feast wrote of a batch before a list was one record."""
    edges, names = derived.offsets[1:-1], derived.category_names
    per_ad = {
        "retrieved_ad_ids": derived.ad_ids,
        "retrieved_advertiser_ids": derived.advertiser_ids,
        "retrieved_sids": np.array(sid_texts(derived.codes.tolist())),
        "retrieved_first_categories": np.array(names)[derived.first_categories],
        "retrieved_second_categories": np.array(names)[derived.second_categories],
        "retrieved_log_probabilities": derived.log_probabilities.astype(np.float64),
        "retrieved_probabilities": derived.shares * SHARE,
        "retrieved_embeddings": derived.directions.astype(np.float32),
        "categories": np.array(names)[derived.first_categories],
        "category_probabilities": derived.shares * SHARE,
    }
    columns: dict[str, Any] = {
        name: [part.ravel().tolist() for part in np.split(values, edges)] for name, values in per_ad.items()
    }
    for name in ("categories", "category_probabilities"):
        columns[name] = [values[:4] for values in columns[name]]
    columns |= dict.fromkeys(("top_probability", "entropy", "category_concentration"), derived.entropy)
    columns |= dict.fromkeys(("expected_ecpm", "generated_at_s", "behavior_at_s"), derived.generated_at_s)
    columns |= {"retrieved_count": derived.counts, "mean_embedding": derived.mean_embedding.tolist()}
    columns |= {"release": derived.releases, "index_version": derived.index_versions}
    return frame_of(lists, [b""] * len(lists)).drop(columns="retrieved_list").assign(**columns)


def plain_rows(lists: Sequence[RetrievalList], records: Sequence[bytes]) -> list[tuple[Any, ...]]:
    """Return the rows of the log as Python values."""
    return [
        (
            *(it.user_id, it.generated_at, it.release, it.index_version, it.event_at),
            [beam.ad_id for beam in it.beams],
            record,
        )
        for it, record in zip(lists, records, strict=True)
    ]


def copy(connection: psycopg.Connection, rows: Sequence[tuple[Any, ...]], *, binary: bool = False) -> None:
    """Copy rows into a table like the log's, as psycopg's manual does it."""
    statement = f"COPY twin ({COLUMNS}) FROM STDIN{' (FORMAT binary)' if binary else ''}"
    with connection.transaction(), connection.cursor() as cursor, cursor.copy(statement) as copying:
        if binary:
            copying.set_types(["int8", "timestamptz", "text", "text", "timestamptz", "int8[]", "bytea"])
        for row in rows:
            copying.write_row(row)


def bytes_per_user(online: redis.Redis, lists: Sequence[RetrievalList]) -> float:
    """Return the memory of a user in Redis with all views; values are as long as in the demo's world on average."""
    lengths = {
        "user_profile": (2, 7, 18, 12, 13, 6, 9, 2, 5),
        "interest_summary": (61, 9, 217, 24, 92, 10, 314, 24),  # by category, then by SPU
        "ad_behavior_sequence": (20, 78, 256, 78, 13),
        "content_behavior_sequence": (18, 57, 174, 65, 12),
    }
    keys = user_keys(np.array([it.user_id for it in lists]), "ours")
    for key in keys:
        for view, values in lengths.items():
            fields = [timestamp_field(view), timestamp_value(10**18 + 1)]
            for number, length in enumerate(values):
                fields += [field(view, str(number)), bytes(length)]
            set_rows(online, [(key, fields)], ttl_s=TTL_S)
    return float(np.mean([online.memory_usage(key) or 0 for key in keys]))


if __name__ == "__main__":
    main()
