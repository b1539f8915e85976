"""The retrieval log: every list ever written, with its user-side features. LEADRE §5.3.

The offline half of the feature view `retrieved_ads`: what a ranker's training set joins to its impressions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import distinct_on, insert

from leadre.derivation import user_side
from leadre.domain.retrieval import RetrievalList
from leadre.errors import InvalidInput, ReleaseMismatch, UnknownAd
from leadre.store.records.tables import retrieval_log

if TYPE_CHECKING:
    from leadre.indexing.ad_index import AdIndex

COLUMNS = tuple(column.name for column in retrieval_log.columns if column.name not in ("log_id", "created_at"))
"""The columns of a row, as `append` takes and `newest` gives them."""


def list_rows(lists: Sequence[RetrievalList], *, index: AdIndex, ecpms: Mapping[int, float]) -> list[dict[str, Any]]:
    """Derive the rows of lists: the columns of `retrieval_log` and the features of `retrieved_ads`. Pure.

    Args:
        lists: all made under `index`.
        index: gives categories, advertisers and embeddings.
        ecpms: eCPM of ads; an ad without one counts 0.

    Raises:
        ReleaseMismatch: a list of another index version.
        UnknownAd: a list holds an ad that the index does not.
        InvalidInput: a log-probability that is not finite.
    """
    for of_user in lists:
        if of_user.index_version != index.version:
            raise ReleaseMismatch(
                f"a list is from index {of_user.index_version!r}, the index given is {index.version!r}: write it with "
                "its own index"
            )
    beams = [beam for of_user in lists for beam in of_user.beams]
    ad_ids = np.array([beam.ad_id for beam in beams], dtype=np.int64)
    log_probabilities = np.array([beam.log_probability for beam in beams], dtype=np.float64)
    rows = index.rows(ad_ids)
    if (rows < 0).any():
        unknown = int(ad_ids[rows < 0][0])
        problem = f"ad {unknown} is not in index {index.version!r}: load the index's newest revision"
        raise UnknownAd(problem).about(ads=[unknown])
    if not np.isfinite(log_probabilities).all():
        bad = beams[int(np.flatnonzero(~np.isfinite(log_probabilities))[0])]
        problem = f"ad {bad.ad_id} has log-probability {bad.log_probability}; only finite ones have an order"
        raise InvalidInput(problem).about(ads=[bad.ad_id])
    first_categories, second_categories = index.categories_at(rows)
    embeddings = np.asarray(index.embeddings[rows], dtype=np.float32)
    per_ad: dict[str, list[Any]] = {
        "retrieved_ad_ids": ad_ids.tolist(),
        "retrieved_sids": [str(beam.sid) for beam in beams],
        "retrieved_log_probabilities": log_probabilities.tolist(),
        "retrieved_first_categories": first_categories,
        "retrieved_second_categories": second_categories,
        "retrieved_advertiser_ids": index.advertiser_ids[rows].tolist(),
    }
    derived = user_side(
        counts=[len(of_user.beams) for of_user in lists],
        log_probabilities=per_ad["retrieved_log_probabilities"],
        first_categories=first_categories,
        embeddings=embeddings,
        ecpms=[ecpms.get(ad_id, 0.0) for ad_id in per_ad["retrieved_ad_ids"]],
    )
    written, start = [], 0
    for number, of_user in enumerate(lists):
        end = start + len(of_user.beams)
        written.append(
            {
                "user_id": of_user.user_id,
                "event_at": of_user.generated_at,
                "generated_at_s": of_user.generated_at.timestamp(),
                "behavior_at": of_user.event_at,
                "behavior_at_s": None if of_user.event_at is None else of_user.event_at.timestamp(),
                "release": of_user.release,
                "index_version": of_user.index_version,
                **{name: values[start:end] for name, values in per_ad.items()},
                "retrieved_embeddings": embeddings[start:end].ravel().tolist(),
                **{name: values[number] for name, values in derived.items()},
            }
        )
        start = end
    return written


def append(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows in one statement. A user has one list an instant: writing it again changes nothing.

    Args:
        connection: in a transaction.
        rows: `COLUMNS` by name.
    """
    if rows:
        values = [{name: row[name] for name in COLUMNS} for row in rows]
        connection.execute(insert(retrieval_log).on_conflict_do_nothing(), values)


def newest(
    connection: Connection, user_ids: Sequence[int], *, at: datetime | None = None
) -> dict[int, Mapping[str, Any]]:
    """Return each user's newest row, users without one left out.

    Args:
        connection: any.
        user_ids: whose.
        at: leave later rows out; None takes all.
    """
    statement = select(*(retrieval_log.c[name] for name in COLUMNS)).where(retrieval_log.c.user_id.in_(user_ids))
    if at is not None:
        statement = statement.where(retrieval_log.c.event_at <= at)
    statement = statement.ext(distinct_on(retrieval_log.c.user_id)).order_by(
        retrieval_log.c.user_id, retrieval_log.c.event_at.desc()
    )
    return {row["user_id"]: dict(row) for row in connection.execute(statement).mappings()}
