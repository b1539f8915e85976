"""How fast are ranking features read? `RankingFeatures` beside Feast's on-demand view, `feast serve` and a limit.

LEADRE §5.3. One user with 500 target ads, Redis on this machine, lists of 20 ads, S-IDs of 5 codes, embeddings of 8
numbers; all features that are numbers, as NumPy columns. The limit is one GET of the record and the same derivation
with everything else taken out: the ads' places looked up before, no ids to check, no columns to spread. Ways take turns
in rounds; figures are medians of the rounds' medians (p99: of their 99th percentiles). `cpu` counts this process's CPU
time, all its threads together, instead of the clock's, which other programs on the machine enter.

Usage: python benchmarks/bench_ranking_features.py [--ads N] [--rounds N] [--reads N] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import redis
from feast import FeatureStore, RepoConfig
from numpy.typing import NDArray
from servers import own_servers, print_figures

from leadre.derivation import pack, unpack
from leadre.derivation.item_match import match
from leadre.derivation.user_side import derive, user_numbers
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.ad_table import AdTable
from leadre.settings import Settings
from leadre.store.features.layout import (
    bytes_value,
    field,
    read_bytes_value,
    timestamp_field,
    timestamp_value,
    user_keys,
)
from leadre.store.features.ranking import NUMBERS, RankingFeatures
from leadre.store.records.database import migrate

USERS, CANDIDATES, ADS, WIDTH = 100, 500, 20, 8
KNOWN_TO_FEAST = 2_000
"""Ads with a row of `ad_index` and `ad_features` online: writing all would take Feast minutes."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ads", type=int, default=200_000, help="of the index")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--reads", type=int, default=1_000, help="of one user, a round")
    parser.add_argument("--serve-s", type=float, default=10.0, help="seconds to ask `feast serve`; 0: not at all")
    parser.add_argument("--quick", action="store_true", help="3,000 ads, 2 rounds of 50 reads, 2 s of `feast serve`")
    parser.add_argument("--json", action="store_true", help="JSON on the last line instead of a table")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.ads, arguments.rounds, arguments.reads, arguments.serve_s = 3_000, 2, 50, 2.0
    with own_servers(durable=False) as settings:
        migrate(settings.database_url)
        command = [Path(sys.executable).with_name("feast"), "-c", settings.feature_repo, "apply"]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, **settings.feast_environment()})
        figures = measure(
            settings,
            ads=arguments.ads,
            rounds=arguments.rounds,
            reads=arguments.reads,
            serve_s=arguments.serve_s,
        )
    print_figures(figures, as_json=arguments.json)


