"""The balancer's counters in plain Python: the scripts' reference, and a proxy's own view while Redis is away.

LEADRE §4.4.2: "Redis-based global counters to evenly distribute requests". A counter that a crashed proxy never takes
back would keep an instance idle for ever, so each dispatch holds a lease; requests differ in size, so counters count
work; and instances differ in speed, so what is compared is the time that the work takes at an instance's own pace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from leadre.errors import InvalidInput

LEASE_MS = 5000
"""A dispatch whose proxy does not renew it for so long is taken back (ours; the paper says nothing of crashes)."""
PACE_MS = 10_000
"""Busy time after which what is known of an instance's pace counts half (ours)."""
FIRST_EJECTION_MS, LONGEST_EJECTION_MS = 1000, 30_000
"""How long an instance is left out after a failure; twice as long after each further one (ours)."""

Outcome = Literal["done", "refused", "failed"]
"""How a dispatch ended: decoded; refused by a healthy instance; or not answered, which ejects the instance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """A request on its way. `token` names it to `renew` and `release`."""

    token: int
    instance: str
    work: int


@dataclass(slots=True)
class Record:
    """What is counted of an instance: whole numbers, times in milliseconds.

    Args:
        work: dispatched to it and not yet ended.
        done: work that it ended, and busy_ms: in how much time with work; both fade.
        busy_ms: see `done`.
        since: when `busy_ms` was last brought up to date.
        failures: in a row.
        until: it is ejected until then.
    """

    work: int = 0
    done: int = 0
    busy_ms: int = 0
    since: int = 0
    failures: int = 0
    until: int = 0

    def pass_time(self, now: int) -> None:
        """Count the time until now as busy, if there was work."""
        if self.work > 0 and now > self.since:
            self.busy_ms += now - self.since
            if self.busy_ms > PACE_MS:
                self.busy_ms //= 2
                self.done //= 2
        self.since = max(self.since, now)

    def admits(self, now: int) -> bool:
        """Whether it may be dispatched to: not ejected, and after a failure only one request at a time."""
        return self.failures == 0 or (now >= self.until and self.work == 0)


@dataclass(slots=True)
class Counters:
    """Counters of one view: all proxies' (as the scripts keep them in Redis), or one proxy's own.

    Args:
        lease_ms: see `LEASE_MS`.
    """

    lease_ms: int = LEASE_MS
    records: dict[str, Record] = field(default_factory=dict)
    leases: dict[int, tuple[int, Dispatch]] = field(default_factory=dict)
    tokens: int = 0

    def acquire(self, instances: Sequence[str], *, work: int, now: int, random: Random | None = None) -> Dispatch:
        """Dispatch a request to the instance that will be through with it first, and count it there.

        Args:
            instances: to choose from; if none of them admits a request, all of them count as if they did.
            work: what the request costs, at least 1.
            now: the instant, ms.
            random: with it the choice is between two instances drawn at random: what a proxy does that sees only
                itself, so that proxies with one view do not all choose one instance.

        Raises:
            InvalidInput: no instance, or no work.
        """
        if not instances or work < 1:
            raise InvalidInput(f"{work} tokens for {len(instances)} instances; give at least one of each")
        self.expire(now=now)
        self.tokens += 1
        token = self.tokens
        names = list(instances)
        open_ = [name for name in names if self.record(name).admits(now)] or names
        if random is not None and len(open_) > 2:
            open_ = random.sample(open_, 2)
        chosen = self.first_through(open_, work=work, turn=token)
        record = self.record(chosen)
        record.pass_time(now)
        record.work += work
        dispatch = Dispatch(token=token, instance=chosen, work=work)
        self.leases[token] = now + self.lease_ms, dispatch
        return dispatch

    def first_through(self, names: Sequence[str], *, work: int, turn: int) -> str:
        """Return the instance with the least time until its work and this is done; of equal ones it is in turn."""
        records = [self.record(name) for name in names]
        known = [record for record in records if record.done > 0 and record.busy_ms > 0]
        mean_done = sum(record.done for record in known) or 1
        mean_busy = sum(record.busy_ms for record in known) or 1
        best, least = 0, float("inf")
        for step in range(len(names)):
            at = (turn + step) % len(names)
            record = records[at]
            paced = record.done > 0 and record.busy_ms > 0
            busy, done = (record.busy_ms, record.done) if paced else (mean_busy, mean_done)
            time = (record.work + work) * busy / done
            if time < least:
                best, least = at, time
        return names[best]

    def renew(self, tokens: Sequence[int], *, now: int) -> int:
        """Extend the leases of dispatches that still run; return how many were held."""
        self.expire(now=now)
        held = 0
        for token in tokens:
            if token in self.leases:
                self.leases[token] = now + self.lease_ms, self.leases.pop(token)[1]  # last: see `expire`
                held += 1
        return held

    def release(self, token: int, *, outcome: Outcome, now: int) -> bool:
        """End a dispatch; ending it again, or after its lease, changes nothing. Return whether it was held."""
        self.expire(now=now)
        if token not in self.leases:
            return False
        dispatch = self.leases.pop(token)[1]
        record = self.record(dispatch.instance)
        record.pass_time(now)
        record.work -= dispatch.work
        if outcome == "done":
            record.done += dispatch.work
            record.failures, record.until = 0, 0
        elif outcome == "failed" and now >= record.until:  # others that fail with it are the same failure
            record.failures += 1
            record.until = now + min(LONGEST_EJECTION_MS, FIRST_EJECTION_MS << min(record.failures - 1, 5))
        return True

    def assume(self, work: Mapping[str, int], *, now: int) -> None:
        """Count what instances were last seen to have, from whomever; it leaves after a lease."""
        self.expire(now=now)
        for instance, seen in work.items():
            if seen > 0:
                self.tokens += 1
                self.record(instance).pass_time(now)
                self.record(instance).work += seen
                self.leases[self.tokens] = (
                    now + self.lease_ms,
                    Dispatch(token=self.tokens, instance=instance, work=seen),
                )

    def expire(self, *, now: int) -> None:
        """Take back what proxies left that renew no more."""
        while self.leases:
            token, (until, dispatch) = next(iter(self.leases.items()))  # in the order in which they run out
            if until > now:
                return
            del self.leases[token]
            record = self.record(dispatch.instance)
            record.pass_time(now)
            record.work -= dispatch.work

    def record(self, instance: str) -> Record:
        """Return what is counted of an instance."""
        found = self.records.get(instance)
        if found is None:
            found = self.records[instance] = Record()
        return found
