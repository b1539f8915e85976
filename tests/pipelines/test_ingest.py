"""Behaviors from the stream to PostgreSQL: each accepted one is there once, whoever dies, repeats or is in the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from redis import Redis
from sqlalchemy import Engine, text

from leadre.domain.behavior import Action, Behavior, Domain
from leadre.errors import Unavailable
from leadre.pipelines import ingest, persister
from leadre.pipelines.ingest import Entry, Persisted, batches, persist
from leadre.pipelines.persister import Persister
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.serving import behavior_stream
from leadre.serving.behavior_stream import DEAD, GROUP, STREAM
from leadre.settings import Settings
from leadre.store.records.database import connect, transaction
from leadre.store.records.events import upsert_behaviors

NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)
LONG_S = 60.0


@pytest.fixture
def database(settings: Settings) -> Iterator[Engine]:
    made = connect(settings.database_url, statement_timeout_s=20)
    yield made
    made.dispose()


@pytest.fixture
def redis(settings: Settings) -> Iterator[Redis]:
    with Redis.from_url(settings.redis_url, socket_timeout=20) as client:
        yield client


@pytest.fixture
def queue(settings: Settings) -> RefreshQueue:
    return RefreshQueue.connect(settings.redis_url, timeout_s=20)


@pytest.fixture
def make(redis: Redis, database: Engine, queue: RefreshQueue) -> Callable[..., Persister]:
    """Make a persister; entries that others have read are its own at once."""

    def persister_of(idle_s: float = 0.0) -> Persister:
        return Persister(redis=redis, database=database, queue=queue, clock=lambda: NOW, idle_s=idle_s)

    return persister_of


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No persister waits before it asks for the entries of others, or tries a busy user again."""
    monkeypatch.setattr(persister, "_RECLAIM_S", 0.0)
    monkeypatch.setattr(persister, "_AGAIN_S", 0.0)


def did(user_id: int, item_id: int = 7, *, action: Action = Action.CLICK, domain: Domain = Domain.AD) -> Behavior:
    return Behavior(user_id=user_id, domain=domain, action=action, item_id=item_id, occurred_at=NOW)


def report(redis: Redis, *behaviors: Behavior) -> None:
    assert behavior_stream.add(redis, behavior_stream.encode(behaviors, request_id="r", arrived_at=NOW))


def stored(database: Engine) -> list[tuple[int, int]]:
    with transaction(database) as connection:
        rows = connection.execute(text("SELECT user_id, item_id FROM behaviors ORDER BY 1, 2")).all()
    return [(user_id, item_id) for user_id, item_id in rows]


def waiting(queue: RefreshQueue) -> set[int]:
    claims = [*queue.claim(1000, lane="cheap"), *queue.claim(1000)]
    queue.release(claims)
    return {claim.user_id for claim in claims}


def test_the_queue_learns_of_groups_of_users_without_a_list_and_of_every_report(make, redis, database, queue) -> None:
    with transaction(database) as connection:
        connection.execute(
            text("INSERT INTO users (user_id, source_id, arpu_group, event_at) VALUES (2, '2', 24, :now)"), {"now": NOW}
        )
        connection.execute(text("INSERT INTO user_state (user_id, listed_at) VALUES (2, :now)"), {"now": NOW})
    report(redis, did(1))
    for item in (1, 2, 3):
        report(redis, did(2, item))
    report(redis, did(2, action=Action.IMPRESSION))
    make().drain()
    assert [(claim.user_id, claim.group) for claim in queue.claim(9, lane="cheap")] == [(1, 0)]
    assert [(claim.user_id, claim.group, claim.unseen) for claim in queue.claim(9)] == [(2, 24, 3)]


def wait_until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG_S
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def importing(database: Engine, *users: int) -> Iterator[None]:
    """An import of these users that is not at its end yet."""
    with transaction(database) as connection:
        upsert_behaviors(connection, [did(user, 99) for user in users], arrived_at=NOW)
        yield


@contextmanager
def refusing(database: Engine, *, item_id: int) -> Iterator[None]:
    """A database that refuses behaviors of an item."""
    with transaction(database) as connection:
        connection.execute(text(f"ALTER TABLE behaviors ADD CONSTRAINT bad CHECK (item_id <> {item_id})"))
    yield
    with transaction(database) as connection:
        connection.execute(text("ALTER TABLE behaviors DROP CONSTRAINT bad"))


def test_a_report_reaches_postgresql_once_and_its_user_the_refresh_queue(make, redis, database, queue) -> None:
    report(redis, did(1), did(1, 8))
    report(redis, did(2, action=Action.IMPRESSION))
    report(redis, did(3, action=Action.SKIP, domain=Domain.CONTENT))
    report(redis, did(1))
    done = make().drain()
    assert (done.new, done.repeated, done.unknown) == (4, 1, 5)
    assert stored(database) == [(1, 7), (1, 8), (2, 7), (3, 7)]
    assert waiting(queue) == {1}
    assert redis.xlen(STREAM) == redis.xpending(STREAM, GROUP)["pending"] == 0


