"""Names that people type: what a misspelled one was meant to be. For the command line, settings, recipes and imports.

No part of the paper. Nearness is difflib's, with its own cutoff of .6.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from leadre.errors import ConfigError


def nearest(typed: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like what was typed; None where none is near."""
    near = difflib.get_close_matches(typed, list(known), n=1)
    return str(near[0]) if near else None


def did_you_mean(typed: str, known: Iterable[str]) -> str:
    """Return "did you mean 'x'? " with the nearest of the known names; nothing where none is near."""
    near = nearest(typed, known)
    return f"did you mean {near!r}? " if near is not None else ""


def not_there(kind: str, typed: str, known: Iterable[str], *, lists: str | None = None) -> ConfigError:
    """Return the error that nothing of a kind has this name, with the nearest one that there is.

    Args:
        kind: of thing, for example "release".
        typed: the name.
        known: the names that there are.
        lists: the command that lists them; None: they are few, and the message does.
    """
    names = sorted(known)
    rest = f"`{lists}` shows those there are" if lists else f"there are {', '.join(names)}"
    return ConfigError(f"there is no {kind} {typed[:80]!r}; {did_you_mean(typed, names)}{rest}")
