"""A system of real processes for one arm: a database of its own, a User Server, a Celery worker. LEADRE §4.4.1.

Everything as `leadre serve user-server` and `celery worker` start it, over the release that the fast clock has in
memory.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from redis import Redis

from leadre.errors import Unavailable
from leadre.pipelines.index.publish import publish_built
from leadre.project import IN_CHECKOUT, packaged, project_file
from leadre.project.worker import worker_command
from leadre.recipe import encode_recipe
from leadre.retrieval.loaded_release import LoadedRelease
from leadre.services import Services
from leadre.services.process import free_port
from leadre.settings import Settings
from leadre.simulation.journal import Journal
from leadre.simulation.observed import Observed
from leadre.store.importers.load import load
from leadre.store.records.database import connect, scratch_database, transaction
from leadre.store.release.records import promote, record_release

PATIENCE_S = 600.0
"""How long a process may take until it answers, on a machine that has other things to do (ours)."""
_STOPS_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RealSystem:
    """What runs.

    Args:
        settings: of its processes.
        user_server: its address, `http://host:port`.
        logs: folder of what its processes say.
    """

    settings: Settings
    user_server: str
    logs: Path


@contextmanager
def real_system(
    release: LoadedRelease,
    observed: Observed,
    journal: Journal,
    *,
    home: Path,
    servers: Services,
    shift: timedelta,
    beam_width: int,
    logs: Path,
) -> Iterator[RealSystem]:
    """Fill a database, start both processes, and stop them at the end. What Redis holds is removed first.

    Args:
        release: is live in it.
        observed: catalog, profiles, impressions.
        journal: what users have done until the experiment.
        home: folder of the release and its index, as LEADRE_HOME has them.
        servers: the simulation's own PostgreSQL and Redis.
        shift: from the world's time to the wall clock's.
        beam_width: ads of a list.
        logs: folder for what the processes say.

    Raises:
        Unavailable: a server does not answer, or a process does not come up; names its log.
    """
    logs.mkdir(parents=True, exist_ok=True)
    with scratch_database(servers.database_url, "simulation_real") as url, ExitStack() as running:
        settings = Settings(
            home=home.absolute(),
            database_url=url,
            redis_url=servers.redis_url,
            feature_repo=project_file("feature_repo").absolute(),
            beam_width=beam_width,
        )
        with Redis.from_url(settings.redis_url, socket_timeout=5) as redis:
            redis.flushdb()
        environment = _environment(settings)
        feast = [sys.executable, "-m", "feast.cli.cli", "-c", str(settings.feature_repo), "apply"]
        applying = running.enter_context(_process(feast, environment, logs / "feast.log"))
        _fill(settings, release, observed, journal, shift=shift)
        try:
            failed = applying.wait(PATIENCE_S) != 0
        except subprocess.TimeoutExpired:
            failed = True
        if failed:
            raise Unavailable(f"feast apply failed or took {PATIENCE_S:.0f} s; {logs / 'feast.log'} says why")
        port = free_port()
        app = "leadre_workers.app" if packaged() else "workers.app"
        serve = [sys.executable, "-m", "leadre", "serve", "user-server", "--port", str(port)]
        server = running.enter_context(_process(serve, environment, logs / "user-server.log"))
        running.enter_context(_process(worker_command(app), environment, logs / "worker.log"))
        _wait_until_ready(f"http://127.0.0.1:{port}/readyz", server, log=logs / "user-server.log")
        yield RealSystem(settings=settings, user_server=f"127.0.0.1:{port}", logs=logs)


def _fill(
    settings: Settings, release: LoadedRelease, observed: Observed, journal: Journal, *, shift: timedelta
) -> None:
    """Write the world as its system sees it, on the wall clock, and make the release live."""
    live = observed.live.tolist()
    begin = min(ad.created_at for ad in observed.ads)
    load(
        settings.database_url,
        ads=[replace(ad, live=live[ad.ad_id], created_at=ad.created_at + shift) for ad in observed.ads],
        profiles=observed.profiles,
        content_items=observed.content_items,
        behaviors=[replace(each, occurred_at=each.occurred_at + shift) for each in journal.behaviors()],
        impressions=[replace(each, occurred_at=each.occurred_at + shift) for each in observed.impressions],
        profiles_at=begin + shift,
        arrived_at=observed.now + shift,
    )
    database = connect(settings.database_url, application_name="leadre simulate")
    try:
        publish_built(database, settings.indexes / release.index.version, built=None, now=observed.now + shift)
        with transaction(database) as connection:
            record_release(
                connection,
                release.release,
                index_version=release.index.version,
                uri=str(settings.releases / release.release),
                recipe=encode_recipe(release.recipe),
                metrics={},
            )
            promote(connection, release.release)
    finally:
        database.dispose()


def _environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a process of the system; nothing of ours in this one's reaches it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LEADRE_")}
    return {
        **inherited,
        "LEADRE_HOME": str(settings.home),
        "LEADRE_DATABASE_URL": settings.database_url,
        "LEADRE_REDIS_URL": settings.redis_url,
        "LEADRE_FEATURE_REPO": str(settings.feature_repo),
        "LEADRE_BEAM_WIDTH": str(settings.beam_width),
        **settings.feast_environment(),
    }


@contextmanager
def _process(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process until the block ends; then it is asked to end, and made to."""
    where = None if packaged() else IN_CHECKOUT  # where the workers' package is
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, cwd=where, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(url: str, server: subprocess.Popen[bytes], *, log: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    while server.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=1):  # noqa: S310 - our own address
                return
        except OSError:
            time.sleep(0.05)
    raise Unavailable(f"the User Server did not come up; {log} says why")
