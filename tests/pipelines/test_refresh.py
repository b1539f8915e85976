from __future__ import annotations

from collections.abc import Sequence

import pytest

from leadre.errors import InvalidInput, NoValidContinuation, Unavailable
from leadre.pipelines.refresh import Drained, drain
from leadre.retrieval.refresh_queue import RefreshQueue


@pytest.fixture
def queue(redis_url: str) -> RefreshQueue:
    return RefreshQueue.connect(redis_url)


def test_a_drain_takes_what_waits_in_batches_until_nothing_does(queue: RefreshQueue) -> None:
    batches: list[list[int]] = []

    def refresh(user_ids: Sequence[int]) -> None:
        batches.append(list(user_ids))
        if len(batches) == 2:
            queue.mark([99])  # while a batch is at work

    queue.mark(range(5))
    assert drain(queue, refresh=refresh, batch=3, lease_s=9) == Drained(refreshed=6, batches=2 + 1)
    assert [len(batch) for batch in batches] == [3, 2, 1]
    assert sorted(user for batch in batches for user in batch) == [0, 1, 2, 3, 4, 99]
    assert queue.depth() == queue.claimed() == 0


def test_a_poison_user_is_tried_three_times_and_costs_the_others_nothing_but_time(queue: RefreshQueue) -> None:
    attempts: list[int] = []
    served: set[int] = set()

    def refresh(user_ids: Sequence[int]) -> None:
        if 4 in user_ids:
            attempts.append(len(user_ids))
            raise InvalidInput("poison")
        served.update(user_ids)

    queue.mark(range(9))
    drained = drain(queue, refresh=refresh, batch=6, lease_s=9)
    assert served == set(range(9)) - {4}
    assert attempts == [6, 1, 1]
    assert (drained.refreshed, drained.failed) == (8, 8)
    assert queue.dead() == [4]
    assert queue.depth() == queue.claimed() == 0


@pytest.mark.parametrize("error", [Unavailable("down"), NoValidContinuation("broken trie")])
def test_a_fault_that_is_no_users_fault_is_raised_and_blames_nobody(queue: RefreshQueue, error: Exception) -> None:
    def refresh(user_ids: Sequence[int]) -> None:
        raise error

    queue.mark(range(5))
    for _ in range(7):
        with pytest.raises(type(error)):
            drain(queue, refresh=refresh, batch=3, lease_s=9)
    assert (queue.depth(), queue.claimed(), queue.dead()) == (5, 0, [])


def test_a_stopping_worker_finishes_its_batch_and_leaves_the_rest(queue: RefreshQueue) -> None:
    served: list[int] = []
    queue.mark(range(5))
    drained = drain(queue, refresh=served.extend, batch=2, lease_s=9, should_stop=lambda: len(served) >= 2)
    assert (drained.refreshed, queue.depth()) == (2, 3)


def test_what_failed_is_logged_without_its_message(queue: RefreshQueue, caplog: pytest.LogCaptureFixture) -> None:
    def refresh(user_ids: Sequence[int]) -> None:
        raise ValueError("lives in Haidian, Beijing")

    queue.mark([1])
    drain(queue, refresh=refresh, batch=2, lease_s=9)
    assert "test_refresh.py:" in caplog.records[0].error
    assert "Haidian" not in caplog.text + str([vars(record) for record in caplog.records])
