"""Giving out stored retrieval lists: one user's, or many users' at once.

LEADRE §4.4.1. Reads fail open: whatever happens to the online store, the answer is 200 within the deadline, with the
last list that this process has seen or an empty one, marked `degraded`. An ad that is paused, out of budget or not
scheduled does not leave the server.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec
from prometheus_client.core import HistogramMetricFamily, Metric

from leadre.domain.identity import id_of, outward
from leadre.errors import InvalidInput, Unavailable
from leadre.serving.ad_catalog import AdCatalog
from leadre.serving.contracts import ListedAd, UserAds, UsersWanted
from leadre.serving.http.limits import DEFAULT_LIMIT, limit_in, user_in
from leadre.serving.http.measured import Distribution
from leadre.serving.http.messages import Answer, Request, json_answer, query_value
from leadre.serving.http.routes import Match
from leadre.serving.online_lists import Found, Nothing
from leadre.serving.reported import decoded
from leadre.store.features.list_reader import ShownRow, row_in

logger = logging.getLogger(__name__)

REMEMBERED = 10_000
"""Lists that a process keeps for the time when Redis is away, and their answers: about 4 KB each (ours)."""
_AGES_S = (1, 5, 15, 60, 300, 900, 3600, 14_400, 86_400, 7 * 86_400)
_QUIET_S = 1.0
_WANTED = msgspec.json.Decoder(UsersWanted)
_WANTED_LIKE = 'send {"user_ids": [...]} with 1 to 500 of them, and a limit from 1 to 1000 if need be'


class _Asked(NamedTuple):
    user_id: int
    called: int | str
    limit: int


class _Remembered:
    """A user's list as it was last read, and the answers made of it."""

    __slots__ = ("answers", "generated_s", "row", "value")

    def __init__(self, value: bytes, row: ShownRow) -> None:
        self.value, self.row, self.generated_s = value, row, row.generated_at.timestamp()
        self.answers: dict[tuple[int | str, int], tuple[int, float, Answer]] = {}


