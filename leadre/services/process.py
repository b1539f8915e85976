"""Server processes: which account they run under, how they are started, how one is found again.

For leadre.services only. PostgreSQL refuses to run as root, and Redis needs not: under root both run as `nobody`.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from leadre.errors import ConfigError, Unavailable

ACCOUNT = "nobody"
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """Runs a server's commands under the right account. `uid` is None where that is the caller's own."""

    executables: Path
    prefix: tuple[str, ...] = ()
    uid: int | None = None
    gid: int | None = None

    def own(self, *paths: Path) -> None:
        """Give folders or files to the servers' account."""
        if self.uid is not None and self.gid is not None:
            for path in paths:
                os.chown(path, self.uid, self.gid)

    def run(self, name: str, *arguments: str, stdin: str = "", cwd: Path | None = None) -> None:
        """Run a command to its end.

        Raises:
            Unavailable: it failed or took more than a minute; the message ends with its last words.
        """
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        with tempfile.TemporaryFile("w+") as output:  # not a pipe: a daemon that keeps it open would hold us
            try:
                subprocess.run(
                    [*self.prefix, str(self.executables / name), *arguments],
                    input=stdin,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    text=True,
                    env=environment | {"LC_ALL": "C"},
                    cwd=cwd,
                    timeout=PATIENCE_S,
                    check=True,
                )
            except subprocess.SubprocessError as error:
                output.seek(0)
                raise Unavailable(f"{name} failed: {_last_words(output.read()) or error}") from None


def launcher(folder: Path, *, package: str, executables: str) -> Launcher:
    """Return how to run the servers of a wheel on data in `folder`.

    Args:
        folder: an existing folder that the servers' data folders go into.
        package: the package that brings the programs; it is not imported.
        executables: the programs' folder inside it.

    Raises:
        ConfigError: the package is not installed, or root cannot hand the servers to another account.
    """
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ConfigError(
            f"{package} is not installed: `pip install leadre[embedded]`, or set LEADRE_*_URL to own servers"
        )
    programs = Path(found.origin).parent / executables
    if os.geteuid() != 0:
        return Launcher(executables=programs)
    setpriv = shutil.which("setpriv")
    try:
        account = pwd.getpwnam(ACCOUNT)
    except KeyError:
        account = None
    if account is None or setpriv is None:
        raise ConfigError(
            f"PostgreSQL does not run as root, and here is no account {ACCOUNT!r} or no command setpriv (util-linux): "
            "run as an ordinary user, or set LEADRE_DATABASE_URL and LEADRE_REDIS_URL to your own servers"
        )
    drop: tuple[str, ...] = (setpriv, f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups")
    probe = [*drop, "sh", "-c", 'cd "$1" && cd "$2"', "sh", str(folder), str(programs)]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        # A checkout below /root: that one capability opens the folders above ours, instead of a chmod on them.
        drop += ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")
    return Launcher(executables=programs, prefix=drop, uid=account.pw_uid, gid=account.pw_gid)


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
