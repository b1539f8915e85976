"""The queue beside a model in plain dictionaries, and what must hold of every claim whatever the model says."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from leadre.retrieval.refresh_queue import DOORBELL, Claim, Lane, RefreshQueue
from leadre.retrieval.refresh_queue_keys import AGAIN, CLAIMS, KEYS, LEASES, PENDING, TROUBLE, WAITING

USERS, GROUPS = 8, [0, 1, 23, 24]
VALUES = {
    "until set": [group + 1.0 for group in range(25)],
    "all equal": [1.0] * 25,
    "worthless below": [0.0] * 23 + [3.0, 7.0],
    "steep": [1.5**group for group in range(25)],
}


@dataclass(frozen=True)
class Row:
    new: bool
    group: int
    unseen: int
    since: int

    @classmethod
    def read(cls, score: int) -> Row:
        bucket, since = divmod(score, 2**42)
        return cls(bucket >= 1024, bucket // 32 % 32, bucket % 32, since)

    def after(self, older: Row | None) -> Row:
        if older is None:
            return self
        unseen = min(31, self.unseen + older.unseen)
        return Row(self.new or older.new, self.group, unseen, min(self.since, older.since))


@dataclass
class Held:
    token: int
    end: int
    lane: str
    row: Row


class Model:
    """What refresh_queue_*.lua do, without Redis."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000
        self.pending: dict[int, Row] = {}
        self.again: dict[int, Row] = {}
        self.claimed: dict[int, Held] = {}
        self.trouble: dict[int, int] = {}
        self.dead: set[int] = set()
        self.values, self.discount, self.cut = VALUES["until set"], 0.8, 0
        self.floor, self.owed = 100, 0
        self.rate, self.burst = 0.0, 0.0
        self.left: float | None = None
        self.at: int | None = None
        self.counts = {"llm": 0, "cheap": 0, "expiries": 0, "died": 0}
        self.bell = False

    def budget(self) -> float:
        if self.rate == 0:
            return math.inf
        left = self.burst if self.left is None else self.left
        return min(self.burst, left + (self.now - (self.at or self.now)) * self.rate / 1000)

    def due(self) -> bool:
        if any(held.end <= self.now for held in self.claimed.values()):
            return True
        cheap = any(row.new or row.group < self.cut for row in self.pending.values())
        return cheap or (bool(self.pending) and self.budget() >= 1)

    def ring(self) -> None:
        self.bell = self.bell or self.due()

    def mark(self, marks: list[tuple[int, int]], new: bool) -> int:
        accepted = 0
        for user, group in marks:
            if user not in self.dead:
                rows = self.again if user in self.claimed else self.pending
                rows[user] = Row(new, group, 1, self.now).after(rows.get(user))
                accepted += 1
        self.ring()
        return accepted

    def unclaim(self, user: int, row: Row | None) -> Row | None:
        del self.claimed[user]
        again = self.again.pop(user, None)
        return again.after(row) if again else row

    def blame(self, user: int, points: int) -> None:
        row = self.unclaim(user, self.claimed[user].row)
        assert row
        self.trouble[user] = self.trouble.get(user, 0) + points
        if self.trouble[user] >= 6:
            del self.trouble[user]
            self.dead.add(user)
            self.counts["died"] += 1
        else:
            self.pending[user] = replace(row, since=self.now)

    def expire(self) -> None:
        for user in [u for u, held in self.claimed.items() if held.end <= self.now]:
            self.blame(user, 1)
            self.counts["expiries"] += 1

    def by_value(self, lane: str) -> Iterator[int]:
        """Of each class a line, most unseen first, then the longest wait; whose head is best goes next."""
        lines: dict[tuple[bool, int], list[int]] = {}
        for user, row in self.pending.items():
            if lane == "llm" or row.new or row.group < self.cut:
                lines.setdefault((row.new, row.group), []).append(user)
        for line in lines.values():
            line.sort(key=lambda u: (-self.pending[u].unseen, self.pending[u].since, str(u)))
        while lines:
            best = min(lines, key=lambda of: (*self.rank(lane, self.pending[lines[of][0]]), -of[0], -of[1]))
            yield lines[best].pop(0)
            lines = {of: line for of, line in lines.items() if line}

    def rank(self, lane: str, row: Row) -> tuple[bool, float, int]:
        meant = row.new if lane == "cheap" else row.group >= self.cut
        return not meant, -self.values[row.group] * (1 - self.discount**row.unseen), row.since

    def claim(self, limit: int, lane: str) -> list[int]:
        left = self.budget() if lane == "llm" else math.inf
        limit = int(min(limit, left))
        chosen: list[int] = []
        if limit >= 1:
            wanted = list(self.by_value(lane))
            if lane == "llm" and len(self.pending) > limit:
                self.owed += self.floor * limit
                oldest = sorted(self.pending, key=lambda u: (self.pending[u].since, str(u)))
                wanted = oldest[: self.owed // 1000] + wanted
                self.owed %= 1000
            for user in dict.fromkeys(wanted):
                alone = self.trouble.get(user, 0) >= 2
                if alone and chosen:
                    break
                chosen.append(user)
                if alone or len(chosen) == limit:
                    break
        if left < math.inf:
            self.left, self.at = left - len(chosen), self.now
        self.counts[lane] += len(chosen)
        return chosen

    def lease(self, claims: list[Claim], lease_ms: int, lane: str) -> None:
        for claim in claims:
            row = self.pending.pop(claim.user_id)
            self.claimed[claim.user_id] = Held(claim.token, self.now + lease_ms, lane, row)
        self.ring()

    def settle(self, outcome: str, user: int) -> None:
        held = self.claimed[user]
        if outcome == "fail":
            self.blame(user, 2)
            return
        row: Row | None = held.row
        if outcome == "complete":
            self.trouble.pop(user, None)
            bridged = held.lane == "cheap" and held.row.new and held.row.group >= self.cut
            row = held.row if bridged else None
        row = self.unclaim(user, row)
        if row:
            self.pending[user] = replace(row, new=row.new and outcome != "complete")


class QueueMachine(RuleBasedStateMachine):
    url = ""

    @initialize()
    def start(self) -> None:
        self.queue = RefreshQueue.connect(self.url)
        self.queue._redis.flushdb()
        self.model = Model()
        self.history: list[Claim] = []
        self.spent: list[tuple[int, int]] = []  # instant, users claimed for the LLM since the budget was set

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.model.now / 1000, UTC)

    def teardown(self) -> None:
        if hasattr(self, "queue"):
            self.queue._redis.close()

    @rule(milliseconds=st.integers(0, 3000))
    def time_passes(self, milliseconds: int) -> None:
        self.model.now += milliseconds

    @rule(values=st.sampled_from(sorted(VALUES)), discount=st.sampled_from([0.5, 0.8]))
    def set_values(self, values: str, discount: float) -> None:
        self.model.values, self.model.discount = VALUES[values], discount
        self.queue.set_values(VALUES[values], discount)

    @rule(cut=st.sampled_from([0, 1, 24, 25]), floor=st.sampled_from([0, 100, 300, 1000]))
    def set_cut_and_floor(self, cut: int, floor: int) -> None:
        self.model.cut, self.model.floor = cut, floor
        self.queue.set_cut(cut)
        self.queue.set_floor(floor / 1000)

    @rule(rate=st.sampled_from([0, 0.3, 1, 7]), burst=st.sampled_from([1, 2.5, 4]))
    def set_budget(self, rate: float, burst: float) -> None:
        self.model.rate, self.model.burst, self.spent = rate, burst, []
        self.queue.set_budget(rate, burst)

    @rule(
        marks=st.lists(st.tuples(st.integers(1, USERS), st.sampled_from(GROUPS)), min_size=1, max_size=6),
        new=st.booleans(),
    )
    def mark(self, marks: list[tuple[int, int]], new: bool) -> None:
        marks = list({user: (user, group) for user, group in marks}.values()) + marks[:1] * (len(marks) // 3)
        groups = dict(marks)
        marked = self.queue.mark([u for u, _ in marks], groups=[groups[u] for u, _ in marks], new=new, now=self.now)
        assert marked == self.model.mark([(user, groups[user]) for user, _ in marks], new)

    @rule(user=st.integers(1, USERS), often=st.integers(20, 40))
    def mark_often(self, user: int, often: int) -> None:
        assert self.queue.mark([user] * often, groups=[1] * often, now=self.now) == self.model.mark(
            [(user, 1)] * often, False
        )

    @rule(limit=st.integers(1, 6), lease_ms=st.integers(1, 4000), lane=st.sampled_from(["llm", "llm", "cheap"]))
    def claim(self, limit: int, lease_ms: int, lane: Lane) -> None:
        self.model.expire()
        before = dict(self.model.pending)
        claims = self.queue.claim(limit, lease_s=lease_ms / 1000, lane=lane, now=self.now)
        assert [claim.user_id for claim in claims] == self.model.claim(limit, lane)
        for claim in claims:
            row = before[claim.user_id]
            assert (claim.group, claim.unseen) == (row.group, row.unseen)
            assert claim.waiting_s == (self.model.now - row.since) / 1000
            assert claim.token > max((c.token for c in self.history), default=0)
            assert claim.user_id not in self.model.claimed, "a second lease while the first one lives"
        self.conserves_work(limit, lane, claims, before)
        if lane == "llm":
            self.respects_groups(claims, before)
            self.stays_within_the_budget(len(claims))
        self.model.lease(claims, lease_ms, lane)
        self.history += claims

    def conserves_work(self, limit: int, lane: str, claims: list[Claim], before: dict[int, Row]) -> None:
        """A claim is only short when nobody is left whom it may take."""
        left = [u for u in before if u not in {c.user_id for c in claims}]
        left = [u for u in left if lane == "llm" or before[u].new or before[u].group < self.model.cut]
        if left and len(claims) < limit and not any(self.model.trouble.get(u, 0) >= 2 for u in before):
            assert lane == "llm"
            assert self.model.rate > 0
            assert self.model.budget() < 1

    def respects_groups(self, claims: list[Claim], before: dict[int, Row]) -> None:
        """Nobody is left behind for a user of no higher group and no more requests who has waited less."""
        if any(self.model.trouble.get(u, 0) >= 2 for u in before):
            return
        for left in (row for user, row in before.items() if user not in {c.user_id for c in claims}):
            for row in (before[claim.user_id] for claim in claims):
                if left.group >= row.group and left.unseen >= row.unseen:
                    assert row.since <= left.since

    def stays_within_the_budget(self, users: int) -> None:
        self.spent.append((self.model.now, users))
        if self.model.rate:
            for since, _ in self.spent:
                claimed = sum(n for at, n in self.spent if at >= since)
                assert claimed <= self.model.burst + self.model.rate * (self.model.now - since) / 1000 + 1e-9

    @rule(outcome=st.sampled_from(["complete", "fail", "release"]), which=st.sets(st.integers(0, 30), max_size=4))
    def settle(self, outcome: str, which: set[int]) -> None:
        claims, held = self.some_claims(which)
        assert getattr(self.queue, outcome)(claims + claims[:1], now=self.now) == len(held)
        for claim in held:
            self.model.settle(outcome, claim.user_id)
        if claims:
            self.model.ring()

    @rule(lease_ms=st.integers(1, 4000), which=st.sets(st.integers(0, 30), max_size=4))
    def renew(self, lease_ms: int, which: set[int]) -> None:
        claims, held = self.some_claims(which)
        assert self.queue.renew(claims, lease_ms / 1000, now=self.now) == len(held)
        for claim in held:
            self.model.claimed[claim.user_id].end = self.model.now + lease_ms

    def some_claims(self, which: set[int]) -> tuple[list[Claim], list[Claim]]:
        claims = [self.history[-1 - i] for i in sorted(which) if i < len(self.history)]
        tokens = {user: held.token for user, held in self.model.claimed.items()}
        return claims, [c for c in claims if tokens.get(c.user_id) == c.token]

    @rule(which=st.sets(st.integers(1, USERS), max_size=3))
    def forget(self, which: set[int]) -> None:
        rows: list[Any] = [self.model.pending, self.model.claimed, self.model.again, self.model.trouble]
        known = [u for u in which if u in self.model.pending or u in self.model.claimed or u in self.model.dead]
        assert self.queue.forget(sorted(which)) == len(known)
        self.model.dead -= which
        for row in rows:
            for user in which:
                row.pop(user, None)

    @rule()
    def revive(self) -> None:
        dead, self.model.dead = sorted(self.model.dead), set()
        assert self.queue.revive(now=self.now) == len(dead)
        if dead:
            self.model.mark([(user, 0) for user in dead], False)

    @rule()
    def listen(self) -> None:
        if self.model.bell:
            assert self.queue.wait(5.0)
            self.model.bell = False

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "model"):
            return
        model, redis = self.model, self.queue._redis
        stats = self.queue.stats(now=self.now)
        assert self.queue.depth() == sum(stats.depth) == len(model.pending) + len(model.again)
        assert self.queue.claimed() == stats.claimed == len(model.claimed)
        assert set(self.queue.dead()) == model.dead
        assert self.queue.due(now=self.now) == model.due()
        assert redis.llen(DOORBELL) == model.bell
        for group in range(25):
            waits = [row.since for row in model.pending.values() if row.group == group]
            again = sum(row.group == group for row in model.again.values())
            assert stats.depth[group] == len(waits) + again
            assert stats.oldest_s[group] == ((model.now - min(waits)) / 1000 if waits else 0)
        assert (stats.dead, stats.cut) == (len(model.dead), model.cut)
        assert {**stats.claims, "expiries": stats.expiries, "died": stats.died} == model.counts
        assert (stats.budget_users if model.rate else math.inf) == model.budget()
        scores = {key: {int(user): int(score) for user, score in redis.zscan_iter(key)} for key in KEYS[:4]}
        assert {user: Row.read(score) for user, score in scores[PENDING].items()} == model.pending
        assert {user: Row.read(score) for user, score in scores[AGAIN].items()} == model.again
        assert scores[WAITING] == {user: row.since for user, row in model.pending.items()}
        assert scores[LEASES] == {user: held.end for user, held in model.claimed.items()}
        assert redis.hlen(CLAIMS) == len(model.claimed)
        assert {int(user): int(points) for user, points in redis.hgetall(TROUBLE).items()} == model.trouble


def test_the_queue_behaves_like_its_model(redis_url: str) -> None:
    QueueMachine.url = redis_url
    run_state_machine_as_test(
        QueueMachine, settings=hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)
    )
