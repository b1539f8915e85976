"""How fast the live release decodes under load: the batcher beside one user at a time and one big batch.

LEADRE §4.4.2. Seconds are wall clock, what a user waits; CPU milliseconds stand beside them, because other programs on
the machine do not enter those.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from leadre.decoding.batcher import MicroBatcher
from leadre.decoding.engine import Engine, Score
from leadre.domain.retrieval import Beam
from leadre.errors import Unavailable
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.live_mask import LiveMask
from leadre.pipelines.decode import Prepared

Ask = Callable[[int, float], Future[list[Beam]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How requests come.

    Args:
        clients: so many ask, each again once it is answered (closed loop).
        per_s: None, or requests a second at random instants, whatever is answered (open loop, Poisson).
        seconds: for so long.
        seed: of the instants.
    """

    clients: int = 32
    per_s: float | None = None
    seconds: float = 10.0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One way to decode.

    Args:
        users: answered.
        users_per_s: answered a second of wall clock, from the first request to the last answer.
        cpu_ms_per_user: of all threads of this process.
        p50_ms, p95_ms, p99_ms: from when a request was due until its answer; 0 where nobody asked.
        mean_batch: users a call of the engine.
        padding: share of the tokens fed that are padding, were each call one pass.
        refused: requests that the batcher had no room for.
    """

    users: int
    users_per_s: float
    cpu_ms_per_user: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    mean_batch: float
    padding: float
    refused: int = 0


@dataclass(slots=True)
class _Watched:
    """An engine that notes its batches."""

    engine: Engine
    sizes: list[int] = field(default_factory=list)
    tokens: int = 0
    padded: int = 0

    @property
    def index_version(self) -> str:
        return self.engine.index_version

    @property
    def score(self) -> Score:
        return self.engine.score

    def over(self, index: AdIndex) -> Engine:
        return _Watched(self.engine.over(index))

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        beam_width: int,
        filters: Sequence[LiveMask | None] | None = None,
    ) -> list[list[Beam]]:
        self.sizes.append(len(prompts))
        self.tokens += sum(map(len, prompts))
        self.padded += len(prompts) * max(map(len, prompts))
        return self.engine.generate(prompts, beam_width=beam_width, filters=filters)


@dataclass(slots=True)
class _Watch:
    """The clocks of one measurement; `waited_s` gets one number a user."""

    engine: _Watched
    began: float = field(default_factory=time.perf_counter)
    cpu: float = field(default_factory=time.process_time)
    waited_s: list[float] = field(default_factory=list)
    refused: int = 0

    def measured(self) -> Measured:
        seconds, cpu_s = time.perf_counter() - self.began, time.process_time() - self.cpu
        users = len(self.waited_s)
        p50, p95, p99 = np.percentile(self.waited_s or [0.0], [50, 95, 99]) * 1000
        return Measured(
            users=users,
            users_per_s=users / seconds,
            cpu_ms_per_user=1000 * cpu_s / max(1, users),
            p50_ms=float(p50),
            p95_ms=float(p95),
            p99_ms=float(p99),
            mean_batch=float(np.mean(self.engine.sizes)) if self.engine.sizes else 0.0,
            padding=1 - self.engine.tokens / max(1, self.engine.padded),
            refused=self.refused,
        )


def measure(prepared: Prepared, *, beam_width: int, load: Load) -> dict[str, Measured]:
    """Decode the prepared users three ways, the engine warmed up before.

    Returns:
        "one_by_one": each user by itself, for the load's seconds; "batcher": under the load; "one_batch": all users at
        once, as often as fits the load's seconds. The first is what there is without a batcher, the last its bound.

    Raises:
        InvalidInput: a request outside the engine's contract.
    """
    for size in (1, len(prepared.prompts)):  # warm: the first calls of either size pay for what later ones reuse
        prepared.engine.generate(prepared.prompts[:size], beam_width=beam_width, filters=prepared.masks[:size])
    return {
        "one_by_one": _calls(prepared, 1, beam_width=beam_width, seconds=load.seconds),
        "batcher": _batcher(prepared, beam_width=beam_width, load=load),
        "one_batch": _calls(prepared, len(prepared.prompts), beam_width=beam_width, seconds=load.seconds),
    }


def _calls(prepared: Prepared, size: int, *, beam_width: int, seconds: float) -> Measured:
    """Decode `size` users a call, without anybody waiting."""
    watch = _Watch(_Watched(prepared.engine))
    for first in count(0, size):
        called = time.perf_counter()
        if called - watch.began > seconds:
            break
        start = first % len(prepared.prompts)
        part = slice(start, start + size)
        watch.engine.generate(prepared.prompts[part], beam_width=beam_width, filters=prepared.masks[part])
        watch.waited_s += [time.perf_counter() - called] * len(prepared.prompts[part])
    return watch.measured()


def _batcher(prepared: Prepared, *, beam_width: int, load: Load) -> Measured:
    engine = _Watched(prepared.engine)
    with MicroBatcher(engine, beam_width=beam_width) as batcher:
        watch = _Watch(engine)

        def ask(request: int, due: float) -> Future[list[Beam]]:
            place = request % len(prepared.prompts)
            future = batcher.submit(prepared.prompts[place], mask=prepared.masks[place])
            future.add_done_callback(lambda _: watch.waited_s.append(time.perf_counter() - due))
            return future

        (_closed_loop if load.per_s is None else _open_loop)(ask, watch, load)
    return watch.measured()  # closed: every callback has run


def _closed_loop(ask: Ask, watch: _Watch, load: Load) -> None:
    requests = count()

    def client() -> None:
        while (now := time.perf_counter()) - watch.began < load.seconds:
            ask(next(requests), now).result()

    with ThreadPoolExecutor(load.clients) as pool:
        for asked in [pool.submit(client) for _ in range(load.clients)]:
            asked.result()


def _open_loop(ask: Ask, watch: _Watch, load: Load) -> None:
    random = np.random.default_rng(load.seed)
    asked: list[Future[list[Beam]]] = []
    due = watch.began
    while (due := due + random.exponential(1 / (load.per_s or 1.0))) - watch.began < load.seconds:
        time.sleep(max(0.0, due - time.perf_counter()))
        try:
            asked.append(ask(len(asked) + watch.refused, due))
        except Unavailable:
            watch.refused += 1
    wait(asked)
