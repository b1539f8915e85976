"""Who may come in to a server, and by which protocol: the options that all of `leadre serve` share. LEADRE §4.4.1."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from leadre.errors import ConfigError
from leadre.serving.guard import Application, Guarded, KeyGuard, check_reach
from leadre.serving.keys import Keys

if TYPE_CHECKING:
    from leadre.settings import Settings

_FILE = click.Path(exists=True, dir_okay=False, readable=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What the options said.

    Args:
        open_to_all: whether to listen beyond the loopback without keys.
        certfile: certificate in PEM; None speaks plain HTTP.
        keyfile: its private key; None where the certificate's file holds it.
    """

    open_to_all: bool = False
    certfile: str | None = None
    keyfile: str | None = None

    @property
    def scheme(self) -> str:
        """Of the server's address."""
        return "http" if self.certfile is None else "https"

    def guarded(self, app: Application, found: Settings, *, address: str) -> Application:
        """Return the application behind the keys of the settings, if there are any.

        Raises:
            ConfigError: the file of keys is none, or strangers could reach `address` without any.
        """
        keys = None if found.api_keys_file is None else Keys(found.api_keys_file)
        check_reach(address, keys=keys, open_to_all=self.open_to_all)
        return app if keys is None else Guarded(app, keys)

    def guard(self, found: Settings, *, address: str) -> KeyGuard | None:
        """Return what asks requests for a key of the settings; None where there are none.

        Raises:
            ConfigError: as `guarded`.
        """
        keys = None if found.api_keys_file is None else Keys(found.api_keys_file)
        check_reach(address, keys=keys, open_to_all=self.open_to_all)
        return None if keys is None else KeyGuard(keys)

    def tls(self) -> ssl.SSLContext | None:
        """Return how connections are encrypted; None: not at all.

        Raises:
            ConfigError: the certificate and its key cannot be used.
        """
        if not self.uvicorn_options():
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(str(self.certfile), self.keyfile)
        return context

    def uvicorn_options(self) -> dict[str, Any]:
        """Return what `uvicorn.Config` is given.

        Raises:
            ConfigError: the certificate and its key cannot be used.
        """
        if self.certfile is None:
            if self.keyfile is not None:
                raise ConfigError("--ssl-keyfile needs --ssl-certfile: a key alone proves nothing")
            return {}
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certfile, self.keyfile)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"the certificate {self.certfile} and its private key cannot be used ({error}): give PEM files that "
                "belong together"
            ) from None
        return {"ssl_certfile": self.certfile, "ssl_keyfile": self.keyfile}


def door_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options, and give the command a `door`."""

    @click.option("--open", "open_to_all", is_flag=True, help="Listen beyond the loopback without API keys.")
    @click.option("--ssl-certfile", "certfile", type=_FILE, help="Certificate in PEM: speak TLS.")
    @click.option("--ssl-keyfile", "keyfile", type=_FILE, help="Its private key; default: in the certificate's file.")
    @functools.wraps(command)
    def with_door(*, open_to_all: bool, certfile: str | None, keyfile: str | None, **others: Any) -> None:
        command(door=Door(open_to_all=open_to_all, certfile=certfile, keyfile=keyfile), **others)

    return with_door
