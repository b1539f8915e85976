"""Retrieval lists in arrays: what a user's list holds, many users at once. LEADRE §4.4.1.

Probabilities are whole multiples of 2^-32, so that sums of them are exact in any order, batch and language.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leadre.domain.retrieval import Source

SHARE = 2.0**-32
"""The unit of `Lists.shares`."""
NO_AGE = -1.0
"""The age of a list that does not count, or when nobody says what time it is."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lists:
    """U retrieval lists laid end to end, best ad first: E ads in all. An absent list has no ads.

    Args:
        offsets: int64[U + 1]; list u is the ads from `offsets[u]` to `offsets[u + 1]`.
        present: bool[U].
        ad_ids: int64[E].
        log_probabilities: float32[E], natural logarithms of the engine's probabilities.
        shares: uint32[E], probabilities within the list in units of `SHARE`.
        levels: uint8[U], codes of an S-ID of the list, the disambiguation code included.
        codes: uint16[E, L], S-IDs; zero beyond the list's levels.
        widths: uint16[U], numbers of an embedding of the list.
        directions: int8[E, width], what is left of the quantised embeddings for cosines; zero beyond the list's width.
        first_categories: int32[E], positions in `category_names`.
        second_categories: int32[E], likewise.
        category_names: names of both levels; "" where an ad has none.
        advertiser_ids: int64[E]; 0 where unknown.
        generated_at_s: float64[U], Unix seconds.
        behavior_at_s: float64[U], Unix seconds of the newest behavior a list was made from; NaN without one.
        entropy: float64[U], nats.
        expected_ecpm: float64[U], currency per 1,000 impressions.
        mean_embedding: float32[U, width], zero beyond the list's width.
        releases: U names.
        index_versions: U names.
        release_epochs: int64[U], which promotion was live; 0 of a list that none made.
        behavior_sequences: int64[U], how many positive behaviors of the user were known.
        sources: U names, what retrieved the list.
    """

    offsets: NDArray[np.int64]
    present: NDArray[np.bool_]
    ad_ids: NDArray[np.int64]
    log_probabilities: NDArray[np.float32]
    shares: NDArray[np.uint32]
    levels: NDArray[np.uint8]
    codes: NDArray[np.uint16]
    widths: NDArray[np.uint16]
    directions: NDArray[np.int8]
    first_categories: NDArray[np.int32]
    second_categories: NDArray[np.int32]
    category_names: tuple[str, ...]
    advertiser_ids: NDArray[np.int64]
    generated_at_s: NDArray[np.float64]
    behavior_at_s: NDArray[np.float64]
    entropy: NDArray[np.float64]
    expected_ecpm: NDArray[np.float64]
    mean_embedding: NDArray[np.float32]
    releases: tuple[str, ...]
    index_versions: tuple[str, ...]
    release_epochs: NDArray[np.int64]
    behavior_sequences: NDArray[np.int64]
    sources: tuple[Source, ...]

    def __len__(self) -> int:
        """Return the number of lists, present or not."""
        return len(self.present)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Ads of each list, int64[U]."""
        return self.offsets[1:] - self.offsets[:-1]


def living(
    lists: Lists, list_of_row: NDArray[np.integer[Any]], *, request_time_s: ArrayLike, ttl_s: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Say which of R rows have a list that counts: there, with ads, not too old and not of the future.

    Args:
        lists: U lists.
        list_of_row: [R], 0 to U - 1.
        request_time_s: [R] Unix times, or one for all; with NaN the age is not known and any will do.
        ttl_s: how old a list may be.

    Returns:
        Whether it counts, bool[R], and its age in seconds, float64[R]; `NO_AGE` where it does not.
    """
    asked = np.asarray(request_time_s, dtype=np.float64)
    sound, made = lists.present & (lists.counts > 0), lists.generated_at_s
    if asked.ndim:  # a time a row: otherwise one look at each list is enough
        sound, made = sound[list_of_row], made[list_of_row]
    age = asked - made
    alive = sound & ~(age > ttl_s) & ~(age < 0)
    age = np.where(alive & np.isfinite(age), age, NO_AGE)
    return (alive, age) if asked.ndim else (alive[list_of_row], age[list_of_row])
