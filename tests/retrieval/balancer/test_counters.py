"""The counters: in Redis they do what the plain Python ones do, and nothing of a dispatch ever stays behind."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from redis import Redis

from leadre.errors import InvalidInput, Unavailable
from leadre.retrieval.balancer.counters import LEASE_MS, Counters, Dispatch, Outcome
from leadre.retrieval.balancer.shared import TAG, SharedCounters
from tests.retrieval.balancer.conftest import wipe

INSTANCES = [f"http://engine-{number}:8030" for number in range(4)]


def test_the_scripts_do_what_the_reference_does_and_leak_nothing(redis: Redis) -> None:
    class Machine(RuleBasedStateMachine):
        """Any proxies, crashes, renewals and releases in any order, by one clock."""

        dispatches = Bundle("dispatches")

        @initialize()
        def begin(self) -> None:
            wipe(redis)
            self.now = 1_000_000
            self.shared, self.model = SharedCounters(redis), Counters()
            self.pairs: dict[int, int] = {}  # by token in Redis, the model's
            self.shared_start: int | None = None

        @rule(ms=st.integers(0, 3000))
        def time_passes(self, ms: int) -> None:
            self.now += ms

        @rule(
            target=dispatches,
            work=st.integers(1, 50),
            known=st.lists(st.sampled_from(INSTANCES), min_size=1, max_size=4, unique=True),
        )
        def dispatch(self, work: int, known: list[str]) -> int:
            if self.shared_start is None:  # tokens in Redis begin at the clock, and turns follow tokens
                self.shared_start = self.now * 1000
                self.model.tokens = self.shared_start
            ours, theirs = (
                self.model.acquire(known, work=work, now=self.now),
                self.shared.acquire(known, work=work, now=self.now),
            )
            assert theirs.dispatch == ours
            assert theirs.work == {name: self.model.record(name).work for name in known}
            return ours.token

        @rule(token=dispatches, outcome=st.sampled_from(["done", "refused", "failed"]))
        def release(self, token: int, outcome: Outcome) -> None:
            held = self.model.release(token, outcome=outcome, now=self.now)
            assert self.shared.release(token, outcome=outcome, now=self.now) is held
            assert not self.shared.release(token, outcome="done", now=self.now)  # again: nothing
            assert not self.model.release(token, outcome="done", now=self.now)

        @rule(tokens=st.lists(dispatches, max_size=3, unique=True))
        def renew(self, tokens: list[int]) -> None:
            assert self.shared.renew(tokens, now=self.now) == self.model.renew(tokens, now=self.now) if tokens else True

        @rule()
        def every_proxy_dies(self) -> None:
            self.now += LEASE_MS
            self.model.expire(now=self.now)
            self.shared.renew([1], now=self.now)
            assert set(self.shared.work().values()) <= {0}

        @invariant()
        def counters_are_what_is_on_its_way(self) -> None:
            counted = self.shared.work()
            expected = dict.fromkeys(self.model.records, 0)
            for _, dispatch in self.model.leases.values():
                expected[dispatch.instance] += dispatch.work
            assert counted == {name: work for name, work in expected.items() if name in counted}
            assert {name: record.work for name, record in self.model.records.items()} == expected
            assert redis.zcard(f"{TAG}:leases") == redis.hlen(f"{TAG}:dispatches") == len(self.model.leases)

    run_state_machine_as_test(
        Machine, settings=settings(max_examples=60, stateful_step_count=40, deadline=None, print_blob=False)
    )


def test_work_counts_not_requests(redis: Redis) -> None:
    shared = SharedCounters(redis)
    first = shared.acquire(INSTANCES[:2], work=100, now=1000).dispatch
    others = [shared.acquire(INSTANCES[:2], work=30, now=1000).dispatch.instance for _ in range(3)]

    assert others == [name for name in INSTANCES[:2] if name != first.instance] * 3


def test_a_slower_instance_gets_as_much_as_it_gets_done(redis: Redis) -> None:
    shared, fast, slow = SharedCounters(redis), *INSTANCES[:2]
    for start in (1000, 2000):
        for name, takes in ((fast, 100), (slow, 300)):
            token = shared.acquire([name], work=60, now=start).dispatch.token
            shared.release(token, outcome="done", now=start + takes)

    counted = [shared.acquire([fast, slow], work=10, now=3000).dispatch.instance for _ in range(40)]

    assert counted.count(fast) == 30


def test_an_instance_of_unknown_pace_counts_as_the_mean_of_the_others(redis: Redis) -> None:
    shared, (fast, slow, new) = SharedCounters(redis), INSTANCES[:3]
    for name, takes in ((fast, 100), (slow, 300)):
        token = shared.acquire([name], work=60, now=1000).dispatch.token
        shared.release(token, outcome="done", now=1000 + takes)
    shared.acquire([fast], work=500, now=2000)

    assert shared.acquire([fast, slow, new], work=100, now=2000).dispatch.instance == new  # 333 ms against 500
    assert shared.acquire([fast, slow, new], work=100, now=2000).dispatch.instance == slow  # 667 ms against 500


def test_what_is_known_of_a_pace_fades_after_ten_seconds_of_work(redis: Redis) -> None:
    shared, name = SharedCounters(redis, lease_ms=60_000), INSTANCES[0]

    def ran(begin: int, end: int) -> tuple[int, int]:
        shared.release(shared.acquire([name], work=100, now=begin).dispatch.token, outcome="done", now=end)
        _, done, busy, *_ = map(int, redis.hget(f"{TAG}:instances", name).split())
        return done, busy

    assert ran(0, 10_000) == (100, 10_000)
    assert ran(20_000, 20_001) == (150, 5000)  # both halved, then 100 more


def test_a_crashed_proxys_dispatches_end_with_their_leases(redis: Redis) -> None:
    shared = SharedCounters(redis)
    lost, alive = (shared.acquire(INSTANCES[:1], work=7, now=1000).dispatch for _ in range(2))
    assert shared.renew([alive.token], now=4000) == 1

    assert shared.renew([alive.token], now=6000) == 1
    assert shared.work() == {INSTANCES[0]: 7}
    assert not shared.release(lost.token, outcome="done", now=6001)
    assert shared.release(alive.token, outcome="done", now=6001)
    assert shared.work() == {INSTANCES[0]: 0}


def test_an_instance_that_fails_is_left_out_longer_each_time_and_tried_by_one_request(redis: Redis) -> None:
    shared, other = SharedCounters(redis), INSTANCES[1]
    broken = INSTANCES[0]

    def fails(now: int) -> None:
        token = shared.acquire([broken], work=1, now=now).dispatch.token
        shared.release(token, outcome="failed", now=now)

    def chosen(now: int, times: int = 4) -> list[str]:
        return [shared.acquire([broken, other], work=1, now=now).dispatch.instance for _ in range(times)]

    fails(1000)
    assert broken not in chosen(1999)
    assert chosen(2000).count(broken) == 1  # the others wait for what becomes of it
    fails(20_000)
    assert broken not in chosen(21_999)
    assert chosen(22_000).count(broken) == 1


def test_an_instance_that_goes_on_failing_is_tried_every_half_minute(redis: Redis) -> None:
    shared, counters, broken = SharedCounters(redis), Counters(), INSTANCES[0]
    left_out, now = [], 1000
    for _ in range(8):
        shared.release(shared.acquire([broken], work=1, now=now).dispatch.token, outcome="failed", now=now)
        counters.release(counters.acquire([broken], work=1, now=now).token, outcome="failed", now=now)
        until = int(redis.hget(f"{TAG}:instances", broken).split()[-1])
        assert until == counters.record(broken).until
        left_out.append(until - now)
        now = until
    assert left_out == [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]


def test_leases_run_by_redis_own_clock(redis: Redis) -> None:
    seconds, microseconds = redis.time()
    before = seconds * 1000 + microseconds // 1000
    SharedCounters(redis).acquire(INSTANCES, work=1)
    seconds, microseconds = redis.time()
    [(_, until)] = redis.zrange(f"{TAG}:leases", 0, -1, withscores=True)
    assert before <= until - LEASE_MS <= seconds * 1000 + microseconds // 1000


def test_requests_that_fail_together_count_as_one_failure(redis: Redis) -> None:
    shared, broken = SharedCounters(redis), INSTANCES[0]
    tokens = [shared.acquire([broken], work=1, now=1000).dispatch.token for _ in range(9)]
    for token in tokens:
        shared.release(token, outcome="failed", now=1500)

    assert shared.acquire(INSTANCES[:2], work=1, now=2499).dispatch.instance != broken
    after = [shared.acquire([broken, INSTANCES[2]], work=1, now=2500).dispatch.instance for _ in range(2)]
    assert broken in after  # one second, not nine failures' worth


def test_where_every_instance_failed_one_is_tried_nevertheless(redis: Redis) -> None:
    shared = SharedCounters(redis)
    token = shared.acquire(INSTANCES[:1], work=1, now=1000).dispatch.token
    shared.release(token, outcome="failed", now=1000)

    assert shared.acquire(INSTANCES[:1], work=1, now=1001).dispatch.instance == INSTANCES[0]


def test_a_wiped_redis_gives_no_token_out_twice(redis: Redis) -> None:
    shared = SharedCounters(redis)
    before = shared.acquire(INSTANCES, work=3, now=1000).dispatch
    wipe(redis)
    after = shared.acquire(INSTANCES, work=3, now=1001).dispatch

    assert after.token > before.token
    assert not shared.release(before.token, outcome="done", now=1002)
    assert shared.work()[after.instance] == 3


def test_instances_that_are_gone_for_an_hour_are_forgotten(redis: Redis) -> None:
    shared = SharedCounters(redis)
    gone = shared.acquire(["http://gone:1"], work=1, now=1000).dispatch
    shared.release(gone.token, outcome="done", now=1000)
    later = 1000 + 3_600_001
    idle = shared.acquire(["http://idle:1"], work=1, now=later - 9).dispatch
    shared.release(idle.token, outcome="done", now=later - 9)
    redis.hset(f"{TAG}:instances", "http://busy:1", "7 0 0 1000 0 0")
    redis.set(f"{TAG}:tokens", 4095)
    shared.acquire(INSTANCES, work=1, now=later)

    assert "http://gone:1" not in shared.work()
    assert {"http://idle:1", "http://busy:1"} < set(shared.work())


def test_of_two_drawn_instances_the_freer_one_is_chosen() -> None:
    counters = Counters()
    counters.record(INSTANCES[0]).work = 1000
    chosen = [counters.acquire(INSTANCES[:2], work=1, now=1, random=Random(seed)).instance for seed in range(9)]
    many = {counters.acquire(INSTANCES, work=1, now=1, random=Random(seed)).instance for seed in range(40)}

    assert chosen == [INSTANCES[1]] * 9
    assert len(many) >= 3  # not all proxies choose the same


@pytest.mark.parametrize(("instances", "work"), [([], 1), (INSTANCES, 0)])
def test_nothing_to_dispatch_is_refused(instances: list[str], work: int, redis: Redis) -> None:
    for counters in (Counters().acquire, SharedCounters(redis).acquire):
        with pytest.raises(InvalidInput, match="at least one of each"):
            counters(instances, work=work, now=1)


def test_redis_away_is_unavailable_at_once() -> None:
    shared = SharedCounters.connect("redis://127.0.0.1:9")
    with pytest.raises(Unavailable, match="balancer's Redis"):
        shared.acquire(INSTANCES, work=1)


def test_a_dispatch_says_where_it_went() -> None:
    assert Counters().acquire(INSTANCES[:1], work=5, now=1) == Dispatch(token=1, instance=INSTANCES[0], work=5)
