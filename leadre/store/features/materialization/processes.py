"""Shards of a materialization in processes beside this one, which need neither Feast nor a model. LEADRE §4.4.1."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, cast

from redis.exceptions import RedisError

from leadre.errors import LeadreError, Unavailable
from leadre.store.features.materialization import runs
from leadre.store.features.materialization.shards import Report, write_shards
from leadre.store.features.materialization.view import View
from leadre.store.features.online_rows import connect_online
from leadre.store.records.database import connect


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Where features come from and go to.

    Args:
        database_url: the system of record.
        online: connection string of the online store, as feature_store.yaml has it, like the following.
        redis_type: `redis`, `redis_cluster` or `redis_sentinel`.
        sentinel_master: name of Sentinel's master.
    """

    database_url: str = field(repr=False)
    online: str = field(repr=False)
    redis_type: str
    sentinel_master: str

    def connect_online(self) -> Any:
        """Return a client of the online store."""
        return connect_online(self.online, self.redis_type, sentinel_master=self.sentinel_master)


@contextmanager
def processes_beside(
    servers: Servers, views: Mapping[str, View], under_way: Sequence[runs.Run], *, processes: int, report: Report
) -> Iterator[Callable[[], None]]:
    """Write shards of runs in other processes while the block writes some as well; at its end they are waited for.

    Args:
        servers: where from, where to.
        views: by name, those of the runs.
        under_way: the runs.
        processes: how many; 0: none.
        report: told of their progress.

    Yields:
        What hears what they have said: call it often.

    Raises:
        LeadreError, redis.RedisError: as `write_shards`, in one of them; the others are ended, and lose their shards.
        Unavailable: a process was killed.
    """
    spawn = multiprocessing.get_context("spawn")  # a fork would share this one's connections
    beside: dict[Connection, SpawnProcess] = {}

    def hear(*, patience_s: float | None = 0) -> None:
        for reader in cast("list[Connection]", wait(listened, patience_s)):
            try:
                said = reader.recv()
            except EOFError:
                listened.remove(reader)
                beside[reader].join()
                if code := beside[reader].exitcode:
                    raise Unavailable(
                        f"a process of the materialization ended with code {code}: run again, what it had finished "
                        "is not done anew"
                    ) from None
                continue
            if isinstance(said, Exception):
                raise said
            report(*said)

    try:
        for _ in range(processes):
            reader, writer = spawn.Pipe(duplex=False)
            beside[reader] = spawn.Process(target=_write, args=(servers, views, under_way, writer), daemon=True)
            beside[reader].start()
            writer.close()
        listened = list(beside)
        yield hear
        while listened:
            hear(patience_s=None)
    finally:
        for reader, process in beside.items():
            process.terminate()
            process.join()
            reader.close()


def _write(servers: Servers, views: Mapping[str, View], under_way: Sequence[runs.Run], pipe: Connection) -> None:
    database = connect(servers.database_url, application_name="leadre materialize")
    try:
        with closing(servers.connect_online()) as client:
            write_shards(database, client, views, under_way, lambda view, rows: pipe.send((view, rows)))
    except (LeadreError, RedisError) as error:
        pipe.send(error)
    finally:
        database.dispose()
