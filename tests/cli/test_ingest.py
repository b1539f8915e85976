"""`leadre ingest`: the stream worked off by a command."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

from click.testing import CliRunner
from redis import Redis

from leadre.cli import cli
from leadre.domain.behavior import Action, Behavior, Domain
from leadre.serving import behavior_stream
from leadre.serving.behavior_stream import DEAD, STREAM

NOW = datetime(2025, 3, 1, tzinfo=UTC)


def report(redis: Redis, item_id: int) -> None:
    clicked = Behavior(user_id=1, domain=Domain.AD, action=Action.CLICK, item_id=item_id, occurred_at=NOW)
    assert behavior_stream.add(redis, behavior_stream.encode([clicked], request_id="r", arrived_at=NOW))


def test_it_writes_what_waits_and_says_so(environment) -> None:
    with Redis.from_url(environment["LEADRE_REDIS_URL"]) as redis:
        for item_id in (1, 2, 1):
            report(redis, item_id)
        redis.xadd(STREAM, {"e": b"poison"})
        said = CliRunner().invoke(cli, ["ingest"], env=environment, catch_exceptions=False).output
        assert "2 behaviors written, 1 were there; 1 entries" in " ".join(said.split())
        assert (redis.xlen(STREAM), redis.xlen(DEAD)) == (0, 1)
        said = CliRunner().invoke(cli, ["ingest", "--revive"], env=environment, catch_exceptions=False).output
        assert "1 dead entries are back" in said
        assert redis.xlen(DEAD) == 1


def test_it_follows_until_it_is_told_to_stop(environment) -> None:
    follower = subprocess.Popen([sys.executable, "-m", "leadre", "ingest", "--follow"], env=environment)
    try:
        with Redis.from_url(environment["LEADRE_REDIS_URL"]) as redis:
            for item_id in (1, 2):
                report(redis, item_id)
                end = time.monotonic() + 60
                while redis.xlen(STREAM):
                    assert time.monotonic() < end
                    time.sleep(0.02)
        follower.send_signal(signal.SIGTERM)
        assert follower.wait(timeout=60) == 0
    finally:
        follower.kill()
        follower.wait()
