"""`leadre console`: look at users, ads, the index, the queue and the releases in a browser."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime

import click

from leadre import logs
from leadre.cli import session
from leadre.cli.frame.command import command
from leadre.cli.serve import bound
from leadre.errors import ConfigError


@command()
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8040, help="Port; 0 takes a free one.")
@click.option("--name", "names", multiple=True, help="Another host name that reaches it, through a tunnel or proxy.")
@click.option("--allow-changes", is_flag=True, help="Let pages promote and roll back releases, after a confirmation.")
@click.option("--open", "open_to_all", is_flag=True, help="Listen beyond the loopback: something else asks who comes.")
@click.option("--now", type=session.Instant(), show_default="the present", help="Act as of this instant.")
def console(
    host: str, port: int, *, names: tuple[str, ...], allow_changes: bool, open_to_all: bool, now: datetime | None
) -> None:
    """Serve pages on users, ads, the index, the queue and the releases, on this machine alone.

    Pages show personal data on purpose; none of it is logged. Nothing can be changed without --allow-changes.

    Examples:
    leadre console
    leadre console --port 8041 --allow-changes
    """
    found = session.settings()
    (listening,) = bound(host, port)
    address, number = listening.getsockname()[:2]
    with listening:
        if not ipaddress.ip_address(address.partition("%")[0]).is_loopback and not open_to_all:
            raise ConfigError(
                f"{address} can be reached from other machines, and the console asks nobody who he is: listen on "
                "127.0.0.1 and come through `ssh -L`, or say --open where a proxy checks who asks"
            )
        from leadre.console.door import FormGuard
        from leadre.console.server import create_app
        from leadre.serving.http.server import run

        logs.configure()
        app = create_app(
            found,
            clock=(lambda: now) if now else (lambda: datetime.now(UTC)),
            names=[host, address, *names],
            changes=FormGuard() if allow_changes else None,
        )
        shown = f"[{address}]" if ":" in address else address
        mode = "promotion and rollback allowed" if allow_changes else "read-only"
        run([(app, listening)], announce=lambda: click.echo(f"Console on http://{shown}:{number}, {mode}"))
