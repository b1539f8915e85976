"""The reader of lists: the records of users, as they are online, in one round trip. LEADRE §4.4.1.

Straight from Feast's Redis layout: a request waits for one GET and no protobuf.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isnan
from typing import Any

import numpy as np

from leadre.derivation import Lists, unpack
from leadre.derivation.list_glance import glance
from leadre.domain.retrieval import Source
from leadre.domain.semantic_id import sid_texts
from leadre.store.features.layout import FEATURE, VIEW, field, read_bytes_value, user_keys


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievedRow:
    """A user's list as the online store has it, best ad first. Its age is the reader's business.

    The last three are `RetrievalList`'s; with their defaults in a record from before they were kept.
    """

    user_id: int
    release: str
    index_version: str
    generated_at: datetime
    behavior_at: datetime | None
    ad_ids: tuple[int, ...]
    sids: tuple[str, ...]
    log_probabilities: tuple[float, ...]
    release_epoch: int = 0
    behavior_sequence: int = 0
    source: Source = "llm"


def read_lists(online: Any, user_ids: Sequence[int], *, project: str) -> list[RetrievedRow | None]:
    """Return each user's list, of any age; None for a user without one, or with bytes that are no list.

    Args:
        online: a client of the online store's Redis.
        user_ids: whose.
        project: of feature_store.yaml.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    keys, name = user_keys(np.array(user_ids, dtype=np.int64), project), field(VIEW, FEATURE)
    if len(keys) == 1:
        values = [online.hget(keys[0], name)]
    else:
        pipeline = online.pipeline(transaction=False)
        for key in keys:
            pipeline.hget(key, name)
        values = pipeline.execute()
    return _rows(unpack([read_bytes_value(value) for value in values]), user_ids)


def _rows(lists: Lists, user_ids: Sequence[int]) -> list[RetrievedRow | None]:
    # Out of NumPy once for all lists, not once a list.
    ad_ids, scores, codes = lists.ad_ids.tolist(), lists.log_probabilities.tolist(), lists.codes.tolist()
    edges, levels = lists.offsets.tolist(), lists.levels.tolist()
    generated_at_s, behavior_at_s = lists.generated_at_s.tolist(), lists.behavior_at_s.tolist()
    epochs, sequences = lists.release_epochs.tolist(), lists.behavior_sequences.tolist()
    return [
        RetrievedRow(
            user_id=user_id,
            release=lists.releases[u],
            index_version=lists.index_versions[u],
            generated_at=datetime.fromtimestamp(generated_at_s[u], UTC),
            behavior_at=None if isnan(behavior_at_s[u]) else datetime.fromtimestamp(behavior_at_s[u], UTC),
            ad_ids=tuple(ad_ids[edges[u] : edges[u + 1]]),
            sids=tuple(sid_texts([sid[: levels[u]] for sid in codes[edges[u] : edges[u + 1]]])),
            log_probabilities=tuple(scores[edges[u] : edges[u + 1]]),
            release_epoch=epochs[u],
            behavior_sequence=sequences[u],
            source=lists.sources[u],
        )
        if present
        else None
        for u, (user_id, present) in enumerate(zip(user_ids, lists.present.tolist(), strict=True))
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownRow:
    """What the request path shows of a user's list: see `RetrievedRow`."""

    user_id: int
    release: str
    index_version: str
    generated_at: datetime
    source: Source
    ad_ids: tuple[int, ...]
    sids: tuple[str, ...]
    log_probabilities: tuple[float, ...]


def row_in(value: bytes | None, user_id: int) -> ShownRow | None:
    """Return the list that a field of Redis holds, for who has read it; None for nothing, or bytes that are no list."""
    found = glance(read_bytes_value(value))
    if found is None:
        return None
    return ShownRow(
        user_id=user_id,
        release=found.release,
        index_version=found.index_version,
        generated_at=datetime.fromtimestamp(found.generated_at_s, UTC),
        source=found.source,
        ad_ids=found.ad_ids,
        sids=tuple(sid_texts(found.codes)),
        log_probabilities=found.log_probabilities,
    )