def test_a_user_is_marked_only_when_postgresql_has_the_behavior(make, redis, database, queue, monkeypatch) -> None:
    report(redis, did(1))
    seen = []
    mark = RefreshQueue.mark

    def watched(self, user_ids, **others):
        seen.append((list(user_ids), stored(database)))  # by another connection: committed
        return mark(self, user_ids, **others)

    monkeypatch.setattr(RefreshQueue, "mark", watched)
    make().drain()
    assert seen == [([1], [(1, 7)])]


def test_a_behavior_is_known_from_when_it_was_written_however_long_it_waited(make, redis, database) -> None:
    early = NOW - timedelta(hours=1)
    behavior = Behavior(user_id=1, domain=Domain.AD, action=Action.CLICK, item_id=7, occurred_at=early)
    behavior_stream.add(redis, behavior_stream.encode([behavior], request_id="r", arrived_at=early))
    make().drain()
    with transaction(database) as connection:
        assert connection.scalar(text("SELECT known_at FROM behaviors")) == NOW


def test_poison_goes_to_the_dead_stream_with_its_reason_and_the_others_pass(make, redis, database, queue) -> None:
    entries = [behavior_stream.encode([did(user)], request_id="r", arrived_at=NOW) for user in range(9)]
    for place, entry in enumerate(entries):
        behavior_stream.add(redis, entry)
        if place in (2, 5):
            behavior_stream.add(redis, b"\xff no entry")
    redis.xadd(STREAM, {"other": "field"})
    report(redis, did(50, 8), did(50, 666))
    with refusing(database, item_id=666):
        done = make().drain()
    assert stored(database) == [(user, 7) for user in range(9)]
    assert waiting(queue) == set(range(9))
    assert [fields[b"e"] for _, fields in redis.xrange(DEAD)] == [b"\xff no entry"] * 2 + [b""] + [
        behavior_stream.encode([did(50, 8), did(50, 666)], request_id="r", arrived_at=NOW)
    ]
    whys = [fields[b"why"].decode() for _, fields in redis.xrange(DEAD)]
    assert all("not an entry" in why for why in whys[:3])
    assert "PostgreSQL refuses a row for behaviors" in whys[3]
    assert len(done.dead) == 4
    assert redis.xlen(STREAM) == redis.xpending(STREAM, GROUP)["pending"] == 0

    assert ingest.revive(redis) == 4
    assert len(make().drain().dead) == 3
    assert (50, 666) in stored(database)


@pytest.mark.parametrize("dies", ["before it writes", "before it marks", "before it settles"])
def test_what_a_dead_persister_had_read_is_written_by_another(
    make, redis, database, queue, monkeypatch, at_once, dies: str
) -> None:
    for user in range(5):
        report(redis, did(user))

    class Killed(BaseException):
        pass

    def kill(*_: object, **__: object) -> None:
        raise Killed

    place = {
        "before it writes": (persister, "persist"),
        "before it marks": (RefreshQueue, "mark"),
        "before it settles": (persister, "settle"),
    }[dies]
    with monkeypatch.context() as patch:
        patch.setattr(*place, kill)
        with pytest.raises(Killed):
            make().step(block_s=0)
    assert len(stored(database)) == (0 if dies == "before it writes" else 5)
    assert redis.xpending(STREAM, GROUP)["pending"] == 5
    done = make().drain()
    assert len(done.written) == 5
    assert stored(database) == [(user, 7) for user in range(5)]
    assert waiting(queue) == set(range(5))
    assert redis.xlen(STREAM) == redis.xpending(STREAM, GROUP)["pending"] == 0


def test_another_persisters_entries_are_left_alone_until_they_were_idle_for_long(make, redis, at_once) -> None:
    report(redis, did(1))
    assert redis.xgroup_create(STREAM, GROUP, id="0")
    redis.xreadgroup(GROUP, "another", {STREAM: ">"})
    patient = make(idle_s=LONG_S)
    assert patient.drain() == Persisted()
    redis.xclaim(STREAM, GROUP, "another", 0, [redis.xrange(STREAM)[0][0]], idle=int(LONG_S * 1000))
    assert patient.drain().new == 1


def test_a_wiped_redis_gets_its_group_again_and_entries_from_before_the_group_are_read(make, redis, database) -> None:
    one = make()
    assert one.drain() == Persisted()
    report(redis, did(1))
    assert one.drain().new == 1
    redis.flushall()
    report(redis, did(2))
    assert one.drain().new == 1
    redis.flushall()
    one.step(block_s=0)
    assert stored(database) == [(1, 7), (2, 7)]


def test_an_import_holds_up_its_own_users_only_and_their_reports_wait_in_the_stream(make, redis, database) -> None:
    one = make(idle_s=0.1)
    report(redis, did(1))
    one.drain()
    stopping = threading.Event()
    thread = threading.Thread(target=one.run, args=(stopping,))
    with importing(database, 1, 2):
        thread.start()
        for user in (1, 2, 3, 4):
            report(redis, did(user, 5))
        wait_until(lambda: {(3, 5), (4, 5)} <= set(stored(database)))
        time.sleep(1.2)  # longer than who has read it tries by itself: from now on it comes back like a dead one's
        report(redis, did(5, 5))
        wait_until(lambda: (5, 5) in stored(database))
        wait_until(lambda: redis.xlen(STREAM) == 2)
        assert not {(1, 5), (2, 5)} & set(stored(database))
    wait_until(lambda: redis.xlen(STREAM) == 0)
    stopping.set()
    thread.join()
    assert {(1, 5), (2, 5), (1, 99), (2, 99)} <= set(stored(database))


