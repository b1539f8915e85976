"""Workers, beat, queue and stream: nobody there, somebody silent, users and behaviors that could not be served."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis

from leadre.pipelines.doctor import nearline
from leadre.retrieval import presence
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.retrieval.refresh_queue_keys import DEAD as DEAD_USERS
from leadre.serving.behavior_stream import DEAD, STREAM


def test_without_workers_their_command_is_named_and_with_them_nothing_is(client: Redis) -> None:
    workers, schedule = nearline.workers(client)
    assert workers.state == schedule.state == "warning"
    assert "-Q retrieval,ingest,indexing,maintenance" in workers.run
    presence.say_here(client, "worker", ["retrieval", "ingest"])
    there, lacking, _ = nearline.workers(client)
    assert there.said == "1 worker, of ingest, retrieval"
    assert "-Q indexing,maintenance" in lacking.run
    presence.say_here(client, "worker", ["indexing", "maintenance"])
    presence.say_here(client, "beat")
    assert {found.state for found in nearline.workers(client)} == {"ok"}


def test_who_is_silent_for_long_is_not_there(client: Redis) -> None:
    presence.say_here(client, "beat")
    (name, at), *_ = client.zrange("{leadre:presence}:alive", 0, -1, withscores=True)
    client.zadd("{leadre:presence}:alive", {name: at - presence.FORGOTTEN_S - 1})
    assert presence.present(client) == []
    presence.say_here(client, "worker", ["retrieval"])
    assert client.zcard("{leadre:presence}:alive") == 1  # the silent one is forgotten


def test_a_process_says_that_it_is_there_until_it_stops(client: Redis) -> None:
    stopping = threading.Event()
    thread = threading.Thread(
        target=presence.keep_saying, args=(client, "worker", ["retrieval"]), kwargs={"stopping": stopping}
    )
    thread.start()
    end = time.monotonic() + 60
    while not (found := presence.present(client)):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert found[0].queues == ("retrieval",)
    stopping.set()
    thread.join()
    assert presence.present(client) == []


def test_a_process_that_stops_while_it_speaks_says_that_it_is_gone(
    client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping, say_here = threading.Event(), presence.say_here

    def last_word(*arguments: Any) -> None:
        say_here(*arguments)
        assert presence.present(client) != []
        stopping.set()

    monkeypatch.setattr(presence, "say_here", last_word)
    presence.keep_saying(client, "worker", ["retrieval"], stopping=stopping)
    assert presence.present(client) == []


def test_two_beats_are_a_warning(client: Redis) -> None:
    presence.say_here(client, "beat")
    client.zadd("{leadre:presence}:alive", {"beat  elsewhere:7": time.time()})
    assert "2 times" in nearline.workers(client)[-1].said


def test_the_queue_says_who_waits_too_long_and_who_is_dead(client: Redis, redis_url: str) -> None:
    (found,) = nearline.queue(redis_url)
    assert found.state == "ok"
    RefreshQueue.connect(redis_url).mark([5], now=datetime.now(UTC) - timedelta(hours=2))
    client.zadd(DEAD_USERS, {"7": time.time()})
    waiting, dead = nearline.queue(redis_url)
    assert waiting.state == "warning"
    assert (dead.state, dead.run) == ("warning", "leadre queue revive")


def test_the_stream_says_what_waits_and_what_could_not_be_written(client: Redis) -> None:
    (found,) = nearline.stream(client, most=10)
    assert found.state == "ok"
    for _ in range(6):
        client.xadd(STREAM, {"e": b"x"})
    client.xadd(DEAD, {"e": b"x"})
    waiting, dead = nearline.stream(client, most=10)
    assert (waiting.state, waiting.run) == ("fault", "leadre ingest --follow")
    assert (dead.state, dead.run) == ("warning", "leadre ingest --revive")