class ListDesk:
    """What the reading routes do.

    Args:
        ask: reads a user's list from the online store, without blocking (`OnlineLists.ask`).
        catalog: which ads may be shown, and their names.
        list_ttl_s: an older list counts as absent.
        row: reads what `ask` found.
        clock: Unix seconds.
    """

    def __init__(
        self,
        *,
        ask: Callable[[int, Found], None],
        catalog: AdCatalog,
        list_ttl_s: float,
        row: Callable[[bytes, int], ShownRow | None] = row_in,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ask, self._catalog, self._row, self._clock = ask, catalog, row, clock
        self._list_ttl_s = list_ttl_s
        self._remembered: OrderedDict[int, _Remembered] = OrderedDict()
        self._ages = Distribution(_AGES_S)
        self._said_at = -_QUIET_S
        self.counters: Counter[str] = Counter()

    def ads(self, request: Request) -> None:
        """Answer `GET /v1/users/{user_id}/ads?limit=`."""
        match = request.match
        asked: _Asked = match.kept or _asked(match)

        def found(value: bytes | Nothing | Exception) -> None:
            try:
                answer = self._answer(asked, value)
            except Exception as error:  # noqa: BLE001 - the last resort: who calls this serves others too
                request.fail(error)
            else:
                request.answer(answer)

        self._ask(asked.user_id, found)

    async def lists(self, request: Request) -> Answer:
        """Answer `POST /v1/lists`: many users' lists, in one round trip."""
        try:
            wanted = decoded(_WANTED, request.body, strings=_strings, remedy=_WANTED_LIKE)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"{str(error)[:120]}; {_WANTED_LIKE}") from None
        loop = asyncio.get_running_loop()
        asked = [_named(user, wanted.limit, row=row) for row, user in enumerate(wanted.user_ids, 1)]
        values: list[asyncio.Future[bytes | Nothing | Exception]] = []
        for each in asked:
            values.append(future := loop.create_future())
            self._ask(each.user_id, future.set_result)
        found = await asyncio.gather(*values)
        bodies = [self._answer(each, value).body for each, value in zip(asked, found, strict=True)]
        return Answer(b'{"lists":[%b]}' % b",".join(bodies))  # `ManyLists`, of answers that are written already

    def ready(self) -> list[str]:
        """Name what is missing before lists can be answered. Redis is not: without it they are degraded."""
        return [] if self._catalog.known else ["the ads are not read yet"]

    def collect(self) -> Iterator[Metric]:
        """Return the metrics of what was read."""
        ages = HistogramMetricFamily("leadre_list_age_seconds", "Age of the lists that were read.")
        ages.add_metric([], self._ages.buckets(), self._ages.total)
        yield ages

    def _answer(self, asked: _Asked, value: bytes | Nothing | Exception) -> Answer:
        self.counters["reads"] += 1
        user_id = asked.user_id
        known = self._remembered.get(user_id)
        if type(value) is bytes:
            if known is not None and known.value == value:
                self._remembered.move_to_end(user_id)
                return self._list(asked, known)
            row = self._row(value, user_id)
            if row is None:
                return self._empty(asked, degraded=False)
            known = self._remembered[user_id] = _Remembered(value, row)
            self._remembered.move_to_end(user_id)
            if len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
            return self._list(asked, known)
        if isinstance(value, Nothing):
            if value.whole:
                self._remembered.pop(user_id, None)  # forgotten, or expired
                return self._empty(asked, degraded=False)
            self._degraded("OnlineStoreWiped")
        else:
            self._degraded(type(value).__name__)
        return self._empty(asked, degraded=True) if known is None else self._list(asked, known, degraded=True)

    def _list(self, asked: _Asked, known: _Remembered, *, degraded: bool = False) -> Answer:
        now, row = self._clock(), known.row
        age = now - known.generated_s
        if age > self._list_ttl_s:
            return self._empty(asked, degraded=degraded)
        self._ages.add(age)
        key = (asked.called, asked.limit)
        if not degraded and (made := known.answers.get(key)) and made[0] == self._catalog.version and now < made[1]:
            return made[2]
        version = self._catalog.version
        try:
            shown = self._catalog.shown(row.ad_ids, now_s=now)
        except Unavailable as error:
            if not degraded:
                self._degraded(type(error).__name__)
            return json_answer(UserAds(user_id=asked.called, degraded=True))
        ads = [
            ListedAd(ad_id=name, sid=sid, log_probability=score)
            for name, sid, score in zip(shown.names, row.sids, row.log_probabilities, strict=True)
            if name is not None
        ]
        if left := len(row.ad_ids) - len(ads):
            self.counters["unnamed"] += shown.unnamed  # a derived number is nobody's id
            self.counters["withheld"] += left - shown.unnamed
        answer = json_answer(
            UserAds(
                user_id=asked.called,
                release=row.release,
                index_version=row.index_version,
                generated_at=row.generated_at.isoformat(),
                source=row.source,
                ads=ads[: asked.limit],
                degraded=degraded,
            )
        )
        if not degraded:
            if len(known.answers) > 3:  # as a rule a user is asked for in one way
                known.answers.clear()
            known.answers[key] = (version, shown.until_s, answer)
        return answer

    def _empty(self, asked: _Asked, *, degraded: bool) -> Answer:
        if not degraded:
            if not self._catalog.known:  # an answer that no catalog has looked at
                self._degraded("Unavailable")
                degraded = True
            else:
                self.counters["empty"] += 1
        return json_answer(UserAds(user_id=asked.called, degraded=degraded))

    def _degraded(self, why: str) -> None:
        self.counters["degraded"] += 1
        if (now := time.monotonic()) - self._said_at >= _QUIET_S:  # a line a second, not one a request
            self._said_at = now
            logger.warning("read_degraded", extra={"error": why, "degraded": self.counters["degraded"]})


def _asked(match: Match) -> _Asked:
    limit = limit_in(query_value(match.query, "limit"))
    match.kept = asked = _Asked(*user_in(match.parameters["user_id"]), limit)
    return asked


def _strings(wanted: UsersWanted) -> int:
    return 1 + (wanted.limit != DEFAULT_LIMIT) + sum(type(user) is str for user in wanted.user_ids)


def _named(user: int | str, limit: int, *, row: int) -> _Asked:
    try:
        return _Asked(id_of(user), outward(str(user)), limit)
    except InvalidInput as error:
        raise InvalidInput(error.problem, row=row, column="user_ids") from None
