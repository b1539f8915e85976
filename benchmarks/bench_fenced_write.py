"""What does the fence cost, and what does it keep away? Lists set online, beside Feast's own store.

LEADRE §4.4.1. Rates: the same records of 20 ads, 256 users a batch, set as the list writer does (`ours`), by Feast's
`write_to_online_store` over our store (`fenced_feast`) and over Feast's own (`feast`), in rounds that take turns;
medians. Backward moves: processes write lists of a few users through `write_to_online_store`, each made from what was
known a moment before; a reader counts how often a user's list has an older fence than the one it saw before. Event
times are in the order of the fences, the best case of a store that compares times: Feast's reads, then writes. Servers
of its own.

Usage: python benchmarks/bench_fenced_write.py [--reads N] [--writers N] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import redis
from bench_feature_writer import LISTS, NOW, TTL_S, frame_of, make_index, make_lists
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Bytes
from servers import own_servers, print_figures

from leadre.derivation import Lists, pack
from leadre.derivation.record_layout import fence_of
from leadre.domain.retrieval import RetrievalList
from leadre.store.features.layout import FEATURE, VIEW, field, read_bytes_value, user_keys
from leadre.store.features.list_writer import derive_lists, set_lists

STORES = {"fenced": "leadre.store.features.online_store.LeadreRedisOnlineStore", "stock": "redis"}
USERS = 16
"""Whose lists the writers fight over."""
_PIPELINE = 100


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=16, help="of 256 lists, a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--reads", type=int, default=1_000_000)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="1 batch, 1 round, 20,000 reads, 3 writers")
    parser.add_argument("--json", action="store_true", help="JSON on the last line instead of a table")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.batches, arguments.rounds, arguments.reads, arguments.writers = 1, 1, 20_000, 3
    with own_servers() as settings:
        figures = measure(
            settings.redis_url,
            folder=settings.home,
            batches=arguments.batches,
            rounds=arguments.rounds,
            reads=arguments.reads,
            writers=arguments.writers,
        )
    print_figures(figures, as_json=arguments.json)


def measure(redis_url: str, *, folder: Path, batches: int, rounds: int, reads: int, writers: int) -> dict[str, float]:
    """Return the figures: rows a second by way of writing, and backward moves seen."""
    index = make_index(2_000)
    made = [make_lists(index, batch) for batch in range(batches)]
    stores = {name: make_store(folder, redis_url, name) for name in STORES}
    online = redis.Redis.from_url(redis_url)

    def derived(lists: Sequence[RetrievalList]) -> tuple[Sequence[RetrievalList], Lists, list[bytes]]:
        of_lists = derive_lists(lists, index=index, ecpm_of=np.ones_like)
        return lists, of_lists, pack(of_lists)

    def ours(batch: tuple[Sequence[RetrievalList], Lists, list[bytes]]) -> None:
        lists, of_lists, records = batch
        users = np.array([it.user_id for it in lists])
        set_lists(online, users, of_lists, records, project="ours", ttl_s=TTL_S)

    rates: dict[str, list[float]] = {}
    for number in range(rounds + 1):  # the first round warms everything up
        newer = {"generated_at": NOW + timedelta(minutes=number), "release_epoch": 1, "behavior_sequence": number}
        known = [derived([replace(it, **newer) for it in lists]) for lists in made]  # type: ignore[arg-type]
        frames = [frame_of(lists, records) for lists, _, records in known]
        ways: dict[str, tuple[Callable[[Any], object], Sequence[Any]]] = {
            "ours": (ours, known),
            "fenced_feast": (lambda frame: stores["fenced"].write_to_online_store(VIEW, df=frame), frames),
            "feast": (lambda frame: stores["stock"].write_to_online_store(VIEW, df=frame), frames),
        }
        for name, (way, given) in ways.items():
            began = time.perf_counter()
            for batch in given:
                way(batch)
            rates.setdefault(name, []).append(batches * LISTS / (time.perf_counter() - began))
    figures = {f"{name}_rows_per_s": median(of_way[1:]) for name, of_way in rates.items()}
    figures["ours_over_feast"] = figures["ours_rows_per_s"] / figures["feast_rows_per_s"]
    for name, store in stores.items():
        seen = contend(online, store, make_lists(index, 0)[:USERS], derived=derived, reads=reads, writers=writers)
        prefix = "" if name == "fenced" else "feast_"
        figures |= {f"{prefix}{what}": value for what, value in seen.items()}
    online.close()
    return figures | {"reads": reads, "writers": writers}


def make_store(home: Path, redis_url: str, name: str) -> FeatureStore:
    """Return a feature store of lists alone, over our Redis store or Feast's own."""
    where = redis_url.rpartition("@")[2].partition("/")[0]
    password = redis_url.partition("//:")[2].rpartition("@")[0]
    nothing = home / f"{name}.parquet"
    pd.DataFrame({"user_id": [0], "event_at": [pd.Timestamp(NOW)]}).to_parquet(nothing)
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    source = FileSource(name="none", path=str(nothing), timestamp_field="event_at")
    store = FeatureStore(
        config=RepoConfig(
            project=name,
            provider="local",
            registry=str(home / f"{name}.db"),
            online_store={"type": STORES[name], "connection_string": f"{where},password={password}"},
            entity_key_serialization_version=3,
        )
    )
    record = [Field(name=FEATURE, dtype=Bytes)]
    store.apply([user, FeatureView(name=VIEW, entities=[user], schema=record, source=source, ttl=timedelta(days=7))])
    return store


