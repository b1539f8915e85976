from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from leadre.errors import InvalidInput
from leadre.retrieval.refresh_queue import Claim, RefreshQueue

NOW = datetime(2025, 3, 1, tzinfo=UTC)


def seconds(count: float) -> datetime:
    return NOW + timedelta(seconds=count)


@pytest.fixture
def queue(redis_url: str) -> RefreshQueue:
    return RefreshQueue.connect(redis_url)


def users(claims: list[Claim]) -> list[int]:
    return [claim.user_id for claim in claims]


def test_a_lower_group_with_more_unseen_requests_may_be_worth_more(queue: RefreshQueue) -> None:
    queue.mark([1], groups=[24], now=NOW)  # 25 x (1 - .8)
    queue.mark([2] * 3, groups=[9] * 3, now=seconds(1))  # 10 x (1 - .8^3)
    queue.mark([3] * 2, groups=[13] * 2, now=seconds(2))  # 14 x (1 - .8^2)
    assert users(queue.claim(3, now=seconds(3))) == [3, 1, 2]


def test_new_values_count_from_the_next_claim_on_for_users_who_wait_already(queue: RefreshQueue) -> None:
    queue.mark([1], groups=[24])
    queue.mark([2] * 3, groups=[9] * 3)
    queue.set_values([0.0] * 24 + [1.0])
    queue.release(claims := queue.claim(2))
    assert users(claims) == [1, 2]
    queue.set_values([1.0] * 25, 0.99)
    queue.release(claims := queue.claim(2))
    assert users(claims) == [2, 1]


def test_of_equal_values_the_longest_wait_comes_first_whatever_the_group(queue: RefreshQueue) -> None:
    queue.set_values([1.0] * 25)
    for user in range(12):
        queue.mark([user], groups=[user % 5], now=seconds(user))
    queue.mark([31, 32, 33, 34], groups=[4, 24, 11, 19], now=seconds(13))
    assert users(queue.claim(16, now=seconds(20))) == [*range(12), 32, 34, 33, 31]


def test_the_floor_serves_the_lowest_group_within_a_bounded_number_of_claims(queue: RefreshQueue) -> None:
    queue.mark([7, 8], groups=[0, 0], now=NOW)
    served: list[int] = []
    for claim in range(40):  # a flood of the most valuable users, as many as the capacity
        queue.mark(range(100 * claim + 100, 100 * claim + 104), groups=[24] * 4, now=seconds(claim + 1))
        claims = queue.claim(4, now=seconds(claim + 2))
        queue.complete(claims, now=seconds(claim + 2))
        served += users(claims)
    assert served.index(7) < 4 * 3  # a tenth of the users, in order of waiting
    assert served.index(8) < 4 * 5
    assert len(served) == len(set(served)) == 4 * 40


def test_one_user_in_ten_is_the_floor_s_unless_set_otherwise(queue: RefreshQueue) -> None:
    queue.mark([7], groups=[0], now=NOW)
    queue.mark(range(100, 120), groups=[24] * 20, now=seconds(1))
    served = [users(queue.claim(1, lease_s=60, now=seconds(2)))[0] for _ in range(10)]
    assert served.index(7) == 9


def test_without_a_floor_value_is_all(queue: RefreshQueue) -> None:
    queue.set_floor(0)
    queue.mark([7], groups=[0], now=NOW)
    for claim in range(1, 15):
        queue.mark([100 + claim], groups=[24], now=seconds(claim))
        assert users(queue.claim(1, lease_s=60, now=seconds(claim))) == [100 + claim]
    assert users(queue.claim(2, now=seconds(15))) == [7]


def test_a_floor_of_all_is_the_order_of_waiting_unless_there_is_room_for_everyone(queue: RefreshQueue) -> None:
    queue.set_floor(1)
    for user in range(1, 6):
        queue.mark([user], groups=[user], now=seconds(user))
    queue.release(claims := queue.claim(5, lease_s=60, now=seconds(9)), now=seconds(9))
    assert users(claims) == [5, 4, 3, 2, 1]
    assert users(queue.claim(3, lease_s=60, now=seconds(9))) == [1, 2, 3]
    assert users(queue.claim(1, lease_s=60, now=seconds(9))) == [4]


def test_the_longest_waiting_user_is_claimed_alone_too_if_it_failed_before(queue: RefreshQueue) -> None:
    queue.set_floor(0.5)
    queue.mark([1], now=NOW)
    queue.fail(queue.claim(1, lease_s=60, now=NOW), now=NOW)
    queue.mark([2, 3, 4], groups=[9, 9, 9], now=seconds(1))
    assert users(queue.claim(2, lease_s=60, now=seconds(2))) == [1]
    assert users(queue.claim(2, lease_s=60, now=seconds(2))) == [2, 3]


