"""Clients that report behaviors and read lists all the time, and remember what they were told."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from redis import Redis
from redis.exceptions import RedisError

from leadre.store.features.list_reader import RetrievedRow, read_lists
from tests.chaos.world import System

TIMEOUT_S = 10.0
Reported = tuple[int, int, datetime]
"""User, ad and time of a click."""
Order = tuple[int, int, datetime]
"""What a list is newer by: release epoch, behavior sequence, time."""


class Clients:
    """Threads over one User Server.

    Args:
        system: the world.
        port: of the User Server.
        seed: of who does what.
        per_s: reports a second.
    """

    def __init__(self, system: System, port: int, *, seed: int, per_s: float) -> None:
        self._system, self._port, self._seed, self._per_s = system, port, seed, per_s
        self.accepted: list[Reported] = []
        self.counts: Counter[str] = Counter(empty_unmarked=0, never_listed=0)
        self.backward: list[tuple[int, Order, Order]] = []
        self._seen: dict[int, Order] = {}
        self._stopping, self._reporting_ends = threading.Event(), threading.Event()
        self._threads = [
            *(threading.Thread(target=self._report, args=(number,)) for number in range(4)),
            threading.Thread(target=self._read),
            threading.Thread(target=self._watch),
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop_reporting(self) -> None:
        """Report nothing more, and read on."""
        self._reporting_ends.set()
        for thread in self._threads[:4]:
            thread.join()

    def stop(self) -> None:
        """End."""
        self._reporting_ends.set()
        self._stopping.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _report(self, number: int) -> None:
        rng = random.Random(f"{self._seed} reporter {number}")
        users, ads = self._system.user_ids, [ad.ad_id for ad in self._system.world.ads]
        connection = self._connection()
        while not self._reporting_ends.is_set():
            time.sleep(rng.expovariate(self._per_s / 4))
            reported = rng.choice(users), rng.choice(ads), datetime.now(UTC)
            status = self._post(connection, *reported)
            self.counts[f"post_{status}"] += 1
            if status == 202:
                self.accepted.append(reported)
            elif status == 0:
                connection.close()

    def _post(self, connection: http.client.HTTPConnection, user: int, ad: int, at: datetime) -> int:
        click = {"domain": "ad", "action": "click", "item_id": ad, "occurred_at": at.isoformat()}
        body = json.dumps({"behaviors": [click]})
        try:
            connection.request(
                "POST", f"/v1/users/{user}/behaviors", body=body, headers={"content-type": "application/json"}
            )
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            return 0
        return response.status

    def _read(self) -> None:
        rng = random.Random(f"{self._seed} reader")
        connection = self._connection()
        while not self._stopping.is_set():
            time.sleep(0.02)
            user = rng.choice(self._system.user_ids)
            listed = user in self._seen  # before the request: somebody who never had a list may well have none
            try:
                connection.request("GET", f"/v1/users/{user}/ads")
                response = connection.getresponse()
                answer = json.loads(response.read())
            except (OSError, http.client.HTTPException, ValueError):
                self.counts["read_failed"] += 1
                connection.close()
                continue
            self.counts["reads"] += 1
            self.counts["reads_not_200"] += response.status != 200
            self.counts["reads_degraded"] += bool(answer.get("degraded"))
            if not answer.get("ads") and not answer.get("degraded"):
                self.counts["empty_unmarked" if listed else "never_listed"] += 1

    def _watch(self) -> None:
        """Read all users' records as a ranker does, and look whether any goes back."""
        users = self._system.user_ids
        with Redis.from_url(self._system.settings.redis_url, socket_timeout=5, socket_connect_timeout=1) as online:
            while not self._stopping.wait(0.03):
                with contextlib.suppress(RedisError):
                    self._compare(users, read_lists(online, users, project="leadre"))

    def _compare(self, users: Sequence[int], rows: Sequence[RetrievedRow | None]) -> None:
        for user, row in zip(users, rows, strict=True):
            if row is None:
                continue
            self.counts["records_seen"] += 1
            order, before = order_of(row), self._seen.get(user)
            if before is not None and order < before:
                self.backward.append((user, before, order))
            self._seen[user] = order

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)


def order_of(row: RetrievedRow) -> Order:
    """Return what a list is newer by."""
    return row.release_epoch, row.behavior_sequence, row.generated_at
