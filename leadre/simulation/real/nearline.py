"""The lists of one arm's users, kept by servers and a worker on the wall clock. LEADRE §4.4.1.

What users do is posted to the User Server; persister, refresh queue and worker do the rest. The lists are read back
from the User Server, as a Mixer would, and their features from the online store, as a ranker would.
"""

from __future__ import annotations

import http.client
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leadre.domain.behavior import Behavior
from leadre.domain.identity import ids_of
from leadre.errors import Unavailable
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.simulation.nearline import Stored
from leadre.simulation.real.system import PATIENCE_S, RealSystem
from leadre.simulation.rivals.ranker import ITEM_SIDE, USER_SIDE
from leadre.store.features import retrieval_log
from leadre.store.features.ranking import RankingFeatures
from leadre.store.records.database import connect, session

READ_WITHIN_S = 1.0
"""What the online store may take (ours): 50 times what rankers give it, so that a busy machine changes no figure."""
_LOOK_S = 0.01
"""How often the online store is asked for a list that is not there yet."""
_TIMEOUT_S = 10.0

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was there for one visit.

    Args:
        due: whether the user had done anything that a list could know.
        fresh: whether the list knew all of it when the ads were retrieved.
        visible_s: seconds from the visit's accepted content behavior until such a list was in the online store; None
            where there was no positive one, or no such list in time.
    """

    due: bool
    fresh: bool
    visible_s: float | None


class RealNearline:
    """Speaks to what runs.

    Args:
        system: what runs.
        known: positive behaviors of each user so far.
        shift: from the world's time to the wall clock's.
        deadline_s: seconds that a visit's ads wait for lists that know its content.
    """

    def __init__(
        self,
        system: RealSystem,
        *,
        known: Mapping[int, int],
        shift: timedelta,
        deadline_s: float,
    ) -> None:
        settings = system.settings
        self._system, self._shift, self._deadline_s = system, shift, deadline_s
        self._database = connect(settings.database_url, application_name="leadre simulate")
        self._features = RankingFeatures.of(settings, deadline_s=READ_WITHIN_S)
        self._known = Counter(known)
        self._accepted: dict[int, float] = {}  # user -> when the newest positive behavior was
        self._queue = RefreshQueue.connect(settings.redis_url)
        self._connection = http.client.HTTPConnection(system.user_server, timeout=_TIMEOUT_S)
        self._first = 0
        self.seen: list[Seen] = []

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()
        self._features.close()
        self._database.dispose()

    @property
    def made(self) -> Mapping[str, int]:
        """How many lists the worker has written since the warm-up: after visits too, not only before their ads."""
        with session(self._database) as connection:
            return {"llm": retrieval_log.size(connection) - self._first, "cheap": 0}

    @property
    def unanswered(self) -> int:
        """How many reads of the online store took too long: their lists or features are neutral."""
        return self._features.counters.get("unanswered", 0)

    def warm_up(self) -> None:
        """Let all who have done something wait for a list, and return when they have one that knows everything.

        Raises:
            Unavailable: some have none in time.
        """
        users = list(self._known)
        self._queue.mark(users)
        late = self._wait(users, {}, end=time.monotonic() + PATIENCE_S)
        if late:
            raise Unavailable(
                f"the worker has no lists of {len(late)} users after {PATIENCE_S:.0f} s; {self._system.logs} says why"
            )
        self._first = self.made["llm"]

    def report(self, behaviors: Sequence[Behavior], *, visitors: Sequence[int] = ()) -> None:
        """Post behaviors when they have happened; mark visitors in the queue, as a Mixer of the paper does."""
        if behaviors:
            self._sleep_until(max(each.occurred_at for each in behaviors))
        for user, own in groupby(sorted(behaviors, key=lambda each: each.user_id), key=lambda each: each.user_id):
            reported = list(own)
            self._ask("POST", f"/v1/users/{user}/behaviors", {"behaviors": [self._written(each) for each in reported]})
            if positive := sum(each.positive for each in reported):
                self._known[user] += positive
                self._accepted[user] = time.monotonic()
        self._queue.mark(visitors)

    def lists(self, visitors: Sequence[int], *, now: datetime) -> Stored:
        """Wait until the visitors' lists know their content or the deadline passes, and read them.

        Raises:
            Unavailable: the User Server does not answer.
        """
        posted = {user: self._accepted.pop(user) for user in visitors if user in self._accepted}
        self._accepted.clear()  # clicks of earlier visitors
        begun = max(posted.values(), default=time.monotonic())
        visible_s: dict[int, float] = {}
        late = set(self._wait(visitors, visible_s, end=begun + self._deadline_s))
        self._sleep_until(now)
        answer = self._ask("POST", "/v1/lists", {"user_ids": list(visitors), "limit": 1000})
        ads = [ids_of([ad["ad_id"] for ad in of_user["ads"]]) for of_user in answer["lists"]]
        for user in visitors:
            at = visible_s.get(user)
            self.seen.append(
                Seen(
                    due=self._known[user] > 0,
                    fresh=user not in late,
                    visible_s=at - posted[user] if user in posted and at is not None else None,
                )
            )
        return _Served(ads, visitors, self._features)

    def _wait(self, users: Sequence[int], visible: dict[int, float], *, end: float) -> list[int]:
        """Look until every list knows all of its user, note when each did, and return those that do not at the end."""
        waiting = [user for user in users if self._known[user]]
        while waiting:
            found = self._features.read(waiting, [[]] * len(waiting), now=datetime.now(UTC))
            at, sequences = time.monotonic(), found.lists.behavior_sequences.tolist()
            there = [user for user, sequence in zip(waiting, sequences, strict=True) if sequence >= self._known[user]]
            visible.update(dict.fromkeys(there, at))
            waiting = [user for user in waiting if user not in visible]
            if at > end:
                break
            if waiting:
                time.sleep(_LOOK_S)
        return waiting

    def _sleep_until(self, instant: datetime) -> None:
        time.sleep(max(0.0, (instant + self._shift - datetime.now(UTC)).total_seconds()))

    def _written(self, behavior: Behavior) -> dict[str, Any]:
        return {
            "domain": behavior.domain.value,
            "action": behavior.action.value,
            "item_id": behavior.item_id,
            "occurred_at": (behavior.occurred_at + self._shift).isoformat(),
        }

    def _ask(self, method: str, path: str, body: Mapping[str, Any]) -> Any:
        try:
            self._connection.request(method, path, json.dumps(body), {"content-type": "application/json"})
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the User Server does not answer: {error}; {self._system.logs} says why") from error
        if response.status >= 300:
            raise Unavailable(f"the User Server answers {method} {path} with {response.status}: {answer[:200]!r}")
        return json.loads(answer)


class _Served:
    """Lists as the User Server gave them; their features are read when a ranker wants them."""

    def __init__(self, ads: Sequence[Sequence[int]], visitors: Sequence[int], features: RankingFeatures) -> None:
        self.ads, self._visitors, self._features = ads, list(visitors), features

    def features(self, visitors: Ints, ads: Ints) -> Floats:
        """Read them from the online store, as a ranker does."""
        bounds = np.searchsorted(visitors, np.arange(len(self._visitors) + 1))
        asked = [ads[first:end] for first, end in pairwise(bounds)]
        found = self._features.read(self._visitors, asked, now=datetime.now(UTC))
        return np.stack([found[name] for name in (*ITEM_SIDE, *USER_SIDE)], axis=1).astype(np.float64)
