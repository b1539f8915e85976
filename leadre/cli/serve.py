"""`leadre serve`: the request path's servers, and the engine server. LEADRE §4.4.1, §4.4.2."""

from __future__ import annotations

import json
import os
import shlex
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, get_args
from urllib.parse import quote

import click

from leadre import logs
from leadre.cli import session
from leadre.cli.frame.command import OneOf, group
from leadre.cli.operations.door import Door, door_options
from leadre.errors import ConfigError, Unavailable
from leadre.settings import EngineKind, Settings

if TYPE_CHECKING:
    from leadre.serving.http.application import Application

_HOST = click.option("--host", default="127.0.0.1", help="Address to listen on.")
_PORT = click.IntRange(0, 65535)
_PORT_HELP = "Port to listen on; 0 takes a free one."
_WORKERS = click.option("--workers", type=click.IntRange(1, 256), default=1, help="Processes that share the port.")
_ADMIN_PORT = click.option(
    "--admin-port",
    type=click.IntRange(1, 65535),
    help="Show /metrics on this port instead, the second worker's on the next one, and so on.",
)
_ADMIN_HOST = click.option("--admin-host", default="127.0.0.1", help="Address of --admin-port.")


@group()
def serve() -> None:
    """Run the User Server, the Mixer, or an engine. The first two fail open: they answer while no other server does.

    Example: leadre serve user-server
    """


