"""Materialization on real servers: what is new reaches the online store, once, whatever its event time is."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from leadre.errors import ConfigError, FeatureRowMismatch, InvalidInput, Unavailable
from leadre.pipelines.materialize import materialize as in_processes
from leadre.settings import Settings
from leadre.store.features.client import FeatureClient
from leadre.store.features.command import run_feast
from leadre.store.features.materialization import definitions, run, runs, shards
from leadre.store.features.materialization.processes import processes_beside
from leadre.store.features.materialization.run import Materialized
from leadre.store.records.database import transaction
from leadre.store.records.partitions import PARTITIONED, ensure_months
from leadre.store.records.tables import metadata

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
VIEWS = {
    "user_profile": 3,
    "interest_summary": 2,
    "ad_behavior_sequence": 1,
    "content_behavior_sequence": 1,
    "retrieved_ads": 1,
    "ad_features": 30,
    "ad_index": 30,
}
"""Rows of each in `world`."""
Write = Callable[..., None]


@pytest.fixture
def online(applied: Settings) -> Iterator[redis.Redis]:
    """The online store's Redis."""
    with redis.Redis.from_url(applied.redis_url) as client:
        yield client


@pytest.fixture
def write(database: Engine) -> Write:
    """Write a row of a table: `write("users", user_id=1, ...)`."""

    def insert(table: str, **row: Any) -> None:
        with transaction(database) as connection:
            if "event_at" in row and table in PARTITIONED:
                ensure_months(connection, table, [row["event_at"]])
            connection.execute(metadata.tables[table].insert(), row)

    return insert


@pytest.fixture
def summary(write: Write) -> Write:
    """Write the interest summary of a user."""
    return lambda user_id, event_at, *categories: write(
        "interest_summaries",
        user_id=user_id,
        event_at=event_at,
        categories=list(categories),
        counts=[1] * len(categories),
    )


@pytest.fixture
def world(promoted: None, write: Write, summary: Write) -> None:
    """Rows in every source, with the holes and ends that values have."""
    for user_id in (1, 2, 2**63 - 1):
        write(
            "users",
            user_id=user_id,
            source_id=str(user_id),
            event_at=NOW - DAY,
            age=None if user_id == 2 else 31,
            sex="weiblich é 女" if user_id == 1 else "",
            arpu=-0.0 if user_id == 2 else 1e-300,
        )
    summary(1, NOW - DAY, "old")
    summary(1, NOW - HOUR, "toys", "", "日本")
    summary(2, NOW - HOUR)
    for domain in ("ad", "content"):
        write(
            "behavior_sequences",
            user_id=1,
            domain=domain,
            event_at=NOW - timedelta(microseconds=1),
            item_ids=[7**n % 2**63 for n in range(300)],
            actions=["click"] * 300,
            titles=["x" * length for length in range(300)],
            occurred_at_s=[1_700_000_000.123456 + n for n in range(300)],
            ordinals=[0] * 300,
        )
    for release, event_at in (("r1", NOW - 8 * DAY), ("r2", NOW)):
        write(
            "retrieval_log",
            user_id=1,
            event_at=event_at,
            release=release,
            index_version="i",
            retrieved_ad_ids=[1],
            record=bytes(range(256)) + release.encode(),
        )


def materialize(features: FeatureClient, now: datetime = NOW, *views: str, **options: Any) -> Materialized:
    return features.materialize(now=now, views=views or ("interest_summary",), **options)


def dump(online: redis.Redis) -> dict[bytes, dict[bytes, bytes]]:
    """Return the hashes of all entities."""
    return {key: online.hgetall(key) for key in online.scan_iter() if not key.startswith(b"leadre:")}  # type: ignore[misc]


def categories(features: FeatureClient, *user_ids: int) -> list[list[str] | None]:
    """Return what is online."""
    rows = [{"user_id": user_id} for user_id in user_ids]
    read: list[list[str] | None] = features.store.get_online_features(["interest_summary:categories"], rows).to_dict()[
        "categories"
    ]
    return read


def test_every_value_is_as_feast_writes_it_byte_for_byte(
    features: FeatureClient, applied: Settings, online: redis.Redis, world: None
) -> None:
    done = features.materialize(now=NOW)
    ours = dump(online)
    assert done.read == done.written == VIEWS

    online.flushall()
    run_feast(applied.feature_repo, "materialize", "1970-01-01T00:00:00", NOW.isoformat())
    assert dump(online) == ours


