"""Ranking features derived from retrieval lists: user-side when a list is written, item-side when it is read.

LEADRE §4.4.1, §5.3. One pure function a side; docs/features.md has the formulas. `item_match` alone serves the
on-demand feature view, the point-in-time join and the ranker, so training and serving cannot differ.

Every sum runs over a list in its own order (`bincount`), so a row's features have the same bits whatever rows
are derived beside it. A feature whose inputs are missing takes its value in `NEUTRAL`; nothing here raises on bad data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

LIST_TTL_S = 7 * 86_400.0
"""A list older than this counts as absent (ours); the feature view's ttl and the settings' default are the same."""

PREFIX_LEVELS = 4
"""Levels with a feature of their own: M of the paper. Fewer levels leave the rest 0."""

NEUTRAL: Mapping[str, int | float] = {
    "hit": 0,
    "rank": 0,
    "probability": 0.0,
    **{f"prefix_mass_{depth}": 0.0 for depth in range(1, PREFIX_LEVELS + 1)},
    "longest_shared_prefix": 0,
    "first_category_mass": 0.0,
    "second_category_mass": 0.0,
    "advertiser_mass": 0.0,
    "max_cosine": 0.0,
    "mean_cosine": 0.0,
    "list_age_s": -1.0,
}
"""The item-side features, and what each is when there is nothing to derive it from."""

_ROWS = 8192  # rows derived at once: bounds memory, changes no value
_PER_ENTRY: Mapping[str, type] = {
    "retrieved_ad_ids": np.int64,
    "retrieved_probabilities": np.float64,
    "retrieved_advertiser_ids": np.int64,
    "retrieved_first_categories": object,
    "retrieved_second_categories": object,
    "retrieved_sids": object,
}
_LIST_COLUMNS = (*_PER_ENTRY, "retrieved_embeddings", "index_version", "generated_at_s")


def user_side(
    *,
    counts: Sequence[int],
    log_probabilities: Sequence[float],
    first_categories: Sequence[str],
    embeddings: NDArray[np.floating[Any]],
    ecpms: Sequence[float],
) -> dict[str, list[Any]]:
    """Derive the user-side features of U lists laid end to end.

    Args:
        counts: U list lengths, each at least 0, adding up to E.
        log_probabilities: E natural logarithms of the ads' probabilities, finite.
        first_categories: E names; an unknown one is empty, and is a category like any other.
        embeddings: [E, width] quantised embeddings, z_a of Eq. 4.
        ecpms: E eCPM estimates in currency units per 1,000 impressions.

    Returns:
        U values a column: `retrieved_probabilities` (softmax over the list), `retrieved_count`, `top_probability`,
        `entropy` (nats), `categories` and `category_probabilities` (falling probability, then name),
        `category_concentration` (the largest share), `mean_embedding` and `expected_ecpm` (weighted by probability).
        An empty list gives empty lists and zeros.
    """
    lengths = np.asarray(counts, dtype=np.int64)
    lists, width = len(lengths), embeddings.shape[1]
    owner = np.repeat(np.arange(lists), lengths)
    logits = np.asarray(log_probabilities, dtype=np.float64)
    peak = np.full(lists, -np.inf)
    np.maximum.at(peak, owner, logits)
    weight = np.exp(logits - peak[owner])
    p = weight / np.bincount(owner, weights=weight, minlength=lists)[owner]
    surprise = np.zeros_like(p)
    np.log(p, out=surprise, where=p > 0)
    entropy = np.abs(np.bincount(owner, weights=-p * surprise, minlength=lists))  # abs turns -0.0 into 0.0
    top = np.zeros(lists)
    np.maximum.at(top, owner, p)
    mean = np.empty((lists, width), dtype=np.float32)
    for axis in range(width):
        mean[:, axis] = np.bincount(owner, weights=p * embeddings[:, axis].astype(np.float64), minlength=lists)
    ecpm = np.bincount(owner, weights=p * np.asarray(ecpms, dtype=np.float64), minlength=lists)

    shares: list[dict[str, float]] = [{} for _ in range(lists)]
    for user, category, share in zip(owner.tolist(), first_categories, p.tolist(), strict=True):
        shares[user][category] = shares[user].get(category, 0.0) + share
    ordered = [sorted(of_user.items(), key=lambda item: (-item[1], item[0])) for of_user in shares]
    bounds = np.cumsum(lengths)[:-1]
    return {
        "retrieved_probabilities": [part.tolist() for part in np.split(p, bounds)] if lists else [],
        "retrieved_count": lengths.tolist(),
        "top_probability": top.tolist(),
        "entropy": entropy.tolist(),
        "categories": [[name for name, _ in of_user] for of_user in ordered],
        "category_probabilities": [[min(share, 1.0) for _, share in of_user] for of_user in ordered],
        "category_concentration": [min(of_user[0][1], 1.0) if of_user else 0.0 for of_user in ordered],
        "mean_embedding": mean.tolist(),
        "expected_ecpm": ecpm.tolist(),
    }


def item_match(columns: Mapping[str, Sequence[Any]], *, ttl_s: float = LIST_TTL_S) -> dict[str, list[Any]]:
    """Derive the match scores of n target ads, each with its user's retrieval list.

    Rows that share a list should share its objects (`[row] * n`): equal lists are read once either way, but objects
    are told apart faster than contents.

    Args:
        columns: n values a column; a missing column is a column of None.
            The target: `ad_id`, `first_category`, `second_category`, `advertiser_id`, `sid`, `embedding` [width],
            `ad_index_version`. The list, best ad first: `retrieved_ad_ids`, `retrieved_sids`,
            `retrieved_probabilities`, `retrieved_first_categories`, `retrieved_second_categories`,
            `retrieved_advertiser_ids` (equally long), `retrieved_embeddings` (row-major, count x width),
            `index_version`, `generated_at_s`. The request: `request_time_s`. Times are Unix seconds.
        ttl_s: a list older than this is absent, and so is one generated after the request.

    Returns:
        n values for every name in `NEUTRAL`, as plain Python numbers.
    """
    rows = max((len(column) for column in columns.values()), default=0)
    nothing = [None] * rows
    parts: list[dict[str, list[Any]]] = []
    for start in range(0, rows, _ROWS):
        part = {name: column[start : start + _ROWS] for name, column in columns.items()}
        parts.append(_match(part, nothing[start : start + _ROWS], ttl_s))
    return {name: list(chain.from_iterable(part[name] for part in parts)) for name in NEUTRAL}


def _match(columns: Mapping[str, Sequence[Any]], nothing: list[None], ttl_s: float) -> dict[str, list[Any]]:
    n = len(nothing)

    def column(name: str) -> Sequence[Any]:
        return columns.get(name, nothing)

    lists, list_of_row = _distinct_lists([column(name) for name in _LIST_COLUMNS])
    lengths = np.array([len(entries["retrieved_ad_ids"]) for entries in lists], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    flat = {
        name: np.concatenate([entries[name] for entries in lists]) if lists else np.empty(0, kind)
        for name, kind in _PER_ENTRY.items()
    }

    # Which lists count: present, not older than ttl, not from the future.
    generated = np.array([entries["generated_at_s"] for entries in lists], dtype=np.float64)[list_of_row]
    age = _floats(column("request_time_s")) - generated
    present = np.array([entries["present"] for entries in lists], dtype=np.bool_)[list_of_row]
    alive = present & ~(age > ttl_s) & ~(age < 0)

    # One line per (row, entry of the row's list): `row`, `entry` and the position in the list.
    width = np.where(alive, lengths[list_of_row], 0)
    row = np.repeat(np.arange(n), width)
    position = np.arange(len(row)) - np.repeat(np.cumsum(width) - width, width)
    entry = position + starts[list_of_row][row]
    p = flat["retrieved_probabilities"][entry]

    def mass(where: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.minimum(np.bincount(row, weights=np.where(where, p, 0.0), minlength=n), 1.0)

    ads, known = _integers(column("ad_id"))
    same_ad = (flat["retrieved_ad_ids"][entry] == ads[row]) & known[row]
    rank = np.zeros(n, dtype=np.int64)
    rank[row[same_ad][::-1]] = position[same_ad][::-1] + 1  # backwards: the first of equal ads is written last

    names: dict[Any, int] = {"": -1, None: -1}
    firsts = _numbered(flat["retrieved_first_categories"], names)[entry]
    seconds = _numbered(flat["retrieved_second_categories"], names)[entry]
    same_first = (firsts == _numbered(column("first_category"), names)[row]) & (firsts >= 0)
    same_second = (seconds == _numbered(column("second_category"), names)[row]) & (seconds >= 0) & same_first
    advertisers, known = _integers(column("advertiser_id"))
    same_advertiser = (flat["retrieved_advertiser_ids"][entry] == advertisers[row]) & (known & (advertisers != 0))[row]

    # S-IDs and embeddings compare only within one index version.
    versions: dict[Any, int] = {"": -1, None: -1}
    of_list = _numbered([entries["index_version"] for entries in lists], versions)[list_of_row]
    same_version = (of_list == _numbered(column("ad_index_version"), versions)) & (of_list >= 0)
    shared = _shared_levels(column("sid"), flat["retrieved_sids"], row, entry)
    shared[~same_version[row]] = 0
    longest = np.zeros(n, dtype=np.int64)
    np.maximum.at(longest, row, shared)
    cosine, comparable = _cosines(column("embedding"), [entries["embeddings"] for entries in lists], row, entry)
    comparable &= same_version[row]
    best = np.full(n, -np.inf)
    np.maximum.at(best, row[comparable], cosine[comparable])

    derived: dict[str, NDArray[Any]] = {
        "hit": (rank > 0).astype(np.int64),
        "rank": rank,
        "probability": mass(same_ad),
        **{f"prefix_mass_{depth}": mass(shared >= depth) for depth in range(1, PREFIX_LEVELS + 1)},
        "longest_shared_prefix": longest,
        "first_category_mass": mass(same_first),
        "second_category_mass": mass(same_second),
        "advertiser_mass": mass(same_advertiser),
        "max_cosine": np.where(np.isfinite(best), best, 0.0),
        "mean_cosine": np.bincount(row, weights=np.where(comparable, p * cosine, 0.0), minlength=n),
        "list_age_s": np.where(alive & np.isfinite(age), age, NEUTRAL["list_age_s"]),
    }
    return {name: derived[name].tolist() for name in NEUTRAL}


def _distinct_lists(columns: list[Sequence[Any]]) -> tuple[list[dict[str, Any]], NDArray[np.int64]]:
    """Read each distinct list once; the second result names the list of every row."""
    by_objects: dict[tuple[int, ...], int] = {}
    by_contents: dict[Any, int] = {}
    lists: list[dict[str, Any]] = []
    list_of_row = []
    for values in zip(*columns, strict=True):
        objects = tuple(map(id, values))
        number = by_objects.get(objects)
        if number is None:
            contents = tuple(_contents(value) for value in values)
            try:
                number = by_contents.get(contents)
            except TypeError:  # a list in a list: no retrieval list at all
                contents = (None,) * len(contents)
                number = by_contents.get(contents)
            if number is None:
                number = by_contents[contents] = len(lists)
                lists.append(_read_list(contents))
            by_objects[objects] = number
        list_of_row.append(number)
    return lists, np.array(list_of_row, dtype=np.int64)


def _contents(value: Any) -> Any:
    """Make a value hashable: a list or array becomes a tuple; None, NaN and what cannot be read become None."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return tuple(value)
    if value is None or (isinstance(value, float) and isnan(value)):
        return None
    return value if isinstance(value, (str, int, float)) else None


