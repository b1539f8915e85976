"""The balancer: a proxy's requests to the engine instance that is through with them first.

LEADRE §4.4.2, "Proxy Load Balancing". Push mode, for engines in processes of their own: every dispatch is counted in
Redis before it goes out, renewed while it runs and released once. An instance that does not answer is left out for a
while, by all proxies; one that refuses (full, or of another release) is passed over for this request. While Redis is
away a proxy goes by what it saw last and by its own dispatches, of two instances drawn at random the freer one.

The other mode, pull, needs none of this: a worker that owns its engine claims users when it is free, so that the
refresh queue itself balances. It is the default (every LEADRE_ENGINE but `remote`), and the better one where it is
possible.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from leadre.decoding.remote import Full, Instance, Question
from leadre.domain.retrieval import Beam
from leadre.errors import BrokenModel, InvalidInput, ReleaseMismatch, Unavailable
from leadre.retrieval.balancer.addresses import Addresses
from leadre.retrieval.balancer.counters import Counters, Dispatch, Outcome
from leadre.retrieval.balancer.shared import SharedCounters

logger = logging.getLogger(__name__)

AGAIN_S = 1.0
"""After this the instances are asked again when all refused (ours; what their Retry-After says)."""
AWAY_S = 1.0
"""For so long Redis is not asked after it did not answer (ours)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """A dispatch, and whether the counters of all proxies hold it or this one's own."""

    dispatch: Dispatch
    shared: bool


