"""The head of a request, for when the same client says it again: then it needs no parser. LEADRE §4.4.1.

A client that keeps its connection sends the same headers each time, as a rule, but for a request's id. What follows the
target, down to the empty line, was parsed once; where the same bytes come again, around another id, what they mean is
known. Whatever differs otherwise (a length, a trace) is parsed as ever. Parsing is a fourth of what a read costs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from leadre.serving.http.limits import REQUEST_ID
from leadre.serving.http.messages import Headers

_LONGEST = 2048
"""Bytes of a head that is remembered, two a connection (ours)."""
_ID = b"x-request-id"
_ID_AROUND = re.compile(rb"(?i:\r\nx-request-id: )(" + REQUEST_ID.pattern + rb")\r\n")
_OF_ONE_REQUEST = (b"transfer-encoding", b"expect")


class Head(NamedTuple):
    """What follows a request's target, down to the empty line, and what it says; in two parts around a request's id.

    Args:
        begin: the bytes, up to the id if there is one.
        end: those after the id; empty without one.
        headers: without the id.
        body_bytes: the body's length.
    """

    begin: bytes
    end: bytes
    headers: Headers
    body_bytes: int

    def of(self, data: bytes) -> tuple[bytes, bytes, bytes] | None:
        """Return line, request id (b"" for none) and body of a request that has this head; None for any other."""
        line, found, body = data.partition(self.begin)
        if not found:
            return None
        wire_id = b""
        if self.end:
            wire_id, _, body = body.partition(self.end)
            if not REQUEST_ID.fullmatch(wire_id):
                return None
        return (line, wire_id, body) if len(body) == self.body_bytes else None


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
    others = [header for header in headers if header[0] != _ID]
    if len(others) == len(headers):
        return Head(tail, b"", headers, body_bytes)
    found = _ID_AROUND.search(tail)
    if found is None or len(others) != len(headers) - 1:
        return None
    return Head(tail[: found.start(1)], tail[found.end(1) :], others, body_bytes)
