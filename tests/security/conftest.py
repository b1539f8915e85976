"""Certificates of an authority of the test's own, and a door that speaks TLS in front of a server that does not."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

_SSL_REQUEST = bytes.fromhex("0000000804d2162f")
"""What a client of PostgreSQL says first when it wants TLS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """Files in PEM: the authority's certificate, a server's for localhost and 127.0.0.1, and its private key."""

    authority: Path
    server: Path
    key: Path


def make_certificates(folder: Path) -> Certificates:
    """Make an authority and a server's certificate signed by it."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the program openssl")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "san").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    make = "openssl req -newkey rsa:2048 -noenc -days 2"
    for command in (
        f"{make} -x509 -subj /CN=authority -keyout ca.key -out ca.pem",
        f"{make} -subj /CN=localhost -keyout server.key -out server.csr",
        "openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -days 2 -extfile san -out server.pem",
    ):
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return Certificates(authority=folder / "ca.pem", server=folder / "server.pem", key=folder / "server.key")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The server's, by an authority that its clients are told of."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """By an authority that nobody knows."""
    return make_certificates(tmp_path_factory.mktemp("strangers"))


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def tls_door(port: int, certificates: Certificates, *, postgres: bool = False) -> Iterator[int]:
    """Listen on a port that speaks TLS, and pass on to `port` in plain; PostgreSQL's clients ask for TLS first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server, certificates.key)

    def serve(client: socket.socket) -> None:
        with ExitStack() as stack:
            stack.enter_context(client)
            with suppress(OSError):
                if postgres and client.recv(8, socket.MSG_WAITALL) == _SSL_REQUEST:
                    client.sendall(b"S")
                inside = stack.enter_context(context.wrap_socket(client, server_side=True))
                server = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                back = threading.Thread(target=_copy, args=(server, inside), daemon=True)
                back.start()
                _copy(inside, server)
                back.join()

    def accept(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept, args=(listener,), daemon=True)
        accepting.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()


@pytest.fixture
def door() -> Callable[..., AbstractContextManager[int]]:
    """See `tls_door`."""
    return tls_door