def test_what_is_written_late_arrives_whatever_its_event_time_is(features: FeatureClient, summary: Write) -> None:
    summary(1, NOW - 2 * HOUR, "before")
    materialize(features)
    summary(1, NOW - HOUR, "after")  # a summary run that ended later than the materialization
    summary(2, NOW - 400 * DAY, "imported")  # a log of last year
    assert materialize(features, NOW + SECOND).read == {"interest_summary": 2}
    assert categories(features, 1, 2) == [["after"], ["imported"]]
    assert materialize(features, NOW + 2 * SECOND).read == {"interest_summary": 0}


def test_an_older_row_that_is_written_late_leaves_the_newer_one(features: FeatureClient, summary: Write) -> None:
    summary(1, NOW, "new")
    materialize(features)
    summary(1, NOW - HOUR, "old")
    done = materialize(features, NOW + SECOND)
    assert (done.read, done.written) == ({"interest_summary": 1}, {"interest_summary": 0})
    assert categories(features, 1) == [["new"]]


def test_an_emptied_summary_is_empty_online(features: FeatureClient, summary: Write) -> None:
    summary(1, NOW - HOUR, "toys")
    materialize(features)
    summary(1, NOW)  # the last behavior left the window
    materialize(features, NOW + SECOND)
    assert categories(features, 1) == [[]]


def test_a_row_whose_time_has_not_come_waits_and_is_not_forgotten(features: FeatureClient, summary: Write) -> None:
    summary(1, NOW + HOUR, "soon")
    summary(2, NOW + 2 * HOUR, "later")
    assert materialize(features).read == {"interest_summary": 0}
    for user_id in range(3, 9):  # others are written meanwhile
        summary(user_id, NOW, "now")
        assert materialize(features, NOW + user_id * SECOND).read == {"interest_summary": 1}
    assert materialize(features, NOW + HOUR).read == {"interest_summary": 1}
    assert materialize(features, NOW + 3 * HOUR).read == {"interest_summary": 1}
    assert categories(features, 1, 2) == [["soon"], ["later"]]
    assert materialize(features, NOW + 4 * HOUR).read == {"interest_summary": 0}


def test_a_transaction_that_commits_after_the_materialization_is_in_the_next(
    features: FeatureClient, database: Engine, summary: Write
) -> None:
    summary(9, NOW, "so that the month is there")
    with transaction(database) as slow:
        slow.execute(
            text(
                "INSERT INTO interest_summaries (user_id, event_at, categories, counts) "
                "VALUES (1, :at, '{slow}', '{1}')"
            ),
            {"at": NOW},
        )
        summary(2, NOW, "quick")
        assert materialize(features).read == {"interest_summary": 2}
    assert materialize(features, NOW + SECOND).read["interest_summary"] >= 1
    assert categories(features, 1, 2) == [["slow"], ["quick"]]


def test_what_is_updated_in_place_replaces_a_row_of_its_own_time(
    features: FeatureClient, applied: Settings, database: Engine, online: redis.Redis, world: None
) -> None:
    features.materialize(now=NOW)
    with transaction(database) as connection:
        connection.execute(text("UPDATE ads SET live = false WHERE ad_id = 100"))
        connection.execute(text("UPDATE users SET arpu_group = 7 WHERE user_id = 1"))
    done = features.materialize(now=NOW + SECOND)
    assert {view: rows for view, rows in done.written.items() if rows} == {"user_profile": 1, "ad_features": 1}
    read = features.store.get_online_features(["ad_features:live"], [{"ad_id": 100}, {"ad_id": 101}]).to_dict()
    assert read["live"] == [False, True]

    with transaction(database) as connection:
        connection.execute(text("UPDATE ads SET live = true WHERE ad_id = 100"))
    run_feast(applied.feature_repo, "materialize", "1970-01-01T00:00:00", NOW.isoformat(), "--views", "ad_features")
    assert features.store.get_online_features(["ad_features:live"], [{"ad_id": 100}]).to_dict()["live"] == [True]


