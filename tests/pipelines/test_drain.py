from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from leadre.errors import InvalidInput, NoValidContinuation, Unavailable
from leadre.pipelines.drain import Drained, LaneWork, drain
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.services import Services


@pytest.fixture
def queue(redis_url: str) -> RefreshQueue:
    return RefreshQueue.connect(redis_url)


@pytest.fixture(scope="module")
def redis_server(services: Services) -> str:
    with Redis.from_url(services.redis_url) as client:
        client.flushall()
    return services.redis_url


def llm(refresh: Callable[[Sequence[int]], object], batch: int) -> list[LaneWork]:
    return [LaneWork(lane="llm", ready=lambda: refresh, batch=batch)]


def test_a_drain_takes_what_waits_in_batches_until_nothing_does(queue: RefreshQueue) -> None:
    batches: list[list[int]] = []

    def refresh(user_ids: Sequence[int]) -> None:
        batches.append(list(user_ids))
        if len(batches) == 2:
            queue.mark([99])  # while a batch is at work

    queue.mark(range(5))
    assert drain(queue, lanes=llm(refresh, 3), lease_s=9) == Drained(refreshed=6, batches=2 + 1)
    assert [len(batch) for batch in batches] == [3, 2, 1]
    assert sorted(user for batch in batches for user in batch) == [0, 1, 2, 3, 4, 99]
    assert queue.depth() == queue.claimed() == 0


def test_a_poison_user_is_halved_out_tried_three_times_and_blames_nobody_else(queue: RefreshQueue) -> None:
    attempts: list[int] = []
    served: set[int] = set()

    def refresh(user_ids: Sequence[int]) -> None:
        if 4 in user_ids:
            attempts.append(len(user_ids))
            raise InvalidInput("poison")
        served.update(user_ids)

    queue.mark(range(9))
    drained = drain(queue, lanes=llm(refresh, 8), lease_s=9)
    assert served == set(range(9)) - {4}
    assert attempts == [8, 4, 2, 1, 1, 1]  # halved, then alone twice more
    assert (drained.refreshed, drained.failed) == (8, 3)
    assert queue.dead() == [4]
    assert queue.depth() == queue.claimed() == 0


@settings(max_examples=30)
@given(st.sets(st.integers(0, 40), max_size=6), st.integers(1, 50))
def test_whoever_is_poison_and_however_large_the_batch_all_others_are_served(
    redis_server: str, poison: set[int], batch: int
) -> None:
    queue = RefreshQueue.connect(redis_server)
    served: set[int] = set()

    def refresh(user_ids: Sequence[int]) -> None:
        if poison & set(user_ids):
            raise ValueError("poison")
        served.update(user_ids)

    queue.forget(range(41))
    queue.mark(range(41))
    drain(queue, lanes=llm(refresh, batch), lease_s=9)
    assert served == set(range(41)) - poison
    assert set(queue.dead()) == poison
    assert queue.depth() == queue.claimed() == 0


def test_a_fault_of_nobody_in_the_middle_of_halving_gives_back_whoever_is_not_served(queue: RefreshQueue) -> None:
    calls: list[list[int]] = []

    def refresh(user_ids: Sequence[int]) -> None:
        calls.append(list(user_ids))
        if len(calls) == 1:
            raise ValueError("somebody is poison")
        if len(calls) == 3:
            raise Unavailable("down")

    queue.mark(range(8))
    with pytest.raises(Unavailable):
        drain(queue, lanes=llm(refresh, 8), lease_s=9)
    assert [len(call) for call in calls] == [8, 4, 4]
    assert (queue.depth(), queue.claimed()) == (4, 0)


def test_a_release_that_cannot_be_loaded_blames_nobody_whatever_it_raises(queue: RefreshQueue) -> None:
    def ready() -> NoReturn:
        raise TypeError("not a model")

    queue.mark(range(5))
    work = LaneWork(lane="llm", batch=3, ready=ready)
    for _ in range(7):
        with pytest.raises(TypeError):
            drain(queue, lanes=[work], lease_s=9)
    assert (queue.depth(), queue.claimed(), queue.dead()) == (5, 0, [])


def test_the_leases_of_a_batch_at_work_are_renewed_and_end_with_it(queue: RefreshQueue) -> None:
    lost: list[int] = []

    def refresh(user_ids: Sequence[int]) -> None:
        end = time.monotonic() + 1.5  # five leases long
        while time.monotonic() < end:
            lost.extend(claim.user_id for claim in queue.claim(9, lease_s=9))
            time.sleep(0.01)

    queue.mark([1, 2])
    drain(queue, lanes=llm(refresh, 2), lease_s=0.3)
    assert lost == []
    assert (queue.depth(), queue.claimed(), queue.stats().expiries) == (0, 0, 0)
    assert "lease-renewal" not in {thread.name for thread in threading.enumerate()}


def test_the_first_lane_is_always_served_first(queue: RefreshQueue) -> None:
    served: list[tuple[str, list[int]]] = []

    def cheap(user_ids: Sequence[int]) -> None:
        served.append(("cheap", sorted(user_ids)))

    def refresh(user_ids: Sequence[int]) -> None:
        served.append(("llm", sorted(user_ids)))
        if len(served) == 2:
            queue.mark([7], new=True)  # comes while the LLM is at work

    queue.mark([1, 2, 3], groups=[20, 20, 20])
    queue.mark([4, 5], new=True)
    drain(queue, lanes=[LaneWork(lane="cheap", ready=lambda: cheap, batch=9), *llm(refresh, 3)], lease_s=9)
    assert served[0] == ("cheap", [4, 5])
    assert served[2] == ("cheap", [7])
    assert {user for lane, users in served if lane == "llm" for user in users} == {1, 2, 3, 4, 5, 7}


@pytest.mark.parametrize("error", [Unavailable("down"), NoValidContinuation("broken trie")])
def test_a_fault_that_is_no_users_fault_is_raised_and_blames_nobody(queue: RefreshQueue, error: Exception) -> None:
    def refresh(user_ids: Sequence[int]) -> None:
        raise error

    queue.mark(range(5))
    for _ in range(7):
        with pytest.raises(type(error)):
            drain(queue, lanes=llm(refresh, 3), lease_s=9)
    assert (queue.depth(), queue.claimed(), queue.dead()) == (5, 0, [])


def test_a_stopping_worker_finishes_its_batch_and_leaves_the_rest(queue: RefreshQueue) -> None:
    served: list[int] = []
    queue.mark(range(5))
    drained = drain(queue, lanes=llm(served.extend, 2), lease_s=9, should_stop=lambda: len(served) >= 2)
    assert (drained.refreshed, queue.depth()) == (2, 3)


def test_what_failed_is_logged_without_its_message(queue: RefreshQueue, caplog: pytest.LogCaptureFixture) -> None:
    def refresh(user_ids: Sequence[int]) -> None:
        raise ValueError("lives in Haidian, Beijing")

    queue.mark([1])
    drain(queue, lanes=llm(refresh, 2), lease_s=9)
    assert "test_drain.py:" in caplog.records[0].error
    assert "Haidian" not in caplog.text + str([vars(record) for record in caplog.records])
