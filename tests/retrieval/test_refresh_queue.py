from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from leadre.errors import InvalidInput, Unavailable
from leadre.retrieval.refresh_queue import DOORBELL, Claim, RefreshQueue

NOW = datetime(2025, 3, 1, tzinfo=UTC)


def seconds(count: float) -> datetime:
    return NOW + timedelta(seconds=count)


@pytest.fixture
def queue(redis_url: str) -> RefreshQueue:
    return RefreshQueue.connect(redis_url)


def users(claims: list[Claim]) -> list[int]:
    return [claim.user_id for claim in claims]


def test_a_user_waits_once_however_often_it_is_marked(queue: RefreshQueue) -> None:
    assert queue.mark([7, 7, 8, 7]) == 4
    queue.mark([7])
    assert queue.depth() == 2


def test_higher_groups_come_first_and_within_a_group_the_longest_wait(queue: RefreshQueue) -> None:
    queue.mark([1, 2, 3], groups=[3, 24, 3], now=seconds(2))
    queue.mark([4, 5], groups=[3, 0], now=seconds(1))
    assert users(queue.claim(10, lease_s=5, now=seconds(3))) == [2, 4, 1, 3, 5]


def test_a_new_mark_changes_the_group_but_keeps_the_place_in_time(queue: RefreshQueue) -> None:
    queue.mark([1, 2], groups=[5, 5], now=seconds(1))
    queue.mark([3], groups=[6], now=seconds(2))
    queue.mark([2], groups=[6], now=seconds(3))
    assert users(queue.claim(10, lease_s=5, now=seconds(4))) == [2, 3, 1]


def test_a_mark_without_a_group_keeps_the_known_one(queue: RefreshQueue) -> None:
    queue.mark([1], groups=[9], now=seconds(1))
    queue.mark([1, 2], now=seconds(2))
    queue.mark([3], groups=[8], now=seconds(2))
    assert users(queue.claim(10, lease_s=5, now=seconds(3))) == [1, 3, 2]


def test_a_claimed_user_is_not_claimed_twice_while_its_lease_lives(queue: RefreshQueue) -> None:
    queue.mark([1], now=NOW)
    assert users(queue.claim(1, lease_s=5, now=NOW)) == [1]
    queue.mark([1], now=seconds(1))
    assert queue.claim(1, lease_s=5, now=seconds(4.999)) == []
    assert queue.depth() == 1
    assert users(queue.claim(1, lease_s=5, now=seconds(5))) == [1]


def test_a_user_marked_while_claimed_waits_again_after_completion(queue: RefreshQueue) -> None:
    queue.mark([1, 2])
    claims = queue.claim(2, lease_s=60)
    queue.mark([2])
    assert queue.complete(claims) == 2
    assert users(queue.claim(2, lease_s=60)) == [2]


def test_only_the_right_token_completes(queue: RefreshQueue) -> None:
    queue.mark([1], now=NOW)
    (late,) = queue.claim(1, lease_s=5, now=NOW)
    (current,) = queue.claim(1, lease_s=5, now=seconds(6))
    assert late.token != current.token
    assert queue.complete([late], now=seconds(7)) == 0
    assert queue.claimed() == 1
    assert queue.complete([current], now=seconds(7)) == 1
    assert (queue.claimed(), queue.depth()) == (0, 0)


def test_three_failures_lead_to_the_dead_set_and_revive_leads_out_of_it(queue: RefreshQueue) -> None:
    queue.mark([1])
    for _ in range(3):
        assert queue.dead() == []
        queue.fail(queue.claim(1, lease_s=60))
    assert queue.dead() == [1]
    assert queue.mark([1]) == 0
    assert queue.claim(1, lease_s=60) == []
    assert queue.revive() == 1
    assert users(queue.claim(1, lease_s=60)) == [1]


def test_success_wipes_out_earlier_failures(queue: RefreshQueue) -> None:
    for _ in range(4):
        queue.mark([1])
        queue.fail(queue.claim(1, lease_s=60))
        queue.complete(queue.claim(1, lease_s=60))
    assert queue.dead() == []


