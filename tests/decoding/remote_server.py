"""Engines behind a real engine server, in a thread of the test."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn

from leadre.artifacts import write_artifact
from leadre.decoding.batcher import MicroBatcher
from leadre.decoding.engine import Engine
from leadre.decoding.remote import Instance, RemoteEngine
from leadre.decoding.sent_masks import KeptMasks
from leadre.decoding.wire import Asked
from leadre.errors import ReleaseMismatch, Unavailable
from leadre.indexing.ad_index import AdIndex
from leadre.serving.engine_server import EngineServer, State


class Shelf:
    """A host of many releases, each over the revisions it was given."""

    def __init__(self) -> None:
        self.batchers: dict[tuple[str, str, int, int], MicroBatcher] = {}
        self.asked: list[Asked] = []

    def put(self, release: str, engine: Engine, index: AdIndex, *, waiting: int = 1024) -> MicroBatcher:
        batcher = MicroBatcher(engine, beam_width=1, waiting=waiting)
        self.batchers[release, index.version, index.revision, len(index)] = batcher
        return batcher

    def batcher(self, asked: Asked) -> MicroBatcher:
        self.asked.append(asked)
        try:
            return self.batchers[asked.release, asked.index_version, asked.revision, asked.ads]
        except KeyError:
            raise ReleaseMismatch(f"{asked.release} over {asked.index_version} is not served here") from None

    def state(self) -> State:
        if not self.batchers:
            raise Unavailable("nothing is served here yet")
        (release, version, revision, ads), batcher = list(self.batchers.items())[-1]
        waiting, running = batcher.load
        return State(
            release=release, index_version=version, revision=revision, ads=ads, waiting=waiting, running=running
        )

    def start(self) -> None:
        pass

    def close(self) -> None:
        for batcher in self.batchers.values():
            batcher.close()
        self.batchers.clear()


class ServedEngine(RemoteEngine):
    """A remote engine whose server is given every revision that the engine goes over to."""

    def __init__(self, shelf: Shelf, url: str, engine: Engine, *, index: AdIndex, vocabulary_size: int) -> None:
        self._shelf, self._url, self._there = shelf, url, engine
        release = f"r{len(shelf.batchers)}"
        shelf.put(release, engine, index)
        super().__init__(
            Instance(url=url).ask, index=index, release=release, vocabulary_size=vocabulary_size, score=engine.score
        )

    def over(self, index: AdIndex) -> ServedEngine:
        return ServedEngine(
            self._shelf, self._url, self._there.over(index), index=index, vocabulary_size=self._vocabulary_size
        )


@contextmanager
def running(
    shelf: Shelf, *, masks: KeptMasks | None = None, port: int = 0, behind: Callable[[Any], Any] = lambda app: app
) -> Iterator[str]:
    """Serve a shelf and give its address."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen(128)  # what comes before the server has started waits
        server = uvicorn.Server(
            uvicorn.Config(behind(EngineServer(shelf, masks=masks)), log_level="error", access_log=False)
        )

        def serve() -> None:
            with suppress(asyncio.CancelledError):
                asyncio.run(server.serve(sockets=[listening]))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(60)


def index_of(ads: int, *, version: str = "v1", revision: int = 0) -> AdIndex:
    """Return an index of the first S-IDs of three levels of eight codes."""
    codes = np.stack(np.unravel_index(np.arange(ads), (8, 8, 8)), axis=1).astype(np.int32)
    return AdIndex.assemble(
        version=version,
        revision=revision,
        ad_ids=np.arange(ads),
        codes=codes,
        first_categories=[""] * ads,
        second_categories=[""] * ads,
        advertiser_ids=np.zeros(ads, np.int64),
        embeddings=np.zeros((ads, 2), np.float32),
        code_counts=(8, 8, 8),
        quality={},
    )


def save(index: AdIndex, to: Path) -> None:
    """Write an index, in the place of an earlier revision."""
    write_artifact(to, kind="index", facts=index.facts(), write=index.write_into, replace=True)