def test_groups_below_the_cut_are_the_cheap_lane_s_and_come_last_in_the_other(queue: RefreshQueue) -> None:
    queue.set_cut(5)
    queue.mark([1, 2, 3, *[4] * 9], groups=[3, 5, 4, *[4] * 9], now=NOW)
    assert users(queue.claim(2, lane="cheap", lease_s=60, now=seconds(1))) == [4, 3]
    assert users(queue.claim(9, lane="llm", lease_s=60, now=seconds(1))) == [2, 1]
    queue.mark([5], groups=[4], new=True, now=seconds(1))
    cheap = queue.claim(1, lane="cheap", now=seconds(1))
    assert users(cheap) == [5]
    queue.complete(cheap, now=seconds(2))
    assert queue.claim(9, now=seconds(2)) == []  # it has what its group gets
    queue.mark([6], groups=[5], new=True, now=seconds(1))
    queue.complete(queue.claim(1, lane="cheap", now=seconds(1)), now=seconds(2))
    assert users(queue.claim(9, now=seconds(2))) == [6]


def test_a_user_below_the_cut_comes_after_all_others_whatever_it_is_worth(queue: RefreshQueue) -> None:
    queue.set_cut(5)
    queue.mark([1, 2, *[3] * 9, 4], groups=[5, 6, *[4] * 9, 3], now=NOW)
    queue.mark([5], groups=[0], new=True, now=seconds(1))
    queue.release(claims := queue.claim(5, lease_s=60, now=seconds(1)), now=seconds(1))
    assert users(claims) == [2, 1, 3, 4, 5]
    assert users(queue.claim(5, lane="cheap", now=seconds(1))) == [5, 3, 4]


def test_the_budget_bounds_claims_of_the_llm_by_redis_s_clock(queue: RefreshQueue) -> None:
    queue.mark(range(100), now=NOW)
    queue.set_budget(2, 5)
    assert len(queue.claim(10, lease_s=600, now=NOW)) == 5
    assert not queue.due(now=NOW)
    assert queue.claim(10, lease_s=600, now=seconds(0.4)) == []
    assert len(queue.claim(10, lease_s=600, now=seconds(0.6))) == 1  # .2 of a user is left over
    assert len(queue.claim(10, lease_s=600, now=seconds(1))) == 1
    queue.set_budget(2, 5)  # as every worker does at its start
    assert queue.claim(10, lease_s=600, now=seconds(0)) == []  # a clock that went back
    assert queue.claim(10, lease_s=600, now=seconds(1)) == []
    assert queue.stats(now=seconds(2)).budget_users == 2
    assert len(queue.claim(10, lease_s=600, now=seconds(60))) == 5
    queue.set_budget(0, 0)
    assert len(queue.claim(100, lease_s=600, now=seconds(60))) == 100 - 12
    assert queue.stats().budget_users is None


def test_the_cheap_lane_costs_no_budget(queue: RefreshQueue) -> None:
    queue.set_budget(1, 1)
    queue.mark(range(5), new=True, now=NOW)
    assert len(queue.claim(9, lane="cheap", now=NOW)) == 5
    assert queue.stats(now=NOW).budget_users == 1


def test_an_exhausted_budget_rings_no_doorbell_and_time_makes_a_claim_due(queue: RefreshQueue) -> None:
    queue.set_budget(1, 1)
    queue.mark([1, 2], now=NOW)
    assert queue.wait(1.0)
    assert len(queue.claim(2, lease_s=60, now=NOW)) == 1
    queue.mark([3], now=NOW)
    assert not queue.wait(0.05)
    assert not queue.due(now=seconds(0.9))
    assert queue.due(now=seconds(1))
    queue.mark([4], now=seconds(0.5), new=True)  # the cheap lane takes it
    assert queue.wait(1.0)


@pytest.mark.parametrize(
    ("values", "discount", "said"),
    [
        ([1.0] * 24, 0.8, "24 values; give 25"),
        ([1.0] * 24 + [0.5], 0.8, "rise with the group"),
        ([-1.0] + [1.0] * 24, 0.8, "0 or more"),
        ([1.0] * 24 + [float("nan")], 0.8, "finite"),
        ([1.0] * 25, 1.0, "discount is 1.0"),
    ],
)
def test_values_that_make_no_order_are_refused(
    queue: RefreshQueue, values: list[float], discount: float, said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        queue.set_values(values, discount)


def test_settings_out_of_bounds_are_refused(queue: RefreshQueue) -> None:
    with pytest.raises(InvalidInput, match="cut is 26"):
        queue.set_cut(26)
    with pytest.raises(InvalidInput, match=r"share is 1\.1"):
        queue.set_floor(1.1)
    with pytest.raises(InvalidInput, match="-1 users/s"):
        queue.set_budget(-1, 5)
    with pytest.raises(InvalidInput, match=r"burst is 0\.5"):
        queue.set_budget(1, 0.5)
