"""The LLM's vocabulary: the text tokenizer's ids, then our own.

LEADRE §3.2, §4.2.1: one token a code and level. Layout after the text: pad, end of response, the learnable token, then
one block a level: token id = level_offsets[level] + code. The text tokenizer does not know these ids, so no text
can become one of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from leadre.domain.semantic_id import SemanticId, code_token
from leadre.errors import InvalidInput, InvalidSemanticId

SPECIAL_TOKENS = ("<leadre_pad>", "<leadre_eos>", "<leadre_learnable>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Where each special token stands.

    Args:
        text_size: id of the first of our tokens: the text tokenizer's size, or for a pretrained base model any
            number from its tokenizer's size on.
        code_counts: codes a level, coarse to fine; the last level holds the disambiguation codes.

    Raises:
        InvalidInput: `text_size` below 0, no level, or a level without codes.
    """

    text_size: int
    code_counts: tuple[int, ...]
    level_offsets: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        if self.text_size < 0 or not self.code_counts or min(self.code_counts) < 1:
            raise InvalidInput(
                f"a vocabulary needs text_size >= 0 and at least one code on every level, "
                f"not text_size={self.text_size}, code_counts={self.code_counts}"
            )
        offsets = [self.text_size + len(SPECIAL_TOKENS)]
        for count in self.code_counts[:-1]:
            offsets.append(offsets[-1] + count)
        object.__setattr__(self, "level_offsets", tuple(offsets))

    @property
    def pad_id(self) -> int:
        """Fills batches; never attended to."""
        return self.text_size

    @property
    def eos_id(self) -> int:
        """Ends a response."""
        return self.text_size + 1

    @property
    def learnable_id(self) -> int:
        """The soft-prompt token of §4.2.1 (1)."""
        return self.text_size + 2

    @property
    def levels(self) -> int:
        """Codes in an S-ID, the disambiguation code included."""
        return len(self.code_counts)

    @property
    def size(self) -> int:
        """Rows the model's embedding needs."""
        return self.level_offsets[-1] + self.code_counts[-1]

    def tokens(self) -> list[str]:
        """Return the names of our tokens, in id order from `text_size` on: for files and humans."""
        codes = [code_token(level, code) for level, count in enumerate(self.code_counts) for code in range(count)]
        return [*SPECIAL_TOKENS, *codes]

    def sid_ids(self, sid: SemanticId) -> list[int]:
        """Return an S-ID's token ids, one a level.

        Raises:
            InvalidSemanticId: another number of levels, or a code that its level does not have.
        """
        if len(sid.codes) != len(self.code_counts):
            raise InvalidSemanticId(f"{sid} has {len(sid.codes)} codes, this vocabulary's S-IDs {self.levels}")
        if any(code >= count for code, count in zip(sid.codes, self.code_counts, strict=True)):
            raise InvalidSemanticId(f"{sid} has a code out of range; codes a level: {self.code_counts}")
        return [offset + code for offset, code in zip(self.level_offsets, sid.codes, strict=True)]

    def level_of(self, token_id: int) -> int | None:
        """Return the level whose code this token is, or None when it is no code."""
        if not self.level_offsets[0] <= token_id < self.size:
            return None
        return bisect_right(self.level_offsets, token_id) - 1

    def code_of(self, token_id: int) -> int | None:
        """Return the code this token stands for on its level, or None when it is no code."""
        level = self.level_of(token_id)
        return None if level is None else token_id - self.level_offsets[level]

    def to_json(self) -> dict[str, Any]:
        """Return the plain form for vocabulary.json; `from_json` inverts it."""
        return {"text_size": self.text_size, "code_counts": list(self.code_counts)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Vocabulary:
        """Read the plain form.

        Raises:
            InvalidInput: a key is missing or its value is not a whole number.
        """
        try:
            return cls(text_size=int(content["text_size"]), code_counts=tuple(int(n) for n in content["code_counts"]))
        except (KeyError, TypeError) as error:
            raise InvalidInput(f"not a vocabulary: {error!r}; it has text_size and code_counts") from None
