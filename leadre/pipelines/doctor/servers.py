"""PostgreSQL and Redis: whether they answer, in which version, with which rights, and whether their clocks agree.

LEADRE §4.4.1's databases. Addresses are shown without names and passwords.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from leadre.errors import LeadreError
from leadre.pipelines.doctor.finding import Finding, fault, ok, warning
from leadre.settings import Settings

if TYPE_CHECKING:
    from redis import Redis
    from sqlalchemy import Connection

OLDEST_POSTGRES, OLDEST_REDIS = 15, (6, 2)
"""The oldest that the tests have run on (ours)."""
CLOCK_WARNING_S, CLOCK_FAULT_S = 2.0, 60.0
"""A materialization takes a minute's difference (SKEW), and no more."""
_ROLES = "psql -f deploy/postgres/roles.sql"


def address(url: str) -> str:
    """Return host, port and name of a URL, without who logs in."""
    parts = urlsplit(url)
    return f"{parts.hostname or 'localhost'}{f':{parts.port}' if parts.port else ''}{parts.path}"


def start(*, embedded: bool, said: str) -> str:
    """Return the command that brings a server back that does not answer."""
    return "leadre services up" if embedded else said


def postgres(connection: Connection, settings: Settings, *, now: datetime) -> list[Finding]:
    """Look at PostgreSQL: version, clock, rights of the role."""
    from leadre.store.records.standing import standing

    found = standing(connection)
    said = f"PostgreSQL {found.version} at {address(settings.database_url)}, as {found.role}"
    findings = [ok("postgres", said)]
    if found.number < OLDEST_POSTGRES * 10_000:
        old = f"PostgreSQL {found.version} is older than {OLDEST_POSTGRES}, the oldest that was tried"
        findings = [warning("postgres", old)]
    if found.lacking:
        rights = ", ".join(found.lacking[:3]) + (
            f" and {len(found.lacking) - 3} more" if len(found.lacking) > 3 else ""
        )
        findings.append(fault("rights", f"{found.role} lacks {rights}", run=_ROLES))
    return findings + clock("PostgreSQL", found.now, now=now)


def redis(client: Redis, settings: Settings, *, now: datetime) -> list[Finding]:
    """Look at Redis: version, whether it keeps what it acknowledged, eviction, memory, clock.

    Raises:
        redis.RedisError: it does not answer.
    """
    info: dict[str, Any] = client.info()  # type: ignore[assignment]
    seconds, microseconds = client.time()  # type: ignore[misc]
    version = str(info.get("redis_version", "0"))
    findings = [
        ok("redis", f"Redis {version} at {address(settings.redis_url)}")
        if tuple(int(part) for part in version.split(".")[:2]) >= OLDEST_REDIS
        else warning("redis", f"Redis {version} is older than 6.2, the oldest that was tried")
    ]
    if not int(info.get("aof_enabled", 0)):
        said = "Redis has no append-only file: acknowledged behaviors are lost with its process"
        findings.append(fault("redis-persistence", said, run="redis-cli CONFIG SET appendonly yes"))
    else:
        findings.append(ok("redis-persistence", "Redis keeps what it acknowledges (appendonly)"))
    policy, most = str(info.get("maxmemory_policy", "noeviction")), int(info.get("maxmemory", 0))
    if policy != "noeviction":
        said = f"maxmemory-policy is {policy}: Redis throws away features and waiting users when memory is short"
        run = "redis-cli CONFIG SET maxmemory-policy noeviction"
        findings.append(fault("redis-eviction", said, run=run))
    elif most and int(info["used_memory"]) > 0.9 * most:
        said = f"Redis has {int(info['used_memory']) / most:.0%} of its maxmemory: soon it refuses writes"
        findings.append(warning("redis-eviction", said, run="redis-cli CONFIG SET maxmemory 0"))
    else:
        findings.append(ok("redis-eviction", "Redis evicts nothing (noeviction)"))
    return findings + clock("Redis", datetime.fromtimestamp(seconds + microseconds / 1e6, UTC), now=now)


def clock(name: str, theirs: datetime, *, now: datetime) -> list[Finding]:
    """Compare a server's clock with this machine's; a finding only where they differ."""
    difference = abs((theirs - now).total_seconds())
    if difference < CLOCK_WARNING_S:
        return []
    said = f"the clocks of {name} and of this machine differ by {difference:,.0f} s: times of lists are wrong"
    state = "fault" if difference > CLOCK_FAULT_S else "warning"
    return [Finding(check="clock", state=state, said=said, run="timedatectl set-ntp true")]  # type: ignore[arg-type]


def migrations(settings: Settings) -> Finding:
    """Look whether the database has the newest schema."""
    from leadre.store.records.database import migrations_current

    try:
        current = migrations_current(settings.database_url)
    except LeadreError as error:
        return fault("migrations", str(error))
    if current:
        return ok("migrations", "the schema is at its newest revision")
    said = "the schema is not this version's"
    return fault("migrations", said, run="alembic upgrade head")
