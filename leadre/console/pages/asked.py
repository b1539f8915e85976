"""What a page is asked for: users and ads as their owner names them, in the query. Ours.

In the query, not in the path: a browser takes "." and ".." out of a path, and both are ids.
"""

from __future__ import annotations

from dataclasses import dataclass

from leadre.domain.identity import id_of, outward
from leadre.errors import InvalidInput
from leadre.serving.http.messages import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A user or an ad: its 64-bit id, and its owner's."""

    number: int
    name: int | str


def named(request: Request, parameter: str) -> Named:
    """Return whom a query parameter names.

    Raises:
        InvalidInput: it is missing, or no id.
    """
    text = (request.asked(parameter) or "").strip()
    if not text:
        raise InvalidInput(f"this page needs ?{parameter}=…; search for a user or an ad above")
    return Named(number=id_of(text), name=outward(text))
