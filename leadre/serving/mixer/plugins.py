"""Which branches a Mixer has: LEADRE_BRANCHES names them, built in or of installed packages. LEADRE §5.3.

A package brings branches by the entry point group `leadre.branches`: a name, and a function that takes `Tools` and
returns a `Branch`. docs/branches.md has an example.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from leadre.errors import ConfigError
from leadre.names import did_you_mean
from leadre.serving.http.application import Background
from leadre.serving.mixer.branches import Branch
from leadre.serving.redis.connection import RedisConnection

if TYPE_CHECKING:
    from leadre.settings import Settings

GROUP = "leadre.branches"
_PART = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)(?::([1-9][0-9]{0,3}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What a branch may use.

    Args:
        settings: where everything is.
        redis: the process's pipelined connection to the online store.
        background: append a coroutine function to it, and it runs from the Mixer's start to its end.
    """

    settings: Settings
    redis: RedisConnection
    background: list[Background]


Maker = Callable[[Tools], Branch]


def named_in(text: str) -> list[tuple[str, int]]:
    """Return the branches that `LEADRE_BRANCHES` names, in order of turns, each with its ads a round.

    Args:
        text: such as `leadre:2,covisitation:1,popular`; a branch without a number gives one ad a round.

    Raises:
        ConfigError: it names none, one twice, or is written otherwise.
    """
    found: dict[str, int] = {}
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None or match[1] in found:
            raise ConfigError(
                f"LEADRE_BRANCHES={text[:80]!r}: {part.strip()[:40]!r} is no branch, or there twice; "
                "write leadre:2,covisitation:1,popular:1"
            )
        found[match[1]] = int(match[2] or 1)
    return list(found.items())


def branches(text: str, *, built_in: dict[str, Maker], tools: Tools) -> Sequence[tuple[Branch, int]]:
    """Make the branches that `LEADRE_BRANCHES` names.

    Args:
        text: as `named_in`.
        built_in: what needs no package; goes before one of the same name.
        tools: what they may use.

    Raises:
        ConfigError: a branch is not known.
    """
    installed = {point.name: point for point in entry_points(group=GROUP)}
    made: list[tuple[Branch, int]] = []
    for name, quota in named_in(text):
        if name in built_in:
            maker = built_in[name]
        elif name in installed:
            maker = installed[name].load()
        else:
            known = sorted({*built_in, *installed})
            raise ConfigError(
                f"LEADRE_BRANCHES names {name!r}; {did_you_mean(name, known)}there are {', '.join(known)} "
                f"(a package brings more: {GROUP})"
            )
        made.append((maker(tools), quota))
    return made