def _read_list(contents: tuple[Any, ...]) -> dict[str, Any]:
    """Read one list; a hole, a wrong type or unequal lengths make it absent."""
    values = dict(zip(_LIST_COLUMNS, contents, strict=True))
    count = len(values["retrieved_ad_ids"]) if isinstance(values["retrieved_ad_ids"], tuple) else 0
    entries: dict[str, Any] = {}
    try:
        for name, kind in _PER_ENTRY.items():
            entries[name] = np.fromiter(values[name], dtype=kind, count=len(values[name]))
        p = entries["retrieved_probabilities"]
        sound = all(len(array) == count for array in entries.values()) and bool(np.all((p >= 0) & (p <= 1)))
    except (TypeError, ValueError, OverflowError):
        sound = False
    entries["present"] = sound
    if not sound:
        count = 0
        entries.update({name: np.empty(0, dtype=kind) for name, kind in _PER_ENTRY.items()})
    entries["embeddings"] = _matrix(values["retrieved_embeddings"], count)
    entries["index_version"] = values["index_version"] if isinstance(values["index_version"], str) else None
    generated = values["generated_at_s"]
    entries["generated_at_s"] = generated if isinstance(generated, (int, float)) else np.nan
    return entries


def _matrix(values: Any, count: int) -> NDArray[np.float64]:
    """Return [count, width] embeddings; width is 0 when they are missing or do not divide by `count`."""
    if count and isinstance(values, tuple) and values and len(values) % count == 0:
        try:
            return np.array(values, dtype=np.float64).reshape(count, -1)
        except (TypeError, ValueError):
            pass
    return np.empty((count, 0))


