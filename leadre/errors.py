"""The one tree of errors.

    LeadreError
    ├── ConfigError            a setting or recipe that cannot work
    ├── InvalidSemanticId      a text or tuple that is not an S-ID of this index
    ├── UnknownAd              an ad id that the index or catalog does not hold
    ├── InvalidInput           bad data from outside: names file, row and column
    ├── NoFreeCode             an InvalidInput: more ads share their codes than there are disambiguation codes
    ├── ArtifactIncomplete     an index or model folder without its manifest, or altered since
    ├── ReleaseMismatch        a model and an index (or a list and an index) of different versions
    ├── NoValidContinuation    a beam stands on a node without children: the trie is broken
    ├── BrokenModel            a model whose scores are not numbers
    ├── FeatureRowMismatch     the feature store returned another number of rows than asked for
    └── Unavailable            a server does not answer: the only error that workers retry

Every message names the thing, the value, the bound and the remedy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self


class LeadreError(Exception):
    """Root of all errors this package raises on purpose. The command line prints its message, not a traceback.

    Attributes:
        ad_ids: 64-bit ids of ads that the message names because the code that raised it knew no other name.
        user_ids: the same of users. Who shows the message to people puts the owner's ids in their place
            (`leadre.store.records.source_ids.in_owners_words`).
    """

    ad_ids: tuple[int, ...] = ()
    user_ids: tuple[int, ...] = ()

    def about(self, *, ads: Iterable[int] = (), users: Iterable[int] = ()) -> Self:
        """Say which 64-bit ids the message names, and return the error."""
        self.ad_ids, self.user_ids = tuple(map(int, ads)), tuple(map(int, users))
        return self


class ConfigError(LeadreError):
    """A setting or a recipe that cannot work."""


class InvalidSemanticId(LeadreError, ValueError):
    """A text or tuple that is not an S-ID."""


class UnknownAd(LeadreError, KeyError):
    """An ad id that the index or the catalog does not hold."""

    def __str__(self) -> str:  # KeyError would print the message's repr
        return str(self.args[0]) if self.args else ""


class InvalidInput(LeadreError, ValueError):
    """Bad data from outside.

    Args:
        problem: what is wrong and how to mend it.
        source: file or request the data came from.
        row: 1-based data row (the header is not counted).
        column: name of the column or field.
    """

    def __init__(
        self, problem: str, *, source: str | None = None, row: int | None = None, column: str | None = None
    ) -> None:
        self.problem, self.source, self.row, self.column = problem, source, row, column
        where = [source] if source else []
        where += [f"row {row}"] if row is not None else []
        where += [f"column {column!r}"] if column else []
        super().__init__(f"{', '.join(where)}: {problem}" if where else problem)


class NoFreeCode(InvalidInput):
    """More ads share their codes than there are disambiguation codes; it is `about` the ads that none is left for."""


class ArtifactIncomplete(LeadreError):
    """An artifact folder without a manifest, or whose files differ from it."""


class ReleaseMismatch(LeadreError):
    """Two things that must come from one release do not."""


class NoValidContinuation(LeadreError):
    """A beam stands on a node without children."""


class BrokenModel(LeadreError):
    """A model whose scores are not numbers."""


class FeatureRowMismatch(LeadreError):
    """The feature store returned another number of rows than it was asked for."""


class Unavailable(LeadreError, ConnectionError):
    """A server does not answer. Retrying later may help; nothing else here does."""
