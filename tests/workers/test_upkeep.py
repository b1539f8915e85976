"""Upkeep in a worker: what is wiped comes back, who is forgotten is marked, and only one process looks at a time."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis import Redis

from leadre.errors import Unavailable
from workers import upkeep
from workers.resources import Resources


class Held:
    """What the upkeep uses of a process's resources, counting."""

    def __init__(self, redis_url: str, *, whole: bool = True) -> None:
        self.redis = Redis.from_url(redis_url)
        self.stopping = threading.Event()
        self.rounds = self.rehydrations = 0
        self.whole = whole
        self.rehydrator = SimpleNamespace(is_whole=lambda: self.whole, rehydrate=self._rehydrate)
        self.reconciler = SimpleNamespace(round=self._round)

    def _rehydrate(self, **_: object) -> None:
        self.rehydrations += 1

    def _round(self, **_: object) -> int:
        self.rounds += 1
        return 0


def keep(*held: Held) -> list[threading.Thread]:
    threads = [threading.Thread(target=upkeep.keep, args=(cast(Resources, each),)) for each in held]
    for thread in threads:
        thread.start()
    return threads


def until(reached: Any) -> None:
    end = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_of_several_processes_one_looks_at_a_time_and_another_follows_when_it_dies(redis_url: str, monkeypatch) -> None:
    monkeypatch.setattr(upkeep, "EVERY_S", 0.2)
    first, second = Held(redis_url), Held(redis_url)
    (one,) = keep(first)
    until(lambda: first.rounds >= 2)
    first.stopping.set()
    one.join()
    before = first.rounds
    (other,) = keep(second)
    until(lambda: second.rounds >= 2)
    second.stopping.set()
    other.join()
    assert first.rounds == before


def test_two_processes_together_look_about_as_often_as_one(redis_url: str) -> None:
    held = Held(redis_url), Held(redis_url)
    held[0].redis.set(upkeep.TURN, 1, px=600_000)  # somebody's turn
    threads = keep(*held)
    time.sleep(0.1)
    assert [each.rounds for each in held] == [0, 0]
    for each in held:
        each.stopping.set()
    for thread in threads:
        thread.join()


def test_a_wiped_store_is_filled_and_forgotten_users_are_looked_for_all_the_same(redis_url: str) -> None:
    held = Held(redis_url, whole=False)
    upkeep.look(cast(Resources, held))
    assert (held.rehydrations, held.rounds) == (1, 1)
    held.whole = True
    upkeep.look(cast(Resources, held))
    assert (held.rehydrations, held.rounds) == (1, 2)


@pytest.mark.parametrize("error", [Unavailable("down"), ValueError("unheard of")])
def test_no_error_ends_the_upkeep(redis_url: str, error: Exception, monkeypatch) -> None:
    monkeypatch.setattr(upkeep, "EVERY_S", 0.05)
    held, calls = Held(redis_url), []

    def fail(**_: object) -> int:
        calls.append(1)
        raise error

    held.reconciler = SimpleNamespace(round=fail)
    (thread,) = keep(held)
    until(lambda: len(calls) >= 3)
    held.stopping.set()
    thread.join()