def _floats(values: Sequence[Any]) -> NDArray[np.float64]:
    return np.array([v if isinstance(v, (int, float, np.number)) else np.nan for v in values], dtype=np.float64)


def _integers(values: Sequence[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the integers, and which of them are there. pandas turns a column with holes into floats."""
    known = [isinstance(v, (int, np.integer)) or (isinstance(v, float) and v.is_integer()) for v in values]
    read = [v if there and -(2**63) <= v < 2**63 else 0 for v, there in zip(values, known, strict=True)]
    return np.array(read, dtype=np.int64), np.array(known, dtype=np.bool_)


def _numbered(values: Sequence[Any] | NDArray[Any], numbers: dict[Any, int]) -> NDArray[np.int64]:
    """Number distinct texts, adding new ones to `numbers`; what is no text is -1."""
    return np.array([numbers.setdefault(v, len(numbers)) if isinstance(v, str) else -1 for v in values], dtype=np.int64)


@lru_cache(maxsize=2**16)
def _codes(sid: str) -> tuple[int, ...]:
    """Read `<a_51, b_10, …>` without its last (disambiguation) code; empty for any other text."""
    try:
        return tuple(int(part.partition("_")[2]) for part in sid.removeprefix("<").removesuffix(">").split(", ")[:-1])
    except ValueError:
        return ()


def _shared_levels(
    targets: Sequence[Any], retrieved: NDArray[Any], row: NDArray[np.int64], entry: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Count the leading codes that each row's target shares with each entry, disambiguation code aside."""
    ours = [_codes(sid) if isinstance(sid, str) else () for sid in targets]
    theirs = [_codes(sid) if isinstance(sid, str) else () for sid in retrieved]
    levels = max(map(len, ours), default=0)
    a = np.array([(*codes, *(-1,) * (levels - len(codes))) for codes in ours], dtype=np.int64).reshape(
        len(ours), levels
    )
    b = np.array([(*codes[:levels], *(-2,) * (levels - len(codes))) for codes in theirs], dtype=np.int64).reshape(
        len(theirs), levels
    )
    shared = np.zeros(len(row), dtype=np.int64)
    same = np.ones(len(row), dtype=np.bool_)
    for level in range(levels):
        same &= a[row, level] == b[entry, level]
        shared += same
    return shared


def _cosines(
    targets: Sequence[Any], lists: list[NDArray[np.float64]], row: NDArray[np.int64], entry: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the cosine of each row's target and each entry, and whether both embeddings are there and equally wide."""
    ours = [_contents(value) for value in targets]
    widths = np.array([len(v) if isinstance(v, tuple) else 0 for v in ours], dtype=np.int64)
    width = int(widths.max(initial=0))
    a, b = np.zeros((len(ours), width)), np.zeros((sum(map(len, lists)), width))
    try:
        for wide in set(widths.tolist()) - {0}:
            chosen = np.flatnonzero(widths == wide)
            a[chosen, :wide] = np.array([ours[i] for i in chosen], dtype=np.float64)
    except (TypeError, ValueError):  # a junk value: read one by one
        for i in np.flatnonzero(widths):
            try:
                a[i, : widths[i]] = np.array(ours[i], dtype=np.float64)
            except (TypeError, ValueError):
                a[i], widths[i] = 0.0, 0
    entry_width = np.repeat([matrix.shape[1] for matrix in lists], [len(matrix) for matrix in lists]).astype(np.int64)
    at = 0
    for matrix in lists:
        if matrix.shape[1] <= width:
            b[at : at + len(matrix), : matrix.shape[1]] = matrix
        at += len(matrix)
    a, b = _unit(a), _unit(b)
    cosine = np.zeros(len(row))
    for axis in range(width):  # axis by axis: the order of the sum does not depend on the batch
        cosine += a[row, axis] * b[entry, axis]
    comparable = (widths[row] == entry_width[entry]) & (widths[row] > 0) & np.isfinite(cosine)
    return np.clip(cosine, -1.0, 1.0), comparable


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    square = np.zeros(len(vectors))
    for axis in range(vectors.shape[1]):
        square += vectors[:, axis] ** 2
    with np.errstate(invalid="ignore", over="ignore"):
        return vectors / np.sqrt(np.where(square > 0, square, 1.0))[:, None]