@serve.command("user-server")
@_HOST
@click.option("--port", type=_PORT, default=8010, help=_PORT_HELP)
@_WORKERS
@_ADMIN_PORT
@_ADMIN_HOST
@door_options
def user_server(host: str, port: int, *, workers: int, admin_port: int | None, admin_host: str, door: Door) -> None:
    """Serve stored retrieval lists and take in behaviors. Then: curl localhost:8010/v1/users/user_5/ads.

    Example: leadre serve user-server --workers 4 --admin-port 9010
    """
    found = session.settings()

    from leadre.serving.user_server import create_app

    def to_try(address: str, user: str, ad: int | str) -> list[list[str]]:
        click_now = {
            "domain": "ad",
            "action": "click",
            "item_id": ad,
            "occurred_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        of_user = f"{address}/v1/users/{quote(user, safe='')}"
        return [
            ["curl", f"{of_user}/ads"],
            ["curl", f"{of_user}/behaviors", "-d", json.dumps({"behaviors": [click_now]})],
        ]

    with ExitStack() as open_sockets:
        listening = [open_sockets.enter_context(each) for each in bound(host, port, count=workers)]
        operations = _operations(admin_port, workers, host=admin_host)
        said = partial(_announced, "User Server", found, listening[0], to_try, scheme=door.scheme)
        _serve(partial(create_app, found), found, listening, operations=operations, door=door, announce=said)


@serve.command()
@_HOST
@click.option("--port", type=_PORT, default=8020, help=_PORT_HELP)
@_WORKERS
@_ADMIN_PORT
@_ADMIN_HOST
@door_options
def mixer(host: str, port: int, *, workers: int, admin_port: int | None, admin_host: str, door: Door) -> None:
    """Serve the merged candidates of the branches: LEADRE's, co-visitation, popularity, and those of packages.

    Then: curl localhost:8020/v1/users/user_5/candidates.

    Example: leadre serve mixer --port 8020
    """
    found = session.settings()

    from leadre.serving.mixer import create_app

    def to_try(address: str, user: str, _: int | str) -> list[list[str]]:
        return [
            ["curl", f"{address}/v1/users/{quote(user, safe='')}/candidates?limit=5"],
            ["curl", f"{address}/healthz"],
        ]

    with ExitStack() as open_sockets:
        listening = [open_sockets.enter_context(each) for each in bound(host, port, count=workers)]
        operations = _operations(admin_port, workers, host=admin_host)
        said = partial(_announced, "Mixer", found, listening[0], to_try, scheme=door.scheme)
        _serve(partial(create_app, found), found, listening, operations=operations, door=door, announce=said)


@serve.command()
@_HOST
@click.option("--port", type=_PORT, default=8030, help=_PORT_HELP)
@click.option("--release", default="live", help="A release's name, or `live`: whichever is.")
@click.option(
    "--engine",
    "kind",
    type=OneOf([kind for kind in get_args(EngineKind) if kind != "remote"]),
    help="Default: LEADRE_ENGINE, or auto where that is remote.",
)
@click.option("--tokens-per-batch", type=click.IntRange(1), default=8192, help="A beam counts as 4.")
@click.option("--waiting", type=click.IntRange(1), default=1024, help="Prompts that may wait.")
@door_options
def engine(
    host: str, port: int, *, release: str, kind: EngineKind | None, tokens_per_batch: int, waiting: int, door: Door
) -> None:
    """Decode for other processes: token ids in, S-IDs out (LEADRE_ENGINE=remote asks it).

    With --release NAME it needs neither PostgreSQL nor Redis nor Feast, only LEADRE_HOME.

    Example: leadre serve engine --port 8031 --release live
    """
    found = engine_settings(kind, needs_servers=release == "live")
    (listening,) = bound(host, port)
    tls = door.uvicorn_options()

    from leadre.serving.engine_host import EngineHost, live_release, load_served, named_release
    from leadre.serving.engine_server import EngineServer, run

    engines = EngineHost(
        wanted=live_release(found) if release == "live" else named_release(release, releases=found.releases),
        indexes=found.indexes,
        load=partial(load_served, found),
        tokens_per_batch=tokens_per_batch,
        waiting=waiting,
    )
    with listening:
        app = door.guarded(EngineServer(engines), found, address=listening.getsockname()[0])
        logs.configure()
        announce = partial(click.echo, f"Engine on {_address(listening, scheme=door.scheme)}, release {release}")
        run(app, listening, announce=announce, tls=tls)


def engine_settings(kind: EngineKind | None, *, needs_servers: bool) -> Settings:
    """Return an engine server's settings; one that serves a named release asks no database and no Redis."""
    nowhere = {"LEADRE_DATABASE_URL": "postgresql://", "LEADRE_REDIS_URL": "redis://"}
    found = Settings.from_environment({**({} if needs_servers else nowhere), **os.environ})
    default: EngineKind = "auto" if found.engine == "remote" else found.engine
    return replace(found, engine=kind or default)


def bound(host: str, port: int, *, count: int = 1) -> list[socket.socket]:
    """Return sockets that have the address, and do not listen yet; several share it.

    Raises:
        ConfigError: the address cannot be had.
    """
    with ExitStack() as failing:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            bound = [socket.socket(family, kind, protocol)]
            failing.callback(_close, bound)
            bound[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound[0].bind(address)  # alone: a stranger who shares his ports is noticed
            if count > 1:
                address = bound[0].getsockname()
                bound.pop().close()
                for _ in range(count):
                    bound.append(socket.socket(family, kind, protocol))
                    bound[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    bound[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                    bound[-1].bind(address)
        except (OSError, UnicodeError) as error:  # an over-long host name is no OSError
            said = getattr(error, "strerror", None) or str(error)
            raise ConfigError(
                f"cannot listen on {host}:{port}: {said.lower()}; "
                "choose another --port or --host, or end what listens there"
            ) from None
        failing.pop_all()
    return bound


def _close(sockets: Sequence[socket.socket]) -> None:
    for each in sockets:
        each.close()


def _operations(admin_port: int | None, workers: int, *, host: str) -> list[socket.socket]:
    """Return a socket for each process's operations; none without a port."""
    if admin_port is None:
        return []
    return [bound(host, admin_port + number)[0] for number in range(workers)]


def _serve(
    create_app: Callable[..., Application],
    found: Settings,
    listening: Sequence[socket.socket],
    *,
    operations: Sequence[socket.socket],
    door: Door,
    announce: Callable[[], str],
) -> None:
    """Serve until a signal ends it. `announce` is called, and its answer printed, once requests are accepted."""
    from leadre.serving.http.server import run
    from leadre.serving.http.workers import supervise

    logs.configure()
    tls, guard = door.tls(), door.guard(found, address=listening[0].getsockname()[0])

    def process(number: int) -> None:
        app = create_app(guard=guard, operations_apart=bool(operations))
        served = [(app, listening[number])]
        if operations and app.operations is not None:
            served.append((app.operations, operations[number]))
        run(served, announce=(lambda: click.echo(announce())) if number == 0 else (lambda: None), tls=tls)

    supervise(len(listening), process)


def _announced(
    name: str,
    found: Settings,
    listening: socket.socket,
    to_try: Callable[[str, str, int | str], list[list[str]]],
    *,
    scheme: str,
) -> str:
    """Return what a started server says of itself: where it is, what is live, and what to try."""
    from leadre.store.records.source_ids import example_ids
    from leadre.store.release.records import live_release

    user, ad, release = None, None, "none yet: train one with `leadre train`"
    try:
        with session.connection(found) as connection:
            user, ad = example_ids(connection)
            if live := live_release(connection):
                release = live.release
    except Unavailable as error:
        release = f"unknown: {error}"
    except Exception as error:  # noqa: BLE001 - the server runs, whatever the database is
        release = f"unknown: reading the database ended in {type(error).__name__}; did `alembic upgrade head` run?"
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    reached = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(shown, shown)  # noqa: S104 - compared, not bound
    ids = ("user_5" if user is None else str(user), "SKU-1" if ad is None else ad)
    commands = to_try(f"{scheme}://{reached}:{port}", *ids)
    lines = [f"{name} on {scheme}://{shown}:{port}, live release {release}", "Try:", *map(shlex.join, commands)]
    return "\n".join(lines[:2] + [f"  {line}" for line in lines[2:]])


def _address(listening: socket.socket, *, scheme: str) -> str:
    host, port = listening.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
