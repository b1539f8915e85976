"""Who may ask the console: a browser that means it. Against DNS rebinding, and against forms of other sites. Ours."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from urllib.parse import urlsplit

from leadre.serving.http.limits import shortened
from leadre.serving.http.messages import Headers, Refusal, Request

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


class HostGuard:
    """Lets a request in whose `Host` is one of the console's own names, on any port: a tunnel may have another.

    A page of another site whose name was made to mean 127.0.0.1 still sends that name.

    Args:
        names: by which browsers reach the console.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(name.lower() for name in names)

    def __call__(self, headers: Headers) -> None:
        """Let a request in, or not.

        Raises:
            Refusal: its host is another, or it names none or several (421).
        """
        hosts = [value for name, value in headers if name == b"host"]
        host = _hostname(hosts[0]) if len(hosts) == 1 else None
        if host not in self._names:
            shown = shortened(hosts[0].decode("latin-1")) if hosts else "no host"
            raise Refusal(421, f"the console is not {shown}; `leadre console --name` adds a name that reaches it")


class FormGuard:
    """Lets a form in that this console's own page sent.

    Attributes:
        token: of this process, at random; forms carry it.
    """

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(32)

    def check(self, request: Request, token: str) -> None:
        """Let a form in, or not.

        Raises:
            Refusal: another site sent it, or a page of a console that has ended since (403).
        """
        origin, host = request.header(b"origin"), request.header(b"host") or b""
        if origin is None:
            ours = request.header(b"sec-fetch-site") == b"same-origin"
        else:
            ours = urlsplit(origin).netloc.lower() == host.lower()
        if not ours:
            raise Refusal(403, "another site sent this form; open the console and press the button there")
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            raise Refusal(403, "this form is of a console that has ended since; load the page again")


def _hostname(host: bytes) -> str | None:
    try:
        return urlsplit(f"//{host.decode('ascii')}").hostname
    except (UnicodeDecodeError, ValueError):
        return None