def test_a_promotion_brings_its_index_online_and_a_rollback_the_one_before(
    features: FeatureClient, database: Engine, promoted: None
) -> None:
    assert materialize(features, NOW, "ad_index").read == {"ad_index": 30}
    with transaction(database) as connection:
        connection.execute(text("INSERT INTO index_versions VALUES ('index-2', '', '{}', '{}')"))
        connection.execute(
            text(
                "INSERT INTO semantic_ids (index_version, ad_id, sid, codes, embedding, event_at) "
                "SELECT 'index-2', ad_id, sid, codes, embedding, :at FROM semantic_ids WHERE ad_id < 103"
            ),
            {"at": NOW},
        )
        connection.execute(
            text(
                "INSERT INTO releases (release, index_version, uri, recipe, metrics, status) "
                "VALUES ('release-2', 'index-2', '', '{}', '{}', 'candidate')"
            )
        )
    assert materialize(features, NOW + SECOND, "ad_index").read == {"ad_index": 0}

    def versions() -> list[str]:
        rows = [{"ad_id": ad_id} for ad_id in (100, 103)]
        read: list[str] = features.store.get_online_features(["ad_index:ad_index_version"], rows).to_dict()[
            "ad_index_version"
        ]
        return read

    with transaction(database) as connection:
        connection.execute(
            text("UPDATE releases SET promoted_at = :at WHERE release = 'release-2'"), {"at": NOW + SECOND}
        )
    assert materialize(features, NOW + 2 * SECOND, "ad_index").written == {"ad_index": 3}
    assert versions() == ["index-2", "index-1"]
    with transaction(database) as connection:
        connection.execute(text("UPDATE releases SET promoted_at = NULL WHERE release = 'release-2'"))
        connection.execute(
            text("UPDATE releases SET promoted_at = :at WHERE release = 'release-1'"), {"at": NOW + 3 * SECOND}
        )
    materialize(features, NOW + 4 * SECOND, "ad_index")
    assert versions() == ["index-1", "index-1"]


def test_feasts_incremental_materialization_goes_on_from_there(
    features: FeatureClient, applied: Settings, summary: Write
) -> None:
    summary(1, NOW, "ours")
    for step in range(3):
        materialize(features, NOW + step * SECOND)
    view = features.store.registry.get_feature_view("interest_summary", "leadre", allow_cache=False)
    assert view.materialization_intervals == [(definitions.BEGINNING, NOW + 2 * SECOND)]
    assert view.state.name == "AVAILABLE_ONLINE"

    summary(2, NOW + HOUR, "feast's")
    run_feast(
        applied.feature_repo, "materialize-incremental", (NOW + 2 * HOUR).isoformat(), "--views", "interest_summary"
    )
    assert categories(features, 1, 2) == [["ours"], ["feast's"]]


def test_a_materialization_up_to_the_future_is_said_and_mended(
    features: FeatureClient, applied: Settings, summary: Write
) -> None:
    run_feast(
        applied.feature_repo, "materialize", "1970-01-01T00:00:00", "2031-01-01T00:00:00", "--views", "interest_summary"
    )
    summary(1, NOW - SECOND, "after the mistake")

    said = materialize(features).said

    assert said == [
        "interest_summary: an earlier materialization claimed the time up to 2031-01-01T00:00:00+00:00; cut back"
    ]
    assert categories(features, 1) == [["after the mistake"]]
    assert materialize(features, NOW + SECOND).said == []
    summary(2, NOW + HOUR, "feast's")
    run_feast(
        applied.feature_repo, "materialize-incremental", (NOW + 2 * HOUR).isoformat(), "--views", "interest_summary"
    )
    assert categories(features, 2) == [["feast's"]]


def test_a_redis_that_was_lost_gets_everything_again(
    features: FeatureClient, online: redis.Redis, summary: Write
) -> None:
    for user_id in (1, 2):
        summary(user_id, NOW, "toys")
    materialize(features)
    before = dump(online)
    assert materialize(features, NOW + SECOND, full=True).written == {"interest_summary": 0}
    online.flushall()
    done = materialize(features, NOW + 2 * SECOND)
    assert done.written == {"interest_summary": 2}
    assert done.said == ["interest_summary: this Redis does not know the materialization before, and gets all rows"]
    assert dump(online) == before


