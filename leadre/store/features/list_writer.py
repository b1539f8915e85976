"""The writer of lists: derive, pack, log, set online; a micro-batch at a time. LEADRE §4.4.1.

In this order, so that what is online is in the log as well. A batch that is written again changes nothing, and an
older list never replaces a newer one: whoever fails on the way writes the batch again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leadre.derivation import Lists, pack
from leadre.derivation.user_side import derive
from leadre.domain.retrieval import RetrievalList
from leadre.errors import ReleaseMismatch, UnknownAd
from leadre.store.features import retrieval_log
from leadre.store.features.layout import FEATURE, VIEW, bytes_value, field, timestamp_field, timestamp_value, user_keys
from leadre.store.features.online_rows import set_rows
from leadre.store.records.database import session, transaction
from leadre.store.records.ecpm import EcpmLog, read_ecpm, read_ecpm_log
from leadre.store.records.prepared import FEW

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from leadre.indexing.ad_index import AdIndex

ECPM_AGE = timedelta(hours=1)
"""How long what ads earned and bid counts as known (ours)."""
EcpmOf = Callable[[NDArray[np.int64]], NDArray[np.float64]]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ListWriter:
    """Writes lists to the retrieval log and to the online store. For one thread.

    Args:
        database: the system of record.
        online: a client of the online store's Redis.
        project: of feature_store.yaml.
        ttl_s: seconds from a write at which a user's key expires; 0 leaves that as it is.
    """

    def __init__(self, *, database: Engine, online: Any, project: str, ttl_s: int) -> None:
        self._database, self._online, self._project, self._ttl_s = database, online, project, ttl_s
        self._earned: tuple[datetime, EcpmLog] | None = None
        self._known: tuple[AdIndex, NDArray[np.float64]] | None = None

    def write(self, lists: Sequence[RetrievalList], *, index: AdIndex) -> Lists:
        """Write lists. What ads earned and bid is read anew when `ECPM_AGE` has passed, on the lists' clock.

        Args:
            lists: all made under `index`, at most one a user.
            index: gives categories, advertisers, codes and embeddings.

        Returns:
            The lists with their features.

        Raises:
            ReleaseMismatch, UnknownAd, InvalidInput: as `derive_lists`.
            Unavailable: PostgreSQL does not answer.
            redis.RedisError: Redis does not.
        """
        user_ids = np.array([of_user.user_id for of_user in lists], dtype=np.int64)
        with (session if len(lists) <= FEW else transaction)(self._database) as connection:
            self._read_earnings(connection, lists)
            derived = derive_lists(lists, index=index, ecpm_of=lambda rows: self._ecpm_of(connection, index, rows))
            records = pack(derived)
            known_us = retrieval_log.append(connection, user_ids, derived, records).known_us
        set_lists(self._online, user_ids, derived, records, project=self._project, ttl_s=self._ttl_s, known_us=known_us)
        return derived

    def _read_earnings(self, connection: Connection, lists: Sequence[RetrievalList]) -> None:
        now = max((of_user.generated_at for of_user in lists), default=_EPOCH)
        if self._earned is None or abs(now - self._earned[0]) >= ECPM_AGE:
            self._earned, self._known = (now, read_ecpm_log(connection)), None

    def _ecpm_of(self, connection: Connection, index: AdIndex, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the eCPM of rows of the index, 0 for an ad that the catalog does not hold."""
        assert self._earned is not None  # noqa: S101 - by `_read_earnings`
        if self._known is None or self._known[0] is not index:
            self._known = index, np.full(len(index), np.nan)
        ecpms = self._known[1]
        new = np.unique(rows[np.isnan(ecpms[rows])])
        if len(new):
            ad_ids = index.ad_ids[new].tolist()
            found = read_ecpm(connection, ad_ids, log=self._earned[1])
            ecpms[new] = [found.get(ad_id, 0.0) for ad_id in ad_ids]
        return ecpms[rows]


def derive_lists(lists: Sequence[RetrievalList], *, index: AdIndex, ecpm_of: EcpmOf) -> Lists:
    """Derive lists and their user-side features from what an engine gave. Pure.

    Args:
        lists: all made under `index`.
        index: gives categories, advertisers, codes and embeddings.
        ecpm_of: returns the eCPM of each of these rows of the index.

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
    ads = [beam.ad_id for of_user in lists for beam in of_user.beams]
    scores = [beam.log_probability for of_user in lists for beam in of_user.beams]
    ad_ids = np.array(ads, dtype=np.int64)
    rows = index.rows(ad_ids)
    if (rows < 0).any():
        unknown = int(ad_ids[rows < 0][0])
        problem = f"ad {unknown} is not in index {index.version!r}: load the index's newest revision"
        raise UnknownAd(problem).about(ads=[unknown])
    return derive(
        counts=[len(of_user.beams) for of_user in lists],
        ad_ids=ad_ids,
        log_probabilities=np.array(scores, dtype=np.float64),
        codes=index.codes.take(rows, axis=0),
        first_categories=index.first_categories[rows],
        second_categories=index.second_categories[rows],
        category_names=index.category_names,
        advertiser_ids=index.advertiser_ids[rows],
        embeddings=index.embeddings.take(rows, axis=0),
        ecpms=ecpm_of(rows),
        generated_at_s=np.array([of_user.generated_at.timestamp() for of_user in lists]),
        behavior_at_s=np.array([_seconds(of_user.event_at) for of_user in lists], dtype=np.float64),
        release=[of_user.release for of_user in lists],
        index_version=index.version,
        release_epochs=np.array([of_user.release_epoch for of_user in lists], dtype=np.int64),
        behavior_sequences=np.array([of_user.behavior_sequence for of_user in lists], dtype=np.int64),
        source=[of_user.source for of_user in lists],
    )


def set_lists(
    online: Any,
    user_ids: NDArray[np.int64],
    lists: Lists,
    records: Sequence[bytes],
    *,
    project: str,
    ttl_s: int,
    known_us: Mapping[int, int] | None = None,
) -> int:
    """Set lists online, each where it is newer than the user's there: see `set_rows`.

    Args:
        online: a client of the online store's Redis.
        user_ids: int64[U].
        lists: all present.
        records: the lists as `pack` gives them.
        project: of feature_store.yaml.
        ttl_s: seconds from now at which the users' keys expire; 0 leaves that as it is.
        known_us: from when the lists of some users count, in Unix microseconds; those of the others, and all without
            it, from when they were generated.

    Returns:
        How many were newer.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    times_us = retrieval_log.microseconds(lists.generated_at_s).tolist()
    if known_us:
        times_us = [known_us.get(user_id, at) for user_id, at in zip(user_ids.tolist(), times_us, strict=True)]
    name, time_name = field(VIEW, FEATURE), timestamp_field(VIEW)
    rows = [
        (key, (time_name, timestamp_value(at * 1000), name, bytes_value(record)))
        for key, at, record in zip(user_keys(user_ids, project), times_us, records, strict=True)
    ]
    return set_rows(online, rows, ttl_s=ttl_s)


def _seconds(time: datetime | None) -> float:
    return float("nan") if time is None else time.timestamp()
