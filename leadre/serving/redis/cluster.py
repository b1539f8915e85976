"""A Redis Cluster as the online store: one pipelined connection a node, and which node has which key. LEADRE §4.4.1.

The map of slots is asked for at the start, again when a node says that a slot has moved, and every few seconds while
anything is away. A read that came to the wrong node is answered as one that Redis did not answer: degraded, once.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from typing import Any

import hiredis
from redis.crc import key_slot

from leadre.errors import ConfigError, Unavailable
from leadre.serving.redis.connection import RedisConnection, Reply
from leadre.serving.redis.wire import Address, second_word, tls_of

logger = logging.getLogger(__name__)

_LOOK_S = 5.0
"""Seconds between two looks at the map (ours)."""
_AWAY = Unavailable("Redis does not answer; look whether the cluster's nodes run")


class ClusterConnection:
    """Connections to the masters of a cluster; it is kept by `keep`, as a `RedisConnection` is.

    Args:
        seeds: nodes to ask where the others are, all with one password.
    """

    def __init__(self, seeds: Sequence[Address]) -> None:
        self._seeds = {(seed.host, seed.port): seed for seed in seeds}
        self._nodes: dict[tuple[str, int], tuple[RedisConnection, asyncio.Task[None]]] = {}
        self._slots: list[tuple[int, int, RedisConnection]] = []
        self._look = asyncio.Event()

    def ask(self, written: bytes, reply: Reply) -> None:
        """Send a command to the node that has its key, the command's second word. See `RedisConnection.ask`."""
        slot = key_slot(second_word(written))
        for first, last, node in self._slots:
            if first <= slot <= last:
                node.ask(written, lambda answer: reply(self._checked(answer)))
                return
        reply(_AWAY)

    async def keep(self) -> None:
        """Connect to the nodes there are, for ever."""
        try:
            while True:
                self._look.clear()
                await self._map()
                try:
                    await asyncio.wait_for(self._look.wait(), _LOOK_S if self._slots else 0.1)
                except TimeoutError:
                    continue
                await asyncio.sleep(0.05)  # a slot on its way is asked for by many
        finally:
            for _, keeping in self._nodes.values():
                keeping.cancel()

    def _checked(self, answer: Any) -> Any:
        if isinstance(answer, hiredis.ReplyError) and str(answer).startswith(("MOVED", "ASK", "CLUSTERDOWN")):
            self._look.set()
            return _AWAY
        return answer

    async def _map(self) -> None:
        """Ask the nodes in turn for the map, until one knows it."""
        for place in [*self._nodes, *self._seeds]:
            node = self._node(place)
            try:
                async with asyncio.timeout(0.5):
                    while not node.up:
                        await asyncio.sleep(0.01)
                    found = await node.call("CLUSTER", "SLOTS")
            except (TimeoutError, Unavailable, hiredis.HiredisError) as error:
                logger.warning("cluster_node_not_reached", extra={"error": type(error).__name__})
                continue
            self._slots = [
                (first, last, self._node((host.decode() or place[0], port)))
                for first, last, (host, port, *_), *_ in found
            ]
            return

    def _node(self, place: tuple[str, int]) -> RedisConnection:
        if place not in self._nodes:
            like = next(iter(self._seeds.values()))
            address = Address(
                host=place[0], port=place[1], username=like.username, password=like.password, tls=like.tls
            )
            node = RedisConnection(address)
            self._nodes[place] = (node, asyncio.ensure_future(node.keep()))
        return self._nodes[place][0]


def cluster_of(nodes: str) -> ClusterConnection:
    """Return the connections to a cluster, by what `LEADRE_REDIS_CLUSTER` says.

    Args:
        nodes: as Feast writes it, `host:port,host:port,password=...,ssl=true`.

    Raises:
        ConfigError: it names no node.
    """
    parts = [part for part in nodes.split(",") if part]
    options = {name: value for name, _, value in (part.partition("=") for part in parts if "=" in part)}
    try:
        tls = tls_of(options) if json.loads(options.get("ssl", "false").lower()) else None
        seeds = [
            Address(
                host=host.strip("[]"),
                port=int(port),
                username=options.get("username"),
                password=options.get("password"),
                tls=tls,
            )
            for host, _, port in (part.rpartition(":") for part in parts if "=" not in part)
        ]
    except (ValueError, OSError):
        seeds = []
    if not seeds:
        raise ConfigError("LEADRE_REDIS_CLUSTER names no node; write host:port,host:port,password=...")
    return ClusterConnection(seeds)
