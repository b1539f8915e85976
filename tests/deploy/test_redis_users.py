"""deploy/redis/users.acl on a real Redis: its user does all that servers and workers do, and cannot wipe it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import redis
from kombu import Connection

from leadre.domain.behavior import Action, Behavior, Domain
from leadre.retrieval.refresh_queue import TAG, RefreshQueue
from leadre.serving import behavior_stream
from leadre.settings import Settings
from leadre.store.features.layout import timestamp_field, timestamp_value, user_keys
from leadre.store.features.online_rows import connect_online, set_rows
from leadre.store.person.online import Online, find_online, remove_online
from leadre.store.person.whom import Person

LINES = (Path(__file__).parents[2] / "deploy/redis/users.acl").read_text().splitlines()
PASSWORD = "of the app"


@pytest.fixture
def url(redis_url: str) -> Iterator[str]:
    """The URL of the file's user `leadre` (its others are made as well), removed after the test."""
    parts = urlsplit(redis_url)
    with redis.Redis.from_url(redis_url) as administrator:
        for line in LINES:
            _, name, *rules = line.split()
            if name != "default":  # which the tests' own clients are
                hashed = [f"#{sha256(PASSWORD.encode()).hexdigest()}" if rule[0] == "#" else rule for rule in rules]
                administrator.execute_command("ACL", "SETUSER", name, *hashed)
        try:
            yield f"redis://leadre:of%20the%20app@{parts.hostname}:{parts.port}/0"
        finally:
            administrator.acl_deluser("leadre", "reader")


def test_nobody_comes_in_without_a_user_of_the_file() -> None:
    assert "user default off" in LINES
    assert all(line.split()[2] == "off" or line.split()[3].startswith("#%SHA256") for line in LINES)


def test_the_user_does_what_servers_and_workers_do(url: str, settings: Settings) -> None:
    now = datetime.now(UTC)
    queue = RefreshQueue.connect(url)
    assert queue.mark([5, 6]) == 2
    assert queue.wait(1)
    assert queue.complete(queue.claim(2)) == 2
    queue.stats()
    client = redis.Redis.from_url(url)
    with client.lock(f"{TAG}:alone:test", timeout=5):
        pass
    behavior = Behavior(user_id=5, domain=Domain.AD, action=Action.CLICK, item_id=1, occurred_at=now)
    entry = behavior_stream.encode([behavior], request_id="r", arrived_at=now)
    assert behavior_stream.add(client, entry)
    client.xgroup_create(behavior_stream.STREAM, behavior_stream.GROUP, id="0")
    ((_, read),) = client.xreadgroup(behavior_stream.GROUP, "one", {behavior_stream.STREAM: ">"})
    client.xautoclaim(behavior_stream.STREAM, behavior_stream.GROUP, "two", min_idle_time=0)
    client.xack(behavior_stream.STREAM, behavior_stream.GROUP, read[0][0])
    (key,) = user_keys(np.array([5]), "leadre")
    with connect_online(replace(settings, redis_url=url).feast_environment()["LEADRE_FEAST_REDIS"]) as online:
        assert set_rows(online, [(key, [timestamp_field("view"), timestamp_value(7), b"f", b"v"])], ttl_s=60) == 1
        places = Online(features=online, others=client, project="leadre", tags=(TAG, "{leadre:behaviors}"))
        assert remove_online(places, Person.named(5))["features"] == 1
        assert sum(find_online(places, Person.named(5)).values()) == 0
    client.close()
    with Connection(url) as broker, broker.SimpleQueue("retrieval") as messages:
        messages.put({"task": "x"})
        message = messages.get(timeout=10)
        message.ack()


@pytest.mark.parametrize(
    "command",
    [
        ("FLUSHALL",),
        ("FLUSHDB",),
        ("CONFIG", "SET", "appendonly", "no"),
        ("SHUTDOWN",),
        ("DEBUG", "SLEEP", "0"),
        ("KEYS", "*"),
        ("ACL", "LIST"),
        ("REPLICAOF", "NO", "ONE"),
        ("MONITOR",),
        ("SAVE",),
    ],
    ids=lambda command: command[0],
)
def test_the_user_cannot_wipe_or_change_the_server(url: str, command: tuple[str, ...]) -> None:
    with redis.Redis.from_url(url) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command)


def test_the_reader_reads(url: str) -> None:
    with redis.Redis.from_url(url.replace("leadre:", "reader:", 1)) as reader:
        assert reader.get("nothing") is None
        with pytest.raises(redis.exceptions.NoPermissionError):
            reader.set("something", 1)
