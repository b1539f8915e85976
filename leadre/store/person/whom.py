"""Who is meant: a person's 64-bit id, and the owner's own name for the person. docs/adr/0001."""

from __future__ import annotations

from dataclasses import dataclass

from leadre.domain.identity import id_of, outward


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Whose data is meant.

    Args:
        user_id: the 64-bit id.
        source_id: as the owner writes it; None where that is the number itself.
    """

    user_id: int
    source_id: str | None = None

    @classmethod
    def named(cls, source_id: int | str) -> Person:
        """Return the person of an id as the owner writes it.

        Raises:
            InvalidInput: no id.
        """
        user_id = id_of(source_id)
        by_number = isinstance(outward(str(source_id)), int)
        return cls(user_id=user_id, source_id=None if by_number else str(source_id))
