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


class LeadreError(Exception):
    """Root of all errors this package raises on purpose. The command line prints its message, not a traceback."""


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
    """More ads share their codes than there are disambiguation codes.

    Args:
        problem: as in `InvalidInput`.
        ad_ids: the ads that no code is left for.
    """

    def __init__(self, problem: str, *, ad_ids: tuple[int, ...] = ()) -> None:
        self.ad_ids = ad_ids
        super().__init__(problem)


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
