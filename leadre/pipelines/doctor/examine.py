"""All looks in the order in which one thing needs another. What cannot be looked at is left out, and named.

A look that meets an error of its own is a finding too: the doctor answers whatever is broken.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from leadre.errors import LeadreError
from leadre.logs import place_of
from leadre.pipelines.doctor import features, installation, machine, nearline, release, servers
from leadre.pipelines.doctor.finding import Finding, fault
from leadre.project.extras import extra_of, install
from leadre.settings import SERVICES_FILE, Settings

if TYPE_CHECKING:
    from sqlalchemy import Connection

Report = Callable[[str, int, int | None], None]
"""Told what is looked at, how many looks are done, and of how many."""
_OF_POSTGRES = ("migrations", "registry", "data", "release", "materialization")
_OF_REDIS = ("workers", "queue", "stream", "features")


def examine(environment: Mapping[str, str], *, report: Report = lambda *_: None) -> tuple[list[Finding], list[str]]:
    """Look at everything.

    Args:
        environment: where the settings are.
        report: told what is looked at.

    Returns:
        The findings, in the order in which to mend them; the checks that could not be made because of a fault.
    """
    findings = _of_machine(environment)
    report("looked at: machine", 1, 1)
    settings, found = installation.settings(environment)
    findings += [found, *installation.unknown_variables(environment)]
    if settings is None:
        return findings, ["postgres", "redis", *_OF_POSTGRES, *_OF_REDIS]
    findings += [machine.gpu(settings.device), installation.project(settings.feature_repo)]
    postgres, skipped = _of_postgres(settings, report=report)
    report("PostgreSQL", 1, 1)
    redis, skipped_too = _of_redis(settings)
    report("Redis", 1, 1)
    return findings + postgres + redis, skipped + skipped_too


def _of_machine(environment: Mapping[str, str]) -> list[Finding]:
    home = Path(environment.get("LEADRE_HOME", ".leadre")).absolute()
    found = [machine.python(), machine.cores(), machine.memory(), machine.disk(home)]
    return [*found, *installation.extras(), installation.commands(environment.get("PATH"))]


def _of_postgres(settings: Settings, *, report: Report) -> tuple[list[Finding], list[str]]:
    findings: list[Finding] = []
    run = _start(settings, settings.database_url, variable="LEADRE_DATABASE_URL")
    with _seen("postgres", findings, run=run), _connected(settings) as connection:
        findings += servers.postgres(connection, settings, now=datetime.now(UTC))
    if not any(it.check == "postgres" and it.state != "fault" for it in findings):
        return findings, list(_OF_POSTGRES)
    with _seen("migrations", findings):
        findings.append(servers.migrations(settings))
    if any(it.check in ("migrations", "rights") and it.state == "fault" for it in findings):
        return findings, list(_OF_POSTGRES[1:])
    report("PostgreSQL", 0, 1)
    looks: dict[str, Callable[[Connection], list[Finding]]] = {
        "data": release.data,
        "release": lambda connection: release.release(connection, settings),
        "registry": lambda _: [features.registry(settings)],
        "materialization": lambda connection: [features.materialization(connection, now=datetime.now(UTC))],
    }
    for name, look in looks.items():
        with _seen(name, findings), _connected(settings) as connection:
            findings += look(connection)
    return findings, []


def _of_redis(settings: Settings) -> tuple[list[Finding], list[str]]:
    findings: list[Finding] = []
    with _seen("redis", findings, run=_start(settings, settings.redis_url, variable="LEADRE_REDIS_URL")):
        from redis import Redis

        client = Redis.from_url(settings.redis_url, socket_timeout=5, socket_connect_timeout=2)
        with closing(client):
            findings += servers.redis(client, settings, now=datetime.now(UTC))
            with _seen("online", findings), _connected(settings) as connection:
                findings.append(features.online(connection, client))
            looks: dict[str, Callable[[], list[Finding]]] = {
                "workers": lambda: nearline.workers(client),
                "queue": lambda: nearline.queue(settings.redis_url),
                "stream": lambda: nearline.stream(client, most=settings.stream_max),
                "features": lambda: [features.quality(client, now=datetime.now(UTC))],
            }
            for name, look in looks.items():
                with _seen(name, findings):
                    findings += look()
    if any(it.check == "redis" and it.state == "fault" for it in findings):
        return findings, list(_OF_REDIS)
    return findings, []


@contextmanager
def _seen(check: str, findings: list[Finding], *, run: str = "") -> Iterator[None]:
    """Turn what a look raises into a finding. Only our messages go out: those of libraries may hold passwords."""
    try:
        yield
    except ModuleNotFoundError as error:
        extra = extra_of(error.name or "") or "all"
        said = f"cannot be looked at: {error.name} is not installed"
        findings.append(fault(check, said, run=install(extra)))
    except LeadreError as error:
        findings.append(fault(check, str(error), run=run))
    except Exception as error:  # noqa: BLE001 - the doctor answers whatever is broken
        name = type(error).__name__
        said = f"{_NAMES.get(check, check)} does not answer ({name})" if run else f"{name} at {place_of(error)}"
        findings.append(fault(check, said, run=run))


_NAMES = {"postgres": "PostgreSQL", "redis": "Redis"}


@contextmanager
def _connected(settings: Settings) -> Iterator[Connection]:
    from leadre.store.records.database import connect, transaction

    database = connect(settings.database_url, application_name="leadre doctor", statement_timeout_s=30)
    try:
        with transaction(database) as connection:
            yield connection
    finally:
        database.dispose()


def _start(settings: Settings, url: str, *, variable: str) -> str:
    """Return what brings a server back: one of ours is started, of another the address is looked at."""
    with suppress(OSError, ValueError):
        if url in json.loads((settings.home / SERVICES_FILE).read_text()).values():
            return "leadre services up"
    return f"leadre env | grep {variable}"