def contend(
    online: redis.Redis,
    store: FeatureStore,
    lists: Sequence[RetrievalList],
    *,
    derived: Callable[[Sequence[RetrievalList]], tuple[Sequence[RetrievalList], Lists, list[bytes]]],
    reads: int,
    writers: int,
) -> dict[str, float]:
    """Let processes write lists of the same users, and watch these.

    Returns:
        `backward` moves, `moves` at all, and `writes` of lists.
    """
    fork = multiprocessing.get_context("fork")  # importing Feast anew would take each of them seconds
    newest, written, stopped = fork.Value("q", 0), fork.Value("q", 0), fork.Event()

    def write(seed: int) -> None:
        rng = random.Random(seed)
        while not stopped.is_set():
            some = rng.sample(list(lists), 4)
            with newest.get_lock():
                newest.value += 1
                sequence = newest.value
            made = [replace(it, release_epoch=1 + sequence // 1000, behavior_sequence=sequence) for it in some]
            made = [replace(it, generated_at=_time_of(sequence)) for it in made]
            frame = frame_of(made, derived(made)[2])
            time.sleep(rng.random() * 0.005)  # a worker that is slow
            store.write_to_online_store(VIEW, df=frame)
            with written.get_lock():
                written.value += len(made)

    processes = [fork.Process(target=write, args=(seed,), daemon=True) for seed in range(writers)]
    for process in processes:
        process.start()
    keys, name = user_keys(np.array([it.user_id for it in lists]), store.project), field(VIEW, FEATURE)
    last = [(-1, -1)] * len(keys)
    backward = moves = read = 0
    try:
        while read < reads:
            asked = [(read + place) % len(keys) for place in range(min(_PIPELINE, reads - read))]
            with online.pipeline(transaction=False) as pipeline:
                for place in asked:
                    pipeline.hget(keys[place], name)  # type: ignore[arg-type]
                answers = pipeline.execute()
            for place, answer in zip(asked, answers, strict=True):
                fence = fence_of(read_bytes_value(answer))
                moves += fence != last[place]
                backward += fence < last[place]
                last[place] = fence
            read += len(asked)
    finally:
        stopped.set()
        for process in processes:
            process.join(60)
    if failed := [process.exitcode for process in processes if process.exitcode]:
        raise SystemExit(f"{len(failed)} writers ended with {failed[0]}: nothing was measured")
    return {"backward": backward, "moves": moves, "writes": written.value}


def _time_of(sequence: int) -> datetime:
    return NOW + timedelta(days=1, milliseconds=sequence)


if __name__ == "__main__":
    main()
