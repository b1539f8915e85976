"""Where the engine instances are: addresses as given, and names that stand for every address they have.

LEADRE §4.4.2. Membership comes from the settings and from DNS, not from a registry: an engine server then needs no
Redis and announces nothing, an autoscaler's new instances are found by the name of their (headless) service, and who is
a member does not depend on whether Redis answers. Who of the members is well, the counters know.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from leadre.errors import ConfigError

logger = logging.getLogger(__name__)

DNS = "dns+http"
LOOK_UP_S = 5.0
"""How long the addresses of a name are used before it is looked up again (ours)."""


def look_up(host: str, port: int) -> list[str]:
    """Return every address of a name.

    Raises:
        OSError: it cannot be looked up.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return sorted({str(address[0]) for *_, address in found})


class Addresses:
    """The instances' addresses, now. Thread-safe.

    Args:
        urls: `http://host:port`, `https://host:port`, or `dns+http://name:port`.
        look_up: from a name and a port to addresses.
        clock: seconds.

    Raises:
        ConfigError: no URL, one of another kind, or a name without a port.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        look_up: Callable[[str, int], Sequence[str]] = look_up,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not urls:
            raise ConfigError("no engine server is named: set LEADRE_ENGINE_URLS")
        self._fixed = tuple(url for url in urls if not url.startswith(f"{DNS}://"))
        self._names: list[tuple[str, int]] = []
        for url in urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https", DNS) or not parts.hostname or parts.path not in ("", "/"):
                raise ConfigError(f"{url!r} is no address of an engine server; write http://host:port")
            if parts.scheme == DNS:
                if parts.port is None:
                    raise ConfigError(f"{url!r} has no port; write {DNS}://name:8030")
                self._names.append((parts.hostname, parts.port))
        self._look_up, self._clock = look_up, clock
        self._found: dict[tuple[str, int], tuple[str, ...]] = {}
        self._until = float("-inf")
        self._lock = threading.Lock()

    def __call__(self) -> tuple[str, ...]:
        """Return the addresses, each once. A name that cannot be looked up keeps the addresses it had."""
        if not self._names:
            return self._fixed
        with self._lock:
            if self._clock() >= self._until:
                for name in self._names:
                    self._renew(*name)
                self._until = self._clock() + LOOK_UP_S
            return tuple(dict.fromkeys([*self._fixed, *(url for urls in self._found.values() for url in urls)]))

    def _renew(self, host: str, port: int) -> None:
        try:
            found = self._look_up(host, port)
        except OSError as error:
            logger.warning("engines_not_looked_up", extra={"error": type(error).__name__})
            return
        shown = [f"[{address}]" if ":" in address else address for address in found]
        self._found[host, port] = tuple(f"http://{address}:{port}" for address in shown)