def test_a_persister_waits_for_a_database_that_is_gone_and_goes_on(redis, database, queue, settings) -> None:
    nobody = connect("postgresql://nobody@127.0.0.1:1/nothing")
    lost = Persister(redis=redis, database=nobody, queue=queue)
    ingest.ENTRIES.set(0)
    report(redis, did(1))
    for _ in range(2):
        with pytest.raises(Unavailable):
            lost.step(block_s=0)
    stopping = threading.Event()
    thread = threading.Thread(target=lost.run, args=(stopping,))
    thread.start()
    wait_until(lambda: ingest.ENTRIES._value.get() == 1)  # they pile up, and the gauge says so
    stopping.set()
    thread.join()
    lost._database = database
    assert lost.step(block_s=0).new == 1
    assert redis.xlen(STREAM) == 0
    nobody.dispose()


def test_a_stopped_persister_leaves_no_consumer_behind_but_one_with_entries_stays(make, redis) -> None:
    report(redis, did(1))
    redis.xgroup_create(STREAM, GROUP, id="0")
    redis.xreadgroup(GROUP, "died with an entry", {STREAM: ">"})
    stopping = threading.Event()
    stopping.set()
    one = make(idle_s=LONG_S)
    report(redis, did(2))
    one.step(block_s=0)
    assert len(redis.xinfo_consumers(STREAM, GROUP)) == 2
    one.run(stopping)
    assert [consumer["name"] for consumer in redis.xinfo_consumers(STREAM, GROUP)] == [b"died with an entry"]


def test_batches_end_after_some_thousand_behaviors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "MOST_BEHAVIORS", 10)
    sizes = [1, 4, 6, 12, 1, 1]
    entries = [
        Entry(
            entry_id=b"%d" % place,
            payload=behavior_stream.encode([did(1, item) for item in range(size)], request_id="r", arrived_at=NOW),
        )
        for place, size in enumerate(sizes)
    ]
    assert [len(batch) for batch in batches(entries)] == [3, 1, 2]
    assert [entry for batch in batches(entries) for entry in batch] == entries


OPS = st.lists(
    st.one_of(
        st.tuples(st.just("report"), st.integers(0, 5), st.integers(0, 3)),
        st.tuples(st.just("poison"), st.just(0), st.just(0)),
        st.tuples(st.sampled_from(["step", "read and die", "write and die", "mark and die"]), st.integers(0, 1)),
        st.tuples(st.sampled_from(["import begins", "import ends"]), st.integers(0, 5)),
        st.tuples(st.just("group lost"), st.just(0)),
    ),
    max_size=25,
)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(OPS)
def test_whatever_happens_in_whatever_order_every_accepted_behavior_is_there_once(
    make, redis, database, queue, at_once, operations
) -> None:
    redis.flushall()
    with transaction(database) as connection:
        connection.execute(text("TRUNCATE behaviors, user_state"))
    accepted: set[tuple[int, int]] = set()
    poison = 0
    both = [make(), make()]
    held = None

    def end_import() -> None:
        nonlocal held
        if held is not None:
            held.commit()
            held.close()
            held = None

    try:
        for name, *arguments in operations:
            match name, arguments:
                case "report", (user, item):
                    report(redis, did(user, item))
                    accepted.add((user, item))
                case "poison", _:
                    behavior_stream.add(redis, b"poison")
                    poison += 1
                case "step", (which,):
                    both[which].step(block_s=0)
                case "import begins", (user,) if held is None:
                    held = database.connect()
                    upsert_behaviors(held, [did(user, 99)], arrived_at=NOW)
                    accepted.add((user, 99))
                case "import ends", _:
                    end_import()
                case "group lost", _:
                    if redis.exists(STREAM):
                        redis.xgroup_destroy(STREAM, GROUP)
                case (("read and die" | "write and die" | "mark and die"), (which,)):
                    dying = both[which]
                    both[which] = make()
                    dying._take(0)
                    for batch in batches(list(dying._held.values())) if name != "read and die" else ():
                        done = persist(database, batch, now=NOW)
                        if name == "mark and die" and done.stale:
                            queue.mark([user.user_id for user in done.stale])
    finally:
        end_import()
    for one in both:
        one.drain()
    assert stored(database) == sorted(accepted)
    assert redis.xlen(STREAM) == 0
    assert redis.xlen(DEAD) >= bool(poison)
    with transaction(database) as connection:
        counts = connection.execute(text("SELECT user_id, behavior_sequence FROM user_state ORDER BY 1")).all()
    assert dict(counts) == {user: sum(u == user for u, _ in accepted) for user, _ in accepted}
    assert {user for user, item in accepted if item != 99} <= waiting(queue)
