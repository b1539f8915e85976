"""A simulated fleet of engine instances behind proxies, for `bench_balancer.py`: events, policies, crashes.

An instance works as `leadre serve engine` does: what waits when it is free is a batch, up to `BATCH` requests, and
takes a fixed time plus its work at the instance's speed. Its theoretical load is what it does in full batches. The
product's policies are the product's code (leadre.retrieval.balancer.counters); only the clock is made up.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Protocol

from leadre.retrieval.balancer.counters import Counters

BATCH = 8
"""Requests (a proxy's batches) that an instance decodes together."""
MEAN_WORK = 1000
SETUP_S, WORK_S = 0.1, 0.1
"""A batch takes SETUP_S, and WORK_S for each mean request in it, at speed 1."""
FULL_S = SETUP_S + BATCH * WORK_S
SLO_S = 2.5 * FULL_S
"""A request may wait for three full batches and its own."""
RENEW_S = 5 / 3


@dataclass(slots=True)
class Request:
    """One dispatch. `token` is the policy's."""

    arrived: float
    work: int
    proxy: int
    instance: int = -1
    token: int = 0
    finished: float = math.inf


class Policy(Protocol):
    """Chooses an instance at dispatch and hears of the end. Instances are named by their number."""

    def choose(self, request: Request, open_: Sequence[str], *, now: float) -> int:
        """Return the instance's number."""
        ...

    def end(self, request: Request, *, failed: bool, now: float) -> None:
        """Hear that a request is done, or that its instance did not answer."""
        ...

    def renew(self, requests: Sequence[Request], *, now: float) -> None:
        """Hear which requests run, every `RENEW_S` seconds."""
        ...


class _Deaf:
    """What most policies are: they hear nothing."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def end(self, request: Request, *, failed: bool, now: float) -> None:
        """Nothing is kept."""

    def renew(self, requests: Sequence[Request], *, now: float) -> None:
        """Nothing is leased."""


class Drawn(_Deaf):
    """Any instance."""

    def choose(self, request: Request, open_: Sequence[str], *, now: float) -> int:  # noqa: ARG002
        """See `Policy`."""
        return int(self.random.choice(open_))


class RoundRobin(_Deaf):
    """Each proxy goes round, from a place of its own."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.turns: dict[int, int] = {}

    def choose(self, request: Request, open_: Sequence[str], *, now: float) -> int:  # noqa: ARG002
        """See `Policy`."""
        turn = self.turns.get(request.proxy, self.random.randrange(1000))
        self.turns[request.proxy] = turn + 1
        return int(open_[turn % len(open_)])


class RequestCounters(Counters):
    """Counters that count requests, whatever their work and their instance's pace: the paper's, as it prints them."""

    def first_through(self, names: Sequence[str], *, work: int, turn: int) -> str:  # noqa: ARG002
        """Return the instance with the fewest requests."""
        shift = turn % len(names)
        return min([*names[shift:], *names[:shift]], key=lambda name: self.record(name).work)


class Counted:
    """Counters at work: one for all proxies, or one for each.

    Args:
        random: as in `Counters.acquire`; None: the best of all instances.
        make: the counters.
        weigh: from a request to what is counted.
        of: whose counters a proxy uses.
        leased: whether dispatches of a dead proxy end.
    """

    def __init__(
        self,
        random: Random | None,
        *,
        make: Callable[[], Counters] = Counters,
        weigh: Callable[[Request], int] = lambda request: request.work,
        of: Callable[[int], int] = lambda _: 0,
        leased: bool = True,
    ) -> None:
        self.random, self.make, self.weigh, self.of, self.leased = random, make, weigh, of, leased
        self.counters: dict[int, Counters] = {}

    def _of(self, request: Request) -> Counters:
        key = self.of(request.proxy)
        if key not in self.counters:
            self.counters[key] = self.make()
            self.counters[key].tokens = hash(key) % 64
            if not self.leased:
                self.counters[key].lease_ms = 10**9
        return self.counters[key]

    def choose(self, request: Request, open_: Sequence[str], *, now: float) -> int:
        """See `Policy`."""
        work = self.weigh(request)
        found = self._of(request).acquire(open_, work=work, now=int(now * 1000), random=self.random)
        request.token = found.token
        return int(found.instance)

    def end(self, request: Request, *, failed: bool, now: float) -> None:
        """See `Policy`."""
        outcome = "failed" if failed else "done"
        self._of(request).release(request.token, outcome=outcome, now=int(now * 1000))  # type: ignore[arg-type]

    def renew(self, requests: Sequence[Request], *, now: float) -> None:
        """See `Policy`."""
        for request in requests:
            self._of(request).renew([request.token], now=int(now * 1000))


class Polled(_Deaf):
    """Shared queue lengths that every proxy reads twice a second: between two looks all choose the same instance."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.real: dict[str, int] = {}
        self.seen: dict[str, int] = {}
        self.looked = -1.0

    def choose(self, request: Request, open_: Sequence[str], *, now: float) -> int:
        """See `Policy`."""
        if now - self.looked > 0.5:
            self.seen, self.looked = dict(self.real), now
        best = min(open_, key=lambda name: self.seen.get(name, 0))
        self.real[best] = self.real.get(best, 0) + request.work
        return int(best)

    def end(self, request: Request, *, failed: bool, now: float) -> None:  # noqa: ARG002
        """See `Policy`."""
        self.real[str(request.instance)] -= request.work


POLICIES: dict[str, Callable[[Random], Policy | None]] = {
    "round_robin": RoundRobin,
    "random": Drawn,
    "local_least": lambda _: Counted(None, make=RequestCounters, weigh=lambda _: 1, of=lambda proxy: proxy),
    "local_two_choices": lambda random: Counted(random, of=lambda proxy: proxy),
    "polled": Polled,
    "global_requests": lambda _: Counted(None, make=RequestCounters, weigh=lambda _: 1),
    "global_work": lambda _: Counted(None),
    "pull": lambda _: None,
}


@dataclass(slots=True)
class _Instance:
    speed: float
    waiting: deque[Request] = field(default_factory=deque)
    running: list[Request] = field(default_factory=list)
    dead: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A fleet and what it is asked.

    Args:
        speeds: of the instances.
        proxies: requests come through any of them.
        spread: standard deviation of the logarithm of a request's work.
        burst: requests of each half second come within this share of it.
    """

    speeds: tuple[float, ...]
    proxies: int = 16
    spread: float = 0.5
    burst: float = 1.0

    @property
    def capacity(self) -> float:
        """Requests a second in full batches: the theoretical load."""
        return sum(BATCH / (SETUP_S + BATCH * WORK_S / speed) for speed in self.speeds)


def scenarios(instances: int) -> dict[str, Scenario]:
    """Return the scenarios over so many instances (a multiple of four)."""
    same, quarter = (1.0,) * instances, instances // 4
    mixed = (2.0,) * quarter + (1.0,) * (instances - 2 * quarter) + (0.5,) * quarter
    return {
        "homogeneous": Scenario(speeds=same),
        "heterogeneous": Scenario(speeds=mixed),
        "uneven_work": Scenario(speeds=same, spread=1.0),
        "bursty": Scenario(speeds=same, burst=0.3),
        "many_proxies": Scenario(speeds=same, proxies=100 * instances),
    }


Crash = tuple[float, str]
"""When, and what: an "instance" (its requests fail and are dispatched again) or a "proxy" (its requests are lost)."""


def simulate(
    scenario: Scenario,
    policy: Policy | None,
    *,
    load: float,
    requests: int,
    seed: int,
    crash: Crash | None = None,
) -> list[Request]:
    """Return the requests, finished or not.

    Args:
        scenario: the fleet.
        policy: None: pull, the instances take requests from one line.
        load: share of the theoretical load that is offered.
        requests: how many.
        seed: of arrivals and work.
        crash: instance 0, or proxy 0, dies.
    """
    run = _Run(scenario, policy, load=load, requests=requests, seed=seed)
    run.until_done(crash)
    return run.requests


class _Run:
    def __init__(self, scenario: Scenario, policy: Policy | None, *, load: float, requests: int, seed: int) -> None:
        random = Random(seed)
        self.instances = [_Instance(speed=speed) for speed in scenario.speeds]
        self.policy, self.line = policy, deque[Request]()
        self.open_ = [str(number) for number in range(len(self.instances))]
        self.requests: list[Request] = []
        at, rate, mean = 0.0, load * scenario.capacity, math.exp(scenario.spread**2 / 2)
        for _ in range(requests):
            at += random.expovariate(rate)
            slot = math.floor(at * 2) / 2
            arrived = slot + (at - slot) * scenario.burst
            work = max(1, round(MEAN_WORK * math.exp(random.gauss(0, scenario.spread)) / mean))
            self.requests.append(Request(arrived=arrived, work=work, proxy=random.randrange(scenario.proxies)))
        self.tie = count()
        self.events: list[tuple[float, int, str, object]] = []
        for request in self.requests:
            self._later(request.arrived, "arrive", request)
        self.dead_proxies: set[int] = set()
        self.proxies = scenario.proxies

    def _later(self, at: float, what: str, whom: object) -> None:
        heapq.heappush(self.events, (at, next(self.tie), what, whom))

    def until_done(self, crash: Crash | None) -> None:
        if crash is not None:
            self._later(crash[0], "crash", crash[1])
        if self.policy is not None:
            self._later(RENEW_S, "renew", None)
        left = len(self.requests)
        while self.events and left:
            now, _, what, whom = heapq.heappop(self.events)
            if what == "arrive":
                assert isinstance(whom, Request)
                if whom.proxy in self.dead_proxies:
                    whom.proxy = (whom.proxy + 1) % self.proxies
                self._dispatch(whom, now)
            elif what == "done":
                assert isinstance(whom, _Instance)
                left -= self._done(whom, now)
            elif what == "renew":
                self._renew(now)
                self._later(now + RENEW_S, "renew", None)
            elif whom == "instance":
                self._instance_dies(self.instances[0], now)
            else:
                left -= self._proxy_dies(0)

    def _dispatch(self, request: Request, now: float) -> None:
        if self.policy is None:
            self.line.append(request)
            for instance in self.instances:
                if not instance.running and not instance.dead:
                    self._begin(instance, now)
            return
        tried: set[str] = set()
        while True:
            request.instance = self.policy.choose(request, [n for n in self.open_ if n not in tried], now=now)
            instance = self.instances[request.instance]
            if not instance.dead:
                break
            self.policy.end(request, failed=True, now=now)  # the connection is refused; the next one is tried
            tried.add(str(request.instance))
        instance.waiting.append(request)
        if not instance.running:
            self._begin(instance, now)

    def _begin(self, instance: _Instance, now: float) -> None:
        line = self.line if self.policy is None else instance.waiting
        instance.running = [line.popleft() for _ in range(min(BATCH, len(line)))]
        if instance.running:
            work = sum(request.work for request in instance.running)
            self._later(now + SETUP_S + work / MEAN_WORK * WORK_S / instance.speed, "done", instance)

    def _done(self, instance: _Instance, now: float) -> int:
        if instance.dead:
            return 0
        done, instance.running = instance.running, []
        answered = 0
        for request in done:
            if request.proxy in self.dead_proxies:
                continue
            answered += 1
            request.finished = now
            if self.policy is not None:
                self.policy.end(request, failed=False, now=now)
        self._begin(instance, now)
        return answered

    def _renew(self, now: float) -> None:
        assert self.policy is not None
        held = [request for instance in self.instances for request in (*instance.running, *instance.waiting)]
        self.policy.renew([request for request in held if request.proxy not in self.dead_proxies], now=now)

    def _instance_dies(self, instance: _Instance, now: float) -> None:
        instance.dead = True
        lost, instance.running, instance.waiting = [*instance.running, *instance.waiting], [], deque()
        for request in lost:
            if self.policy is not None:
                self.policy.end(request, failed=True, now=now)
            self._dispatch(request, now)

    def _proxy_dies(self, proxy: int) -> int:
        """Its requests are lost: those that wait leave the line as it hangs up, those that run are decoded in vain."""
        self.dead_proxies.add(proxy)
        lost = sum(request.proxy == proxy for instance in self.instances for request in instance.running)
        for instance in self.instances:
            kept = deque(request for request in instance.waiting if request.proxy != proxy)
            lost += len(instance.waiting) - len(kept)
            instance.waiting = kept
        kept = deque(request for request in self.line if request.proxy != proxy)
        lost += len(self.line) - len(kept)
        self.line = kept
        return lost


def in_slo(requests: Sequence[Request], *, begin: float = 0.0, end: float = math.inf) -> float:
    """Return the share, of the requests that arrived in [begin, end), that were finished within `SLO_S`."""
    counted = [request.finished - request.arrived <= SLO_S for request in requests if begin <= request.arrived < end]
    return sum(counted) / len(counted) if counted else math.nan
