"""Embedded servers: PostgreSQL and Redis from wheels, for one machine, the demo and the tests.

LEADRE §4.4.1 names the databases; production sets LEADRE_DATABASE_URL and LEADRE_REDIS_URL to its own servers instead.

The servers listen on the loopback only, ask for generated passwords (a shared machine has other users), keep their data
in `home`/services or where that links to, and outlive the process that starts them. Their addresses are in
`home`/services.json, mode 0600.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from leadre.errors import ConfigError
from leadre.services import postgres, redis
from leadre.services.account import find_folder, make_folder
from leadre.services.process import free_port
from leadre.settings import SERVICES_FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The embedded servers: their data's folder, and addresses, empty before the first `up`.

    A server that does not run has no process id.
    """

    folder: Path
    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    postgres_pid: int | None
    redis_pid: int | None

    @property
    def running(self) -> bool:
        """Whether both servers run."""
        return self.postgres_pid is not None and self.redis_pid is not None


def up(home: Path, *, durable: bool = True) -> Services:
    """Start the servers that do not run, and return when both answer.

    The first call creates them; later ones find the same data, passwords and, unless another process has taken them
    meanwhile, ports.

    Args:
        home: the folder of `LEADRE_HOME`.
        durable: PostgreSQL survives a power cut (Redis may lose its last 30 s). Tests turn it off for speed; a killed
            server loses nothing either way.

    Raises:
        ConfigError: the embedded servers are not installed, or cannot run under this account.
        Unavailable: a server did not start; the message ends with what it said.
    """
    with _locked(home):
        folder = find_folder(home)
        if postgres.running(folder) is None and redis.running(folder) is None:
            folder = make_folder(home)
        known = _read(home)
        if known is None:  # the passwords are lost with the file: what runs is stopped and gets new ones
            postgres.stop(folder)
            redis.stop(folder)
            known = {"password": secrets.token_urlsafe(24), "postgres": {}, "redis": {}}
            if postgres.exists(folder):
                postgres.set_password(folder, known["password"])
        password = known["password"]
        starts: dict[str, Callable[..., None]] = {
            "postgres": partial(postgres.start, durable=durable),
            "redis": redis.start,
        }
        for name, server in (("postgres", postgres), ("redis", redis)):
            if server.running(folder) is None:
                known[name]["port"] = free_port(known[name].get("port"))
                _write(home, known)  # before the start: whoever finds a server running also finds its address
                starts[name](folder, password=password, port=known[name]["port"])
            known[name]["pid"] = server.running(folder)
        redis.wait(folder, password=password, port=known["redis"]["port"])
        _write(home, known)
    return status(home)


def down(home: Path) -> None:
    """Stop the servers, if they run; their data, passwords and ports stay.

    Raises:
        Unavailable: a server did not stop in time.
    """
    if (folder := find_folder(home)).is_dir():
        with _locked(home):
            redis.stop(folder)
            postgres.stop(folder)


def status(home: Path) -> Services:
    """Return the addresses of the embedded servers, and which of them run."""
    folder = find_folder(home)
    known = _read(home) or {}
    return Services(
        folder=folder,
        database_url=known.get("database_url", ""),
        redis_url=known.get("redis_url", ""),
        postgres_pid=postgres.running(folder),
        redis_pid=redis.running(folder),
    )


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Hold the servers against another `up` or `down`."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = (home / ".services.lock").open("w")
    except OSError as error:
        raise ConfigError(f"{error.strerror}: {home}; set LEADRE_HOME to a folder that you can write") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(home: Path) -> dict[str, Any] | None:
    try:
        known: dict[str, Any] = json.loads((home / SERVICES_FILE).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return known if {"password", "postgres", "redis"} <= known.keys() else None


def _write(home: Path, known: dict[str, Any]) -> None:
    password = known["password"]
    if port := known["postgres"].get("port"):
        known["database_url"] = f"postgresql://{postgres.ROLE}:{password}@127.0.0.1:{port}/{postgres.DATABASE}"
    if port := known["redis"].get("port"):
        known["redis_url"] = f"redis://:{password}@127.0.0.1:{port}/0"
    unfinished = home / f".{SERVICES_FILE}.new"
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(known, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(home / SERVICES_FILE)