class Balancer:
    """Has questions answered by one of many instances. Thread-safe.

    Args:
        addresses: returns the instances' URLs, now.
        shared: the counters of all proxies.
        timeout_s: an instance has to answer within this; a question is given up after twice as long.
        random: draws the two instances to choose between, while Redis is away.
        key: API key that the instances ask for; empty where they ask for none.
    """

    def __init__(
        self,
        addresses: Callable[[], Sequence[str]],
        shared: SharedCounters,
        *,
        timeout_s: float = 30.0,
        random: Random | None = None,
        key: str = "",
    ) -> None:
        self._addresses, self._shared, self._timeout_s, self._key = addresses, shared, timeout_s, key
        self._random = random or Random()  # noqa: S311 - nothing secret
        self._instances: dict[str, Instance] = {}
        self._own = Counters(lease_ms=shared.lease_ms)
        self._seen: tuple[float, dict[str, int]] = (float("-inf"), {})
        self._away_until, self._alone = float("-inf"), False
        self._running: set[int] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._renewing: threading.Thread | None = None

    @classmethod
    def connect(cls, urls: Sequence[str], *, redis_url: str, timeout_s: float = 30.0, key: str = "") -> Balancer:
        """Balance over the instances at `urls` (see `Addresses`); nothing is asked yet.

        Raises:
            ConfigError: no URL, or one of another kind.
        """
        return cls(Addresses(urls), SharedCounters.connect(redis_url), timeout_s=timeout_s, key=key)

    def ask(self, question: Question) -> list[list[Beam]]:
        """Have a question answered.

        Raises:
            InvalidInput: it is outside the engines' contract.
            ReleaseMismatch: no instance has the release and revision that it is for, nor gets it in time.
            BrokenModel: two instances' models failed on it, or the only one's.
            Unavailable: no instance answered in time.
        """
        give_up = time.monotonic() + 2 * self._timeout_s
        passed: dict[str, Exception] = {}
        last = passed
        suspect: tuple[_Held, BrokenModel] | None = None  # is the instance broken, or the request?
        try:
            while time.monotonic() < give_up:
                if not (left := [url for url in self._addresses() if url not in passed]):
                    if suspect is not None or not any(isinstance(e, ReleaseMismatch | Full) for e in passed.values()):
                        break
                    # A promotion reaches servers once they have loaded it, a line moves on: users wait here, leased.
                    self._closed.wait(min(AGAIN_S, max(0.0, give_up - time.monotonic())))
                    last, passed = passed, {}
                    continue
                held = self._dispatch(left, work=question.work)
                outcome: Outcome | None = "failed"
                try:
                    beams = self._instance(held.dispatch.instance).ask(question)
                except (ReleaseMismatch, Full) as error:
                    outcome, passed[held.dispatch.instance] = "refused", error
                except InvalidInput:
                    outcome = "refused"
                    raise
                except BrokenModel as error:
                    passed[held.dispatch.instance] = error
                    if suspect is not None:
                        outcome = "refused"
                        raise
                    suspect, outcome = (held, error), None  # the next instance's answer tells
                except Unavailable as error:
                    passed[held.dispatch.instance] = error
                    logger.warning("engine_left_out", extra={"instance": held.dispatch.instance})
                else:
                    outcome = "done"
                    if suspect is not None:
                        self._end(suspect[0], "failed")
                        suspect = None
                    return beams
                finally:
                    if outcome is not None:
                        self._end(held, outcome)
        finally:
            if suspect is not None:
                self._end(suspect[0], "refused")
        raise suspect[1] if suspect is not None else _verdict(passed or last)

    def close(self) -> None:
        """Stop renewing leases; what runs then ends with its lease."""
        self._closed.set()

    def _dispatch(self, urls: Sequence[str], *, work: int) -> _Held:
        """Choose an instance and count the request there."""
        if time.monotonic() >= self._away_until:
            try:
                found = self._shared.acquire(urls, work=work)
            except Unavailable as error:
                self._redis_away(error)
            else:
                with self._lock:
                    self._seen, self._alone = (time.monotonic(), dict(found.work)), False
                    self._running.add(found.dispatch.token)
                    if self._renewing is None:
                        self._renewing = threading.Thread(target=self._renew, name="leadre-leases", daemon=True)
                        self._renewing.start()
                return _Held(dispatch=found.dispatch, shared=True)
        with self._lock:
            dispatch = self._own.acquire(urls, work=work, now=_now_ms(), random=self._random)
            return _Held(dispatch=dispatch, shared=False)

    def _end(self, held: _Held, outcome: Outcome) -> None:
        if held.shared:
            with self._lock:
                self._running.discard(held.dispatch.token)
            with suppress(Unavailable):  # it then ends with its lease
                self._shared.release(held.dispatch.token, outcome=outcome)
            return
        with self._lock:
            self._own.release(held.dispatch.token, outcome=outcome, now=_now_ms())

    def _redis_away(self, error: Unavailable) -> None:
        now = time.monotonic()
        with self._lock:
            self._away_until = now + AWAY_S
            at, work = self._seen
            if now - at < self._shared.lease_ms / 1000:  # older ones count for nothing any more
                self._own.assume(work, now=_now_ms())
            self._seen = float("-inf"), {}
            alone, self._alone = self._alone, True
        if not alone:
            logger.warning("balancer_alone", extra={"error": type(error).__name__})

    def _renew(self) -> None:
        while not self._closed.wait(self._shared.lease_ms / 3000):
            with self._lock:
                tokens = sorted(self._running)
            with suppress(Unavailable):
                self._shared.renew(tokens)

    def _instance(self, url: str) -> Instance:
        with self._lock:
            if url not in self._instances:
                here = set(self._addresses())
                self._instances = {known: client for known, client in self._instances.items() if known in here}
                self._instances[url] = Instance(url=url, timeout_s=self._timeout_s, key=self._key)
            return self._instances[url]


def _verdict(passed: dict[str, Exception]) -> Exception:
    """Return what it means that every instance was passed over."""
    if passed and all(isinstance(error, ReleaseMismatch) for error in passed.values()):
        return ReleaseMismatch(
            f"{next(iter(passed.values()))}; so of all {len(passed)}: they follow the live release within seconds, or "
            "were started with --release"
        )
    last = f": {list(passed.values())[-1]}" if passed else ""
    return Unavailable(f"none of {len(passed)} engine instances decodes now{last}")


def _now_ms() -> int:
    return int(time.monotonic() * 1000)
