"""Server processes: how they are started, how one is found again and stopped.

For leadre.services only.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from leadre.errors import Unavailable
from leadre.services.account import Account, account, find_programs

PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """Runs a server's programs, which are in one folder, under the right account."""

    programs: Path
    account: Account

    def run(self, name: str, *arguments: str, stdin: str = "", cwd: Path | None = None) -> None:
        """Run a command to its end.

        Raises:
            Unavailable: it failed or took more than a minute; the message ends with its last words.
        """
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        with tempfile.TemporaryFile("w+", errors="replace") as output:  # a daemon that keeps a pipe open would hold us
            try:
                subprocess.run(
                    [str(self.programs / name), *arguments],
                    input=stdin,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    text=True,
                    env=environment | {"LC_ALL": "C"},
                    cwd=cwd,
                    user=self.account.uid,
                    group=self.account.gid,
                    extra_groups=None if self.account.uid is None else (),
                    timeout=PATIENCE_S,
                    check=True,
                )
            except (subprocess.SubprocessError, OSError) as error:
                output.seek(0)
                raise Unavailable(f"{name} failed: {_last_words(output.read()) or error}") from None


def launcher(folder: Path, *, package: str, program: str) -> Launcher:
    """Return how to run the servers of a wheel on data in `folder`; see `find_programs`."""
    return Launcher(programs=find_programs(folder, package=package, program=program), account=account())


def find(pid_file: Path, *, argument: Path) -> int | None:
    """Return the id of the running process that a pid file names, or None.

    Args:
        pid_file: its first line is the process id.
        argument: stands on that process's command line; by it a stale file that names another process is told apart.
    """
    import psutil  # comes with the embedded servers

    try:
        process = psutil.Process(int(pid_file.read_text().split("\n", 1)[0]))
        if process.status() != psutil.STATUS_ZOMBIE and str(argument) in process.cmdline():
            return int(process.pid)
    except (OSError, ValueError, psutil.Error):
        return None
    return None


def stop(running: Callable[[], int | None], *, ask: signal.Signals) -> None:
    """Ask the server's process to end, if there is one, and wait until it has.

    Raises:
        Unavailable: it still runs after a minute.
    """
    if (pid := running()) is None:
        return
    os.kill(pid, ask)
    deadline = time.monotonic() + PATIENCE_S
    while running() is not None:
        if time.monotonic() > deadline:
            raise Unavailable(f"process {pid} still runs {PATIENCE_S:.0f} s after it was asked to stop")
        time.sleep(0.02)


def free_port(preferred: int | None = None) -> int:
    """Return a free TCP port of the loopback: the preferred one, if it is free or becomes so within a second."""
    deadline = time.monotonic() + 1.0  # the last children of a killed server take a moment to let go of its port
    while preferred and time.monotonic() < deadline:
        try:
            return _bind(preferred)
        except OSError:
            time.sleep(0.02)
    return _bind(0)


def last_words(log: Path) -> str:
    """Return the end of a server's log, for an error message."""
    return _last_words(log.read_text(errors="replace")) if log.is_file() else "no log"


def _bind(port: int) -> int:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        return int(listener.getsockname()[1])


def _last_words(text: str) -> str:
    return " | ".join(text.strip().splitlines()[-5:])
