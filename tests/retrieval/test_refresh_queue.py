from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

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
