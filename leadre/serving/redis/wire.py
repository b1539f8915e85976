"""Commands as bytes, and where Redis is. LEADRE §4.4.1."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.connection import parse_url

from leadre.errors import ConfigError

Word = bytes | str | int | float


def command(*words: Word) -> bytes:
    """Return a command as Redis's protocol writes it."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        written = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(written), written))
    return b"".join(parts)


def second_word(written: bytes) -> bytes:
    """Return the second word of a command as `command` writes it: the key, of commands that have one."""
    _, _, _, length, rest = written.split(b"\r\n", 4)
    return rest[: int(length[1:])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a Redis is, and how to come in.

    Args:
        host: its name or address.
        port: its port.
        database: its number.
        username: of the ACL; None: the default user.
        password: None: none is asked for.
        tls: how to encrypt; None: not at all.
    """

    host: str
    port: int = 6379
    database: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None

    @property
    def greeting(self) -> Sequence[bytes]:
        """The commands that a new connection begins with; the last one is PING."""
        said = []
        if self.password:
            said.append(command("AUTH", *([self.username] if self.username else []), self.password))
        if self.database:
            said.append(command("SELECT", self.database))
        return [*said, command("PING")]


def address_of(url: str) -> Address:
    """Return what a URL says: `redis://user:password@host:port/0`, or `rediss://` for TLS.

    Of its options, `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` and `ssl_cert_reqs=none` are read, as redis-py does.

    Raises:
        ConfigError: the URL is none, or a certificate cannot be read.
    """
    try:
        given: dict[str, Any] = dict(parse_url(url))  # type: ignore[no-untyped-call]
        tls = tls_of(given) if url.startswith("rediss://") else None
    except (ValueError, OSError) as error:
        raise ConfigError(f"LEADRE_REDIS_URL cannot be used: {type(error).__name__}; see docs/operations.md") from None
    return Address(
        host=given.get("host", "localhost"),
        port=int(given.get("port", 6379)),
        database=int(given.get("db", 0)),
        username=given.get("username"),
        password=given.get("password"),
        tls=tls,
    )


def tls_of(given: dict[str, Any]) -> ssl.SSLContext:
    """Return how to encrypt, by redis-py's options of that name.

    Raises:
        OSError, ValueError: a certificate cannot be read.
    """
    context = ssl.create_default_context(cafile=given.get("ssl_ca_certs"))
    if given.get("ssl_certfile"):
        context.load_cert_chain(given["ssl_certfile"], given.get("ssl_keyfile"))
    if given.get("ssl_cert_reqs") == "none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
