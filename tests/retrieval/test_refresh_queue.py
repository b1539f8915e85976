from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from leadre.errors import InvalidInput, Unavailable
from leadre.retrieval.refresh_queue import DOORBELL, Claim, RefreshQueue
from leadre.retrieval.refresh_queue_keys import KEYS, WAITING

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
    assert queue.complete([current, current], now=seconds(7)) == 1
    assert queue.complete([current], now=seconds(7)) == 0
    assert (queue.claimed(), queue.depth()) == (0, 0)


def test_three_failures_lead_to_the_dead_set_and_revive_leads_out_of_it(queue: RefreshQueue) -> None:
    queue.mark([1])
    for _ in range(3):
        assert queue.dead() == []
        queue.fail(queue.claim(1, lease_s=60))
    assert queue.dead() == [1]
    assert queue.mark([1]) == 0
    assert queue.claim(1, lease_s=60) == []
    assert queue.stats().died == 1
    assert queue.revive() == 1
    for _ in range(2):  # with a clean record
        queue.fail(queue.claim(1, lease_s=60))
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


def test_the_end_of_a_claim_rings_for_who_was_marked_meanwhile(queue: RefreshQueue) -> None:
    queue.mark([1])
    assert queue.wait(1.0)
    claims = queue.claim(1, lease_s=60)
    queue.mark([1])
    assert not queue.due()
    assert not queue.wait(0.05)
    queue.complete(claims)
    assert queue.wait(1.0)


def test_a_mark_is_refused_when_a_group_is_unknown(queue: RefreshQueue) -> None:
    with pytest.raises(InvalidInput, match="0 to 24"):
        queue.mark([1], groups=[25])
    with pytest.raises(InvalidInput, match="2 ARPU groups for 1 users"):
        queue.mark([1], groups=[1, 2])
    assert queue.depth() == 0


def test_tokens_never_repeat_after_redis_was_wiped(queue: RefreshQueue) -> None:
    queue.mark([1], now=NOW)
    for _ in range(9):
        queue.claim(1, now=NOW)
    queue.mark([2], now=NOW)
    (before,) = queue.claim(1, now=NOW)
    queue._redis.flushdb()
    queue.mark([1], now=NOW)
    (after,) = queue.claim(1, now=seconds(0.001))
    assert after.token > before.token


def test_a_redis_that_does_not_answer_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        RefreshQueue.connect("redis://127.0.0.1:1/0").mark([1])


def test_the_clock_is_redis_s(queue: RefreshQueue) -> None:
    def milliseconds() -> int:
        seconds, microseconds = queue._redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    before = milliseconds()
    queue.mark([1])
    marked = queue._redis.zscore(WAITING, 1)
    assert marked is not None
    assert before <= marked <= milliseconds()


def test_keys_share_one_cluster_slot_and_user_ids_may_be_as_large_as_ids_are(queue: RefreshQueue) -> None:
    assert DOORBELL.startswith("{leadre:refresh}")
    queue.mark([2**63 - 1, 0])
    assert set(users(queue.claim(2, lease_s=1))) == {2**63 - 1, 0}


def test_a_lease_that_is_renewed_does_not_run_out(queue: RefreshQueue) -> None:
    queue.mark([1, 2], now=NOW)
    claims = queue.claim(2, lease_s=4, now=NOW)
    assert queue.renew(claims[:1], 4, now=seconds(3)) == 1
    assert users(queue.claim(2, lease_s=4, now=seconds(4))) == [2]
    assert queue.renew(claims, 4, now=seconds(5)) == 1  # the second one is somebody else's now
    assert queue.complete(claims, now=seconds(8)) == 1
    assert queue.claimed() == 1


def test_a_claim_says_group_unseen_requests_and_wait(queue: RefreshQueue) -> None:
    queue.mark([5, 5], groups=[3, 4], now=seconds(1))
    queue.mark([5], now=seconds(2))
    (claim,) = queue.claim(1, now=seconds(3.5))
    assert (claim.group, claim.unseen, claim.waiting_s) == (4, 3, 2.5)
    queue.mark([5], now=seconds(4))
    queue.release([claim], now=seconds(5))
    (claim,) = queue.claim(1, now=seconds(6))
    assert (claim.unseen, claim.waiting_s) == (4, 5.0)
    queue.mark([5], now=seconds(7))
    queue.complete([claim], now=seconds(8))
    (claim,) = queue.claim(1, now=seconds(9))
    assert (claim.unseen, claim.waiting_s) == (1, 2.0)