def test_a_user_that_failed_before_is_claimed_alone_and_after_its_group(queue: RefreshQueue) -> None:
    queue.mark([1, 2], groups=[4, 4], now=seconds(1))
    queue.fail(queue.claim(1, lease_s=60, now=seconds(1)), now=seconds(3))
    queue.mark([3], groups=[4], now=seconds(2))
    queue.mark([4], groups=[3], now=seconds(2))
    assert [users(queue.claim(10, lease_s=60, now=seconds(4))) for _ in range(4)] == [[2, 3], [1], [4], []]


def test_lost_leases_count_half_of_failures(queue: RefreshQueue) -> None:
    queue.mark([1], now=NOW)
    for lost in range(6):
        assert queue.dead() == []
        assert users(queue.claim(1, lease_s=1, now=seconds(lost))) == [1]
    assert queue.claim(1, lease_s=1, now=seconds(6)) == []
    assert queue.dead() == [1]


def test_released_users_keep_their_places_and_are_not_blamed(queue: RefreshQueue) -> None:
    queue.mark([1, 2], now=seconds(1))
    queue.mark([3], now=seconds(2))
    for _ in range(7):
        queue.release(queue.claim(2, lease_s=60, now=seconds(3)), now=seconds(3))
    assert users(queue.claim(3, lease_s=60, now=seconds(4))) == [1, 2, 3]
    assert queue.dead() == []


def test_the_doorbell_rings_once_for_many_marks_and_wakes_a_sleeper(queue: RefreshQueue) -> None:
    queue.mark([1])
    queue.mark([2])
    assert queue.wait(1.0)
    started = time.monotonic()
    assert not queue.wait(0.2)
    assert time.monotonic() - started >= 0.15


def test_a_claim_that_leaves_users_behind_rings_for_other_workers(queue: RefreshQueue) -> None:
    queue.mark([1, 2])
    assert queue.wait(1.0)
    queue.claim(1, lease_s=60)
    assert queue.wait(1.0)


def test_a_mark_is_refused_when_a_group_is_unknown(queue: RefreshQueue) -> None:
    with pytest.raises(InvalidInput, match="0 to 24"):
        queue.mark([1], groups=[25])
    with pytest.raises(InvalidInput, match="2 ARPU groups for 1 users"):
        queue.mark([1], groups=[1, 2])
    assert queue.depth() == 0


def test_tokens_never_repeat_after_redis_was_wiped(queue: RefreshQueue, redis_url: str) -> None:
    queue.mark([1])
    (before,) = queue.claim(1, lease_s=60)
    RefreshQueue.connect(redis_url)._redis.flushdb()
    queue.mark([1])
    (after,) = queue.claim(1, lease_s=60)
    assert after.token > before.token


def test_a_redis_that_does_not_answer_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        RefreshQueue.connect("redis://127.0.0.1:1/0").mark([1])


def test_keys_share_one_cluster_slot_and_user_ids_may_be_as_large_as_ids_are(queue: RefreshQueue) -> None:
    assert DOORBELL.startswith("{leadre:refresh}")
    queue.mark([2**63 - 1, 0])
    assert set(users(queue.claim(2, lease_s=1))) == {2**63 - 1, 0}


