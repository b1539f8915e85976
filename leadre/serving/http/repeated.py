"""The head of a request, for when the same client says it again: then it needs no parser. LEADRE §4.4.1.

A client that keeps its connection sends the same headers each time, as a rule. What follows the target, down to the
empty line, was parsed once; where the same bytes come again, what they mean is known. Whatever differs (a request's
id, a length) is parsed as ever. Parsing is a fourth of what a read costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from leadre.serving.http.messages import Headers

_LONGEST = 2048
"""Bytes of a head that is remembered, two a connection (ours)."""
_OF_ONE_REQUEST = (b"x-request-id", b"transfer-encoding", b"expect")


class Head(NamedTuple):
    """What follows a request's target, down to the empty line, and what it says."""

    tail: bytes
    headers: Headers
    body_bytes: int


def head_in(data: bytes, *, line: bytes, headers: Sequence[tuple[bytes, bytes]], body_bytes: int) -> Head | None:
    """Return the head of a request; None where it is not to be remembered, or `data` is not this request alone.

    Args:
        data: what arrived: it begins with the request, which has been parsed and keeps its connection.
        line: its method and target, with a space between.
        headers: as they were parsed.
        body_bytes: the length of its body.
    """
    tail = data[len(line) : len(data) - body_bytes]
    if (
        len(tail) > _LONGEST
        or not (data.startswith(line) and tail.startswith(b" HTTP/1.1\r\n") and tail.endswith(b"\r\n\r\n"))
        or tail.count(b"\n") != len(headers) + 2  # else a header goes over two lines, or another request follows
        or any(name in _OF_ONE_REQUEST for name, _ in headers)
    ):
        return None
    return Head(tail, headers, body_bytes)