def test_requests_while_claimed_wait_since_the_first_of_them(queue: RefreshQueue) -> None:
    queue.mark([5], groups=[3], now=NOW)
    claims = queue.claim(1, lease_s=60, now=seconds(1))
    queue.mark([5], groups=[4], now=seconds(2))
    queue.mark([5], now=seconds(3))
    queue.complete(claims, now=seconds(4))
    (claim,) = queue.claim(1, now=seconds(5))
    assert (claim.group, claim.unseen, claim.waiting_s) == (4, 2, 3.0)


def test_unseen_requests_are_counted_up_to_31(queue: RefreshQueue) -> None:
    queue.mark([1] * 40, groups=[24] * 40)
    queue.mark([1])
    (claim,) = queue.claim(1)
    assert (claim.group, claim.unseen) == (24, 31)


def test_two_lost_leases_are_claimed_alone_and_one_is_not(queue: RefreshQueue) -> None:
    queue.mark([1, 2, 3], now=NOW)
    for lost in range(2):
        assert len(queue.claim(3, lease_s=1, now=seconds(lost))) == 3
    assert len(queue.claim(3, lease_s=9, now=seconds(2))) == 1


def test_a_claim_takes_back_128_lost_leases_at_most(queue: RefreshQueue) -> None:
    queue.mark(range(300), now=NOW)
    assert [len(queue.claim(600, lease_s=1, now=NOW)) for _ in range(2)] == [256, 44]
    queue.claim(1, lease_s=60, now=seconds(2))
    assert (queue.depth(), queue.claimed()) == (127, 173)
    assert queue.due(now=seconds(2))


def test_more_users_than_a_script_handles_are_marked_claimed_and_settled(queue: RefreshQueue) -> None:
    assert queue.mark(list(range(2500)) * 2) == 5000
    claims = [claim for _ in range(10) for claim in queue.claim(5000, lease_s=60)]
    assert sorted(users(claims)) == list(range(2500))
    assert queue.complete(claims) == 2500
    assert (queue.depth(), queue.claimed()) == (0, 0)


def test_a_user_without_any_list_comes_first_in_the_cheap_lane_and_waits_on_for_the_llm(queue: RefreshQueue) -> None:
    queue.mark([1], groups=[24], now=seconds(1))
    queue.mark([2], groups=[7], new=True, now=seconds(2))
    cheap = queue.claim(9, lane="cheap", now=seconds(3))
    assert users(cheap) == [2]
    queue.complete(cheap, now=seconds(4))
    assert queue.claim(9, lane="cheap", now=seconds(5)) == []
    claims = queue.claim(9, now=seconds(5))
    assert [(claim.user_id, claim.unseen, claim.waiting_s) for claim in claims] == [(1, 1, 4.0), (2, 1, 3.0)]
    queue.complete(claims, now=seconds(6))
    assert queue.depth() == 0


def test_the_llm_s_list_ends_a_new_user_s_wait(queue: RefreshQueue) -> None:
    queue.mark([2], new=True)
    queue.complete(queue.claim(1))
    assert queue.depth() == 0


def test_a_failed_cheap_list_leaves_a_new_user_new(queue: RefreshQueue) -> None:
    queue.mark([2], new=True)
    queue.fail(queue.claim(1, lane="cheap"))
    assert users(queue.claim(1, lane="cheap")) == [2]


def test_a_forgotten_user_leaves_nothing_behind(queue: RefreshQueue) -> None:
    queue.mark([1])
    for _ in range(3):
        queue.fail(queue.claim(1))
    queue.mark([2, 3, 4])
    claims = queue.claim(2, lease_s=60)
    queue.mark([1, 2, 3, 4])
    assert queue.forget([1, 2, 3, 4, 5]) == 4
    assert queue.forget([]) == 0
    assert queue.complete(claims) == 0
    assert not any(queue._redis.exists(key) for key in KEYS[:7])
    assert queue.mark([1]) == 1


def test_a_call_is_one_round_trip(queue: RefreshQueue) -> None:
    def calls() -> int:
        return int(queue._redis.info("commandstats")["cmdstat_evalsha"]["calls"])

    queue.mark(range(256))
    queue.complete(queue.claim(3))
    queue.stats()  # every script is loaded
    before = calls()
    queue.mark(range(256))
    claims = queue.claim(256)
    queue.renew(claims)
    queue.complete(claims)
    queue.stats()
    assert calls() - before == 5
