"""Semantic ids (S-IDs): what an ad is called in front of the LLM.

LEADRE §3.2: M codes, coarse to fine, plus one disambiguation code; written `<a_51, b_10, c_67, d_93, e_0>`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from leadre.errors import InvalidSemanticId

LETTERS = "abcdefghijklmnopqrstuvwxyz"
_CODE = re.compile(r"([a-z])_(0|[1-9][0-9]{0,8})", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class SemanticId:
    """An ad's codes, one a level; the last is the disambiguation code.

    Args:
        codes: (M + 1) non-negative integers.

    Raises:
        InvalidSemanticId: no code, more levels than letters, or a negative code.
    """

    codes: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.codes) <= len(LETTERS):
            raise InvalidSemanticId(f"an S-ID has 1 to {len(LETTERS)} codes, this has {len(self.codes)}")
        if any(code < 0 for code in self.codes):
            raise InvalidSemanticId(f"codes are not negative, these are {self.codes}")

    def __str__(self) -> str:
        """Return the paper's notation, `<a_51, b_10, c_67, d_93, e_0>`."""
        return f"<{', '.join(f'{letter}_{code}' for letter, code in zip(LETTERS, self.codes, strict=False))}>"

    @classmethod
    def parse(cls, text: str) -> SemanticId:
        """Read the paper's notation. For our own files and tables: an S-ID is never parsed out of untrusted text.

        Raises:
            InvalidSemanticId: the text is not `<a_…, b_…, …>` with the levels in order.
        """
        parts = text[1:-1].split(", ") if text.startswith("<") and text.endswith(">") else []
        codes = []
        for letter, part in zip(LETTERS, parts, strict=False):
            match = _CODE.fullmatch(part)
            if match is None or match[1] != letter:
                break
            codes.append(int(match[2]))
        if not parts or len(codes) != len(parts):
            raise InvalidSemanticId(f"{text[:80]!r} is not an S-ID; write one like '<a_51, b_10, c_67, d_93, e_0>'")
        return cls(tuple(codes))

    def shared_prefix(self, other: SemanticId) -> int:
        """Return how many leading codes the two S-IDs share."""
        shared = 0
        for mine, theirs in zip(self.codes, other.codes, strict=False):
            if mine != theirs:
                break
            shared += 1
        return shared


def code_token(level: int, code: int) -> str:
    """Return the special token of a code: level 0, code 51 is `<a_51>`."""
    return f"<{LETTERS[level]}_{code}>"


def sid_texts(codes: Sequence[Sequence[int]]) -> list[str]:
    """Write S-IDs of one length in the paper's notation: what `str(SemanticId(...))` gives, many at once."""
    template = _template(len(codes[0])) if codes else ""
    return [template % tuple(of_ad) for of_ad in codes]


@cache
def _template(levels: int) -> str:
    return f"<{', '.join(f'{letter}_%d' for letter in LETTERS[:levels])}>"