class QueueMachine(RuleBasedStateMachine):
    """The queue beside a model in plain dictionaries: who waits (and since when), who is claimed, who is dead."""

    url = ""

    @initialize()
    def start(self) -> None:
        self.queue = RefreshQueue.connect(self.url, timeout_s=5)
        self.queue._redis.flushdb()
        self.now_ms = 1_700_000_000_000
        self.pending: dict[int, tuple[int, int]] = {}  # user: (group, since)
        self.again: dict[int, tuple[int, int]] = {}
        self.claimed: dict[int, tuple[int, int, int, int]] = {}  # user: (token, lease end, group, since)
        self.trouble: dict[int, int] = {}
        self.dead: list[int] = []
        self.history: list[Claim] = []

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.now_ms / 1000, UTC)

    def teardown(self) -> None:
        if hasattr(self, "queue"):
            self.queue._redis.close()

    @rule(milliseconds=st.integers(0, 3000))
    def time_passes(self, milliseconds: int) -> None:
        self.now_ms += milliseconds

    @rule(marks=st.lists(st.tuples(st.integers(1, 6), st.sampled_from([0, 1, 24])), min_size=1, max_size=5))
    def mark(self, marks: list[tuple[int, int]]) -> None:
        accepted = 0
        for user, group in marks:
            if user in self.dead:
                continue
            rows = self.again if user in self.claimed else self.pending
            rows[user] = (group, min(rows[user][1], self.now_ms) if user in rows else self.now_ms)
            accepted += 1
        assert self.queue.mark([u for u, _ in marks], groups=[g for _, g in marks], now=self.now) == accepted

    def unclaim(self, user: int, row: tuple[int, int] | None) -> None:
        del self.claimed[user]
        if user in self.again:
            group, since = self.again.pop(user)
            row = (group, min(since, row[1]) if row else since)
        if row:
            self.pending[user] = row

    def blame(self, user: int, points: int) -> None:
        self.trouble[user] = self.trouble.get(user, 0) + points
        group = self.again.get(user, self.claimed[user][2:])[0]
        if self.trouble[user] >= 6:
            del self.claimed[user], self.trouble[user]
            self.again.pop(user, None)
            self.dead.append(user)
        else:
            self.unclaim(user, (group, self.now_ms))
            self.pending[user] = (self.pending[user][0], self.now_ms)

    @rule(limit=st.integers(1, 4), lease_ms=st.integers(1, 4000))
    def claim(self, limit: int, lease_ms: int) -> None:
        for user in [u for u, (_, end, _, _) in self.claimed.items() if end <= self.now_ms]:
            self.blame(user, 1)
        expected: list[int] = []
        for user in sorted(self.pending, key=lambda u: (-self.pending[u][0], self.pending[u][1], str(u))):
            if len(expected) == limit or (user in self.trouble and expected):
                break
            expected.append(user)
            if user in self.trouble:
                break
        claims = self.queue.claim(limit, lease_s=lease_ms / 1000, now=self.now)
        assert users(claims) == expected
        for claim in claims:
            assert claim.token > max((c.token for c in self.history), default=0)
            self.claimed[claim.user_id] = (claim.token, self.now_ms + lease_ms, *self.pending.pop(claim.user_id))
        self.history += claims

    @rule(outcome=st.sampled_from(["complete", "fail", "release"]), which=st.sets(st.integers(0, 30), max_size=4))
    def settle(self, outcome: str, which: set[int]) -> None:
        claims = [self.history[-1 - i] for i in sorted(which) if i < len(self.history)]
        held = [c for c in claims if self.claimed.get(c.user_id, (None,))[0] == c.token]
        assert getattr(self.queue, outcome)(claims, now=self.now) == len(held)
        for claim in held:
            user, row = claim.user_id, self.claimed[claim.user_id][2:]
            if outcome == "complete":
                self.trouble.pop(user, None)
                self.unclaim(user, None)
            elif outcome == "fail":
                self.blame(user, 2)
            else:
                self.unclaim(user, row)

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "queue"):
            assert self.queue.depth() == len(self.pending) + len(self.again)
            assert self.queue.claimed() == len(self.claimed)
            assert set(self.queue.dead()) == set(self.dead)
            if self.pending:
                assert self.queue._redis.llen(DOORBELL) == 1


def test_the_queue_behaves_like_its_model(redis_url: str) -> None:
    QueueMachine.url = redis_url
    run_state_machine_as_test(
        QueueMachine, settings=hypothesis_settings(max_examples=150, stateful_step_count=30, deadline=None)
    )