def test_transaction_numbers_that_begin_anew_are_noticed(
    features: FeatureClient, database: Engine, summary: Write
) -> None:
    summary(1, NOW, "toys")
    materialize(features)
    with transaction(database) as connection:  # as in a database restored into a new cluster
        connection.execute(text("UPDATE materializations SET next_written_from = 2^40, next_waiting_from = 2^40"))
    summary(2, NOW, "tea")
    assert materialize(features, NOW + SECOND).read == {"interest_summary": 2}


@pytest.fixture
def many(summary: Write, database: Engine) -> int:
    """Ninety-seven users, each with three summaries."""
    summary(1, NOW, "new")
    with transaction(database) as connection:
        connection.execute(
            text(
                "INSERT INTO interest_summaries (user_id, event_at, categories, counts) SELECT user_id * 7919, "
                "CAST(:at AS timestamptz) - hours * interval '1 minute', ARRAY[user_id::text], ARRAY[hours] "
                "FROM generate_series(2, 97) AS user_id, generate_series(0, 2) AS hours"
            ),
            {"at": NOW},
        )
    return 97


def test_shards_and_processes_write_what_one_does(
    features: FeatureClient, online: redis.Redis, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    materialize(features)
    whole = dump(online)
    assert len(whole) == many
    monkeypatch.setattr(shards, "BATCH_ROWS", 4)
    told: list[tuple[str, int, int | None]] = []
    for processes in (1, 2):
        online.flushall()
        told.clear()
        done = in_processes(
            features,
            now=NOW,
            views=["interest_summary"],
            full=True,
            processes=processes,
            shard_entities=10,
            progress=lambda *said: told.append(said),
        )
        assert done.read == done.written == {"interest_summary": many}
        assert (told[0], told[-1]) == (("interest_summary", 0, many), ("interest_summary", many, many))
        assert dump(online) == whole


def test_processes_beside_this_one_write_all_shards_if_it_writes_none(
    features: FeatureClient, online: redis.Redis, many: int
) -> None:
    told: list[tuple[str, int]] = []

    @contextmanager
    def leave_all(views: Any, under_way: Any) -> Iterator[None]:
        servers, report = features.servers, lambda *said: told.append(said)
        with processes_beside(servers, views, under_way, processes=2, report=report):
            pass
        assert sum(rows for _, rows in told) == len(dump(online)) == many
        yield

    def write_none(_: str, rows: int) -> None:
        raise AssertionError(f"{rows} rows were left")

    done = features.materialize(
        now=NOW, views=["interest_summary"], shard_entities=10, share=leave_all, report=write_none
    )
    assert done.read == {"interest_summary": many}


def test_a_killed_one_goes_on_with_the_shards_that_are_left(
    features: FeatureClient, database: Engine, online: redis.Redis, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "BATCH_ROWS", 4)

    def kill(view: str, done: int, total: int | None) -> None:
        if done > 30:
            for process in multiprocessing.active_children():
                os.kill(process.pid, signal.SIGKILL)  # type: ignore[arg-type]
                process.join()

    with pytest.raises(Unavailable, match="ended with code -9: run again"):
        in_processes(features, now=NOW, views=["interest_summary"], processes=2, shard_entities=10, progress=kill)
    with transaction(database) as connection:
        (left,) = runs.unfinished(connection, ["interest_summary"])
    assert 0 < left.read < many
    assert left.shards < 10

    told: list[int] = []
    done = materialize(features, NOW + SECOND, report=lambda _, rows: told.append(rows))
    assert done.read == {"interest_summary": many}
    assert sum(told) == many - left.read
    assert len(dump(online)) == many


def test_rows_that_a_store_acknowledged_and_lost_are_noticed(
    features: FeatureClient, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shards, "set_rows", lambda _, rows, **__: len(rows))
        with pytest.raises(FeatureRowMismatch, match="10 of 10 user_ids of interest_summary are missing in Redis"):
            materialize(features)
    assert materialize(features).written == {"interest_summary": many}


def test_a_redis_that_falls_silent_in_the_middle_leaves_the_shard_for_the_next_run(
    features: FeatureClient, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "BATCH_ROWS", 10)
    set_rows, calls = shards.set_rows, []

    def fall_silent(*arguments: Any, **options: Any) -> int:
        calls.append(arguments)
        if len(calls) == 3:
            raise redis.ConnectionError("gone")
        return set_rows(*arguments, **options)

    monkeypatch.setattr(shards, "set_rows", fall_silent)
    with pytest.raises(Unavailable, match="Redis does not answer: gone"):
        materialize(features)
    done = materialize(features)
    assert (done.read, done.written) == ({"interest_summary": many}, {"interest_summary": many - 20})


def test_a_redis_without_memory_is_unavailable(features: FeatureClient, online: redis.Redis, many: int) -> None:
    online.config_set("maxmemory", 1)
    try:
        with pytest.raises(Unavailable, match=r"Redis refuses: .*maxmemory"):
            materialize(features)
    finally:
        online.config_set("maxmemory", 0)
    assert materialize(features).written == {"interest_summary": many}


def test_a_run_that_another_process_has_finished_counts_nothing_twice(
    features: FeatureClient, summary: Write, many: int
) -> None:
    @contextmanager
    def finish_first(views: Any, under_way: Any) -> Iterator[None]:
        for _ in range(2):
            materialize(features, NOW)
        yield

    assert materialize(features, share=finish_first).read == {"interest_summary": 0}


def test_a_shard_that_claims_to_be_done_without_rows_is_noticed(
    features: FeatureClient, database: Engine, many: int
) -> None:
    @contextmanager
    def settle_nothing(views: Any, under_way: Any) -> Iterator[None]:
        with transaction(database) as connection:
            connection.execute(text("UPDATE materialization_shards SET read = 0, written = 0"))
        yield

    with pytest.raises(FeatureRowMismatch, match="read 0 rows, and 97 user_ids have new ones"):
        materialize(features, share=settle_nothing)
    assert materialize(features, full=True).read == {"interest_summary": many}


def test_shards_that_another_process_holds_are_waited_for(
    features: FeatureClient, database: Engine, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "PATIENCE_S", 0.5)
    held = database.connect()

    @contextmanager
    def hold(views: Any, under_way: Any) -> Iterator[None]:
        assert runs.claim(held, under_way)
        yield

    with held, pytest.raises(Unavailable, match="have been held by other processes"):
        materialize(features, share=hold)
    assert materialize(features).read == {"interest_summary": many}  # whoever held them is gone


def test_what_cannot_be_materialized_is_said_by_name(features: FeatureClient, summary: Write, database: Engine) -> None:
    with pytest.raises(ConfigError, match="no online view 'nothing'; there are ad_behavior_sequence, "):
        materialize(features, NOW, "nothing")
    summary(1, NOW, "toys")
    with transaction(database) as connection:
        connection.execute(text("UPDATE interest_summaries SET categories = '{null}'"))
    with pytest.raises(InvalidInput, match="interest_summary, column 'categories': a list of a feature holds a null"):
        materialize(features)
    view = features.store.get_feature_view("interest_summary")
    view.batch_source = type(view.batch_source)(
        name="older", query="SELECT user_id, event_at, created_at FROM interest_summaries", timestamp_field="event_at"
    )
    features.store.registry.apply_feature_view(view, "leadre")
    with pytest.raises(ConfigError, match=r"source of interest_summary lacks a column \(column .changed_in"):
        materialize(features, full=True)


Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "write", "materialize", "feast"]), st.integers(1, 3), st.integers(-20, 20)),
    min_size=4,
    max_size=14,
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_after_any_writes_what_is_online_is_the_newest_that_is_true(
    features: FeatureClient, database: Engine, online: redis.Redis, summary: Write, steps: list[Step]
) -> None:
    online.flushall()
    with transaction(database) as connection:
        connection.execute(text("TRUNCATE interest_summaries, materializations CASCADE"))
    rows: dict[tuple[int, datetime], str] = {}
    now = NOW
    for number, (what, user_id, minutes) in enumerate([*steps, ("materialize", 0, 5)]):
        if what == "write":
            at = now + timedelta(minutes=minutes)
            if (user_id, at) not in rows:
                rows[user_id, at] = str(number)
                summary(user_id, at, str(number))
            continue
        now += timedelta(minutes=abs(minutes))
        materialize(features, now)
        true = {
            user: max((at for owner, at in rows if owner == user and at <= now), default=None) for user in (1, 2, 3)
        }
        expected = [None if at is None else [rows[user, at]] for user, at in true.items()]
        assert categories(features, 1, 2, 3) == expected