def measure(settings: Settings, *, ads: int, rounds: int, reads: int, serve_s: float) -> dict[str, float]:
    """Return the figures of an applied feature store: milliseconds a read or a user, reads a second, and ratios."""
    rng = np.random.default_rng(1)
    now = datetime.now(UTC)
    index = make_index(ads)
    index.save(settings.indexes / index.version)
    users = np.arange(USERS) + 7
    records = make_records(index, now=now)
    write_online(settings.redis_url, users, records, now=now)
    stock = make_stock(settings, index, now=now)
    candidates = np.stack([rng.choice(index.ad_ids, CANDIDATES, replace=False) for _ in users])
    reader = RankingFeatures(settings.redis_url, index=settings.indexes / index.version, deadline_s=1.0, poll_s=None)

    table = AdTable.of(index)
    places = [table.rows(of_user) for of_user in candidates]
    alone = np.zeros(CANDIDATES, np.int64)
    keys, name, alive = user_keys(users, "leadre"), field("retrieved_ads", "retrieved_list"), np.ones(1, np.bool_)
    online = redis.Redis.from_url(settings.redis_url)

    def ours(n: int) -> object:
        u = n % USERS
        return reader.read(users[u : u + 1], candidates[u : u + 1], now=now).to_numpy(NUMBERS)

    def limit(n: int) -> object:
        u = n % USERS
        lists = unpack([read_bytes_value(online.hget(keys[u], name))])
        scores = match(
            lists,
            table.targets,
            list_of_row=alone,
            ad_of_row=candidates[u],
            target_of_row=places[u],
            request_time_s=now.timestamp(),
        )
        return scores, user_numbers(lists, alive)

    def batch(_: int) -> object:
        return reader.read(users, candidates, now=now).to_numpy(NUMBERS)

    service = stock.get_feature_service("ranker_features_v1")
    known = index.ad_ids[rng.choice(KNOWN_TO_FEAST if ads > KNOWN_TO_FEAST else len(index), CANDIDATES, replace=False)]

    def on_demand(n: int) -> object:
        request = {"user_id": int(users[n % USERS]), "request_time_s": now.timestamp()}
        rows = [{**request, "ad_id": ad_id} for ad_id in known.tolist()]
        return stock.get_online_features(service, rows).to_dict()

    ways = {"ours": (ours, reads), "limit": (limit, reads), "batch": (batch, max(reads // 50, 2))}
    ways["odfv"] = (on_demand, max(reads // 100, 2))
    took: dict[str, list[NDArray[np.float64]]] = {}
    worked: dict[str, list[float]] = {}
    with closing(online), closing(reader):
        for _ in range(rounds + 1):  # the first round warms everything up
            for way, (read, count) in ways.items():
                began = time.process_time()
                took.setdefault(way, []).append(timed(read, count))
                worked.setdefault(way, []).append((time.process_time() - began) / count * 1e3)
        served = served_rps(settings, users, known, now=now, seconds=serve_s) if serve_s else 0.0
    p50 = {way: median(float(np.median(of_round)) for of_round in of_way[1:]) for way, of_way in took.items()}
    p99 = median(float(np.quantile(of_round, 0.99)) for of_round in took["ours"][1:])
    figures = {
        "ours_p50_ms": p50["ours"],
        "ours_p99_ms": p99,
        "odfv_p50_ms": p50["odfv"],
        "limit_p50_ms": p50["limit"],
        "single_ms_per_user": p50["ours"],
        "batch100_ms_per_user": p50["batch"] / len(users),
        "ours_rps": 1e3 / median(float(of_round.mean()) for of_round in took["ours"][1:]),
        "ours_over_limit": p50["ours"] / p50["limit"],
        "p99_over_p50": p99 / p50["ours"],
        "odfv_over_ours": p50["odfv"] / p50["ours"],
        "single_over_batch": p50["ours"] / (p50["batch"] / len(users)),
        **{f"{way}_cpu_ms": median(of_way[1:]) for way, of_way in worked.items() if way != "batch"},
        "batch100_cpu_ms_per_user": median(worked["batch"][1:]) / len(users),
        "record_bytes": float(np.mean([len(record) for record in records])),
    }
    return {**figures, "feature_server_rps": served} if serve_s else figures


def timed(read: Callable[[int], object], count: int) -> NDArray[np.float64]:
    """Return the milliseconds of each of some reads."""
    took = np.empty(count)
    for n in range(count):
        began = time.perf_counter()
        read(n)
        took[n] = time.perf_counter() - began
    return took * 1e3


def make_index(ads: int) -> AdIndex:
    """Return ads whose categories follow their codes, as an index's do."""
    rng = np.random.default_rng(0)
    codes = np.unique(rng.integers(0, 256, (ads, 5)) * [1, 1, 1, 1, 0], axis=0).astype(np.int32)
    count = len(codes)
    return AdIndex.assemble(
        version="2026-03-01-index",
        ad_ids=rng.integers(0, 2**63 - 1, count),
        codes=codes,
        first_categories=[f"First category {a % 24}" for a in codes[:, 0].tolist()],
        second_categories=[f"Second category {a % 24}-{b % 16}" for a, b, *_ in codes.tolist()],
        advertiser_ids=rng.integers(1, 2_000, count) + 2**61,
        embeddings=rng.normal(size=(count, WIDTH)).astype(np.float32),
        code_counts=(256, 256, 256, 256, 1),
        quality={},
    )


def make_records(index: AdIndex, *, now: datetime) -> list[bytes]:
    """Return a record a user: five neighbours of the trie around each of four ads."""
    rng = np.random.default_rng(2)
    rows = (rng.integers(0, len(index) - 5, (USERS, 4))[:, :, None] + np.arange(5)).ravel()
    scores = -np.sort(-rng.normal(-8, 2, (USERS, ADS)), axis=1)
    lists = derive(
        counts=[ADS] * USERS,
        ad_ids=index.ad_ids[rows],
        log_probabilities=scores.ravel(),
        codes=index.codes[rows],
        first_categories=index.first_categories[rows],
        second_categories=index.second_categories[rows],
        category_names=index.category_names,
        advertiser_ids=index.advertiser_ids[rows],
        embeddings=index.embeddings[rows],
        ecpms=rng.gamma(2.0, 3.0, len(rows)),
        generated_at_s=now.timestamp() - 60,
        behavior_at_s=now.timestamp() - 90,
        release="2026-03-01-release",
        index_version=index.version,
    )
    return pack(lists)


def write_online(redis_url: str, users: NDArray[np.int64], records: list[bytes], *, now: datetime) -> None:
    """Set the lists in Feast's layout."""
    at = timestamp_value(int(now.timestamp() - 60) * 10**9)
    with redis.Redis.from_url(redis_url) as client, client.pipeline(transaction=False) as pipeline:
        for key, record in zip(user_keys(users, "leadre"), records, strict=True):
            row = {timestamp_field("retrieved_ads"): at, field("retrieved_ads", "retrieved_list"): bytes_value(record)}
            pipeline.hset(key, mapping=row)
        pipeline.execute()


def make_stock(settings: Settings, index: AdIndex, *, now: datetime) -> FeatureStore:
    """Return the feature store as a stock SDK opens it, with rows of some ads online."""
    os.environ.update(settings.feast_environment())
    applied = FeatureStore(repo_path=str(settings.feature_repo))
    values = applied.config.model_dump(by_alias=True, exclude_none=True, exclude={"repo_path"})
    values["online_store"] = {"type": "redis", "connection_string": applied.config.online_store.connection_string}
    stock = FeatureStore(config=RepoConfig(**values, repo_path=settings.feature_repo))
    rows = np.arange(min(KNOWN_TO_FEAST, len(index)))
    first, second = index.categories_at(rows)
    when = {"event_at": pd.Timestamp(now), "created_at": pd.Timestamp(now)}
    indexed = {
        "ad_id": index.ad_ids[rows],
        "sid": [str(index.sid_at(row)) for row in rows.tolist()],
        "embedding": list(index.embeddings[rows]),
        "ad_index_version": index.version,
        "indexed_first_category": first,
        "indexed_second_category": second,
        "indexed_advertiser_id": index.advertiser_ids[rows],
    }
    stock.write_to_online_store("ad_index", df=pd.DataFrame(indexed).assign(**when))
    described = {"ad_id": index.ad_ids[rows], "first_category": first, "second_category": second, "bid": 1.0}
    described |= {"advertiser_id": index.advertiser_ids[rows], "name": "", "ad_type": "", "live": True}
    described["attributes"] = [[""] for _ in rows]
    stock.write_to_online_store("ad_features", df=pd.DataFrame(described).assign(**when))
    return stock


def served_rps(
    settings: Settings, users: NDArray[np.int64], ads: NDArray[np.int64], *, now: datetime, seconds: float
) -> float:
    """Return how many reads of 500 ads a worker of `feast serve` answers a second."""
    with feature_server(settings) as url:
        answered, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            user = [int(users[answered % len(users)])] * len(ads)
            entities = {"user_id": user, "ad_id": ads.tolist(), "request_time_s": [now.timestamp()] * len(ads)}
            body = json.dumps({"feature_service": "ranker_features_v1", "entities": entities}).encode()
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(f"{url}/get-online-features", data=body, headers=headers)
            with urllib.request.urlopen(request) as answer:
                answer.read()
            answered += 1
        return answered / (time.perf_counter() - end + seconds)


@contextmanager
def feature_server(settings: Settings) -> Iterator[str]:
    """Run `feast serve` with one worker, and give its address."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("feast"), "-c", settings.feature_repo, "serve", "--port", str(port)]
    command += ["--no-access-log", "--workers", "1", "--max-requests", "0"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ})
    try:
        url, patience = f"http://127.0.0.1:{port}", time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"{url}/health"):
                    break
            except (urllib.error.URLError, ConnectionError):
                if server.poll() is not None or time.monotonic() > patience:
                    raise
                time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
