"""List records of users, straight out of Feast's Redis layout, within a deadline. LEADRE §4.4.1.

For request paths that go on without an answer: Redis's silence is None, not an error.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import redis
import redis.asyncio
from numpy.typing import NDArray
from redis.backoff import NoBackoff
from redis.retry import Retry

from leadre.store.features.layout import FEATURE, VIEW, field, read_bytes_value, user_keys

Topology = Literal["single", "cluster"]
_FAILED = (redis.RedisError, OSError, TimeoutError)


class RecordReader:
    """Reads records in one round trip; of every thread and event loop, each with connections of its own.

    Args:
        url: of the online store, `redis://:password@host:port/0`.
        project: of feature_store.yaml.
        deadline_s: how long an answer may take.
        topology: whether the URL is of one server or of a node of a Redis Cluster.
    """

    def __init__(self, url: str, *, project: str, deadline_s: float, topology: Topology) -> None:
        self._url, self._project, self._deadline_s, self._topology = url, project, deadline_s, topology
        self._field = field(VIEW, FEATURE)
        self._client: Any = None
        self._opening = threading.Lock()
        self._of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()

    def read(self, user_ids: NDArray[np.int64]) -> list[bytes | None] | None:
        """Return the record of each user, None for a user without one; None for all when Redis does not answer."""
        keys, end = user_keys(user_ids, self._project), time.monotonic() + self._deadline_s
        for _ in range(2):
            try:
                client = self._connected()
                if len(keys) == 1:
                    return self._values([client.hget(keys[0], self._field)])
                return self._values(self._asked(client, keys).execute(raise_on_error=False))
            except redis.ConnectionError:  # perhaps one of before Redis started anew: once more, with a new one
                if time.monotonic() >= end:
                    return None
            except _FAILED:
                return None
        return None

    async def aread(self, user_ids: NDArray[np.int64]) -> list[bytes | None] | None:
        """Do as `read` does, in an event loop."""
        keys = user_keys(user_ids, self._project)
        try:
            async with asyncio.timeout(self._deadline_s):
                for attempt in range(2):
                    try:
                        client = self._connected_here()
                        return self._values(await self._asked(client, keys).execute(raise_on_error=False))
                    except redis.ConnectionError:
                        if attempt:
                            raise
        except _FAILED:
            pass
        return None

    def close(self) -> None:
        """Close the connections that threads opened."""
        with self._opening:
            if self._client is not None:
                self._client.close()
                self._client = None

    async def aclose(self) -> None:
        """Close the connections that this event loop opened."""
        client = self._of_loops.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def _asked(self, client: Any, keys: Sequence[bytes]) -> Any:
        pipeline = client.pipeline(transaction=False) if self._topology == "single" else client.pipeline()
        for key in keys:
            pipeline.execute_command("HGET", key, self._field)
        return pipeline

    def _values(self, values: Sequence[Any]) -> list[bytes | None] | None:
        failed = [value for value in values if isinstance(value, Exception)]
        if failed and len(failed) == len(values):
            return None
        return [read_bytes_value(value) if isinstance(value, bytes) else None for value in values]

    def _connected(self) -> Any:
        if self._client is None:
            with self._opening:
                if self._client is None:
                    self._client = self._new(redis.Redis, redis.RedisCluster, Retry(NoBackoff(), 0))
        return self._client

    def _connected_here(self) -> Any:
        loop = asyncio.get_running_loop()
        with self._opening:
            if loop not in self._of_loops:
                clients = redis.asyncio.Redis, redis.asyncio.RedisCluster
                self._of_loops[loop] = self._new(*clients, redis.asyncio.retry.Retry(NoBackoff(), 0))
            return self._of_loops[loop]

    def _new(self, single: Any, cluster: Any, retry: Any) -> Any:
        client = single if self._topology == "single" else cluster
        limits = {"socket_timeout": self._deadline_s, "socket_connect_timeout": self._deadline_s}
        return client.from_url(self._url, retry=retry, **limits)
