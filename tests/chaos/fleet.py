"""Processes to kill: workers forked from one that has imported everything, and the User Server."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from tests.chaos import plain
from tests.chaos.world import System

QUEUES = "retrieval,ingest"
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.chaos.loaded"])


class Fleet:
    """Some processes of one kind; whoever is killed is started again.

    Args:
        size: how many.
        target: what a process does, with `arguments`.
        log: where its output goes.
    """

    def __init__(self, size: int, target: Callable[..., None], *arguments: Any, log: Path) -> None:
        self._target, self._arguments, self._log = target, (log, *arguments), log
        self._processes = [self._start() for _ in range(size)]
        self.kills = 0
        self.ended = 0

    def kill_oldest(self) -> None:
        """Kill the process that was started first the hard way, and start another one in its place."""
        process = self._processes.pop(0)
        if process.is_alive():
            process.kill()
            self.kills += 1
        else:
            self.ended += 1  # by itself, which it should not
        process.join()
        self._processes.append(self._start())

    def pids(self) -> list[int | None]:
        """Return the process ids of those that live."""
        return [process.pid for process in self._processes if process.is_alive()]

    def stop(self) -> None:
        """Kill all."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()

    def _start(self) -> ForkServerProcess:
        process = _CONTEXT.Process(target=self._target, args=self._arguments)
        process.start()
        return process


def worker(log: Path, environment: dict[str, str], poison: int | None = None) -> None:
    """Be a Celery worker of ours. With `poison`, whoever refreshes that user fails."""
    _log_to(log)
    os.environ.clear()
    os.environ.update(environment)
    if poison is not None:
        _poison(poison)
    from workers.app import app

    flags = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    app.worker_main(["worker", "--pool=threads", "-c", "1", "-Q", QUEUES, "-l", "INFO", *flags])


def plain_worker(log: Path, redis_url: str) -> None:
    """Be a worker of plain Celery."""
    _log_to(log)
    plain.run(redis_url)


def _poison(user: int) -> None:
    from leadre.retrieval.retriever import Retriever

    refresh = Retriever.refresh

    def refuse(self: Retriever, user_ids: Any, **named: Any) -> Any:
        if user in user_ids:
            raise ValueError("poison")
        return refresh(self, user_ids, **named)

    Retriever.refresh = refuse  # type: ignore[method-assign]


def _log_to(log: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)


@contextmanager
def user_server(system: System) -> Iterator[int]:
    """Run the User Server; give its port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    code = "from leadre.cli import main; main()"
    with (system.settings.home / "user-server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", code, "serve", "user-server", "--port", str(port)],
            env=system.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_for(port, server)
        yield port
    finally:
        server.kill()
        server.wait()


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if server.poll() is not None:
            raise RuntimeError("the User Server ended")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the User Server does not answer")
