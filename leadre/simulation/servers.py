"""PostgreSQL and Redis of the simulation's own, so that nothing made up comes near real data. Ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leadre import services

SERVERS = "servers"


class OwnServers:
    """PostgreSQL and Redis of the simulation's own, started when first asked for.

    Args:
        home: the simulation's folder.
    """

    def __init__(self, home: Path) -> None:
        self._home = home / SERVERS
        self._up: services.Services | None = None

    def __call__(self) -> services.Services:
        """Return them running."""
        if self._up is None:
            self._up = services.up(self._home, durable=False)
        return self._up

    def stop(self) -> None:
        """Stop them if they were started here."""
        if self._up is not None:
            services.down(self._home)


@contextmanager
def own_servers(home: Path) -> Iterator[OwnServers]:
    """Give the simulation's servers, which end with it."""
    servers = OwnServers(home)
    try:
        yield servers
    finally:
        servers.stop()
