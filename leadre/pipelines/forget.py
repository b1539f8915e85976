"""Forget a person: remove the data from PostgreSQL and Redis, look whether any is left, and say so.

For the person's right to erasure. No tombstone is kept, which would be data of the person again: a behavior that
arrives later makes the person anew, as somebody of whom nothing is known. What was on its way meanwhile (an entry that
a persister holds, a list that a worker makes) can land after the first removal, so both are repeated.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from leadre.errors import Unavailable
from leadre.store.person.online import Online, find_online, remove_online
from leadre.store.person.rows import find_rows, materialization_under_way, remove_rows
from leadre.store.person.whom import Person
from leadre.store.records.database import transaction

if TYPE_CHECKING:
    from sqlalchemy import Engine

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int | None], None]
SETTLE_S = 6.0
"""Seconds between removing and looking (ours): longer than a lease, so what a worker had begun has ended by then."""
MOST_ROUNDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What was done, and what is left.

    Args:
        removed: rows by table, and what was taken out of Redis by place.
        left: the same of what was found at the end; a sum of 0 proves that nothing is left.
        looked_at: tables and places that were searched.
        rounds: how often it took.
        materialization_under_way: some run may still write features that it read before: look again once it has ended.
    """

    removed: dict[str, int]
    left: dict[str, int]
    looked_at: int
    rounds: int
    materialization_under_way: bool

    @property
    def left_in_all(self) -> int:
        """0 where nothing of the person is left."""
        return sum(self.left.values())


def forget(
    person: Person,
    *,
    database: Engine,
    online: Online,
    settle_s: float = SETTLE_S,
    sleep: Callable[[float], object] = time.sleep,
    progress: Progress | None = None,
) -> Forgotten:
    """Remove a person's data, wait, and look; again, while somebody has written some meanwhile.

    Args:
        person: whose.
        database: the system of record; a statement may read a whole table.
        online: Redis.
        settle_s: seconds to wait before looking.
        sleep: waits.
        progress: called with what is removed from or searched, how much of it is done, and of how much.

    Raises:
        Unavailable: PostgreSQL or Redis does not answer; what was removed stays removed.
    """
    report = progress or (lambda *_: None)
    removed: Counter[str] = Counter()
    rounds, left = 0, {"everything": 1}
    while left and rounds < MOST_ROUNDS:
        rounds += 1
        try:
            removed.update(_redis(remove_online(online, person)))  # first: what waits there would be written below
            with transaction(database) as connection:
                removed.update(remove_rows(connection, person, report=partial(report, "removing: tables")))
            removed.update(_redis(remove_online(online, person)))
            sleep(settle_s)
            with transaction(database) as connection:
                found = find_rows(connection, person, report=partial(report, "searching: tables"))
                under_way = materialization_under_way(connection)
            found |= _redis(find_online(online, person, report=partial(report, "searching: keys")))
        except RedisError as error:
            raise Unavailable(f"Redis does not answer ({type(error).__name__}): run the command again") from error
        left = {place: count for place, count in found.items() if count}
    logger.info("person_forgotten", extra={"removed": sum(removed.values()), "left": sum(left.values())})
    return Forgotten(
        removed={place: count for place, count in removed.items() if count},
        left=left,
        looked_at=len(found),
        rounds=rounds,
        materialization_under_way=under_way,
    )


def _redis(places: dict[str, int]) -> dict[str, int]:
    return {f"redis {place}": count for place, count in places.items()}
