"""How fast the live release decodes under load: the batcher beside one user at a time and one big batch.

LEADRE §4.4.2. Seconds are wall clock, what a user waits; CPU milliseconds stand beside them, because other programs on
the machine do not enter those. Needs a live release: `make demo` makes one.

Usage: python benchmarks/bench_live.py [--rate PER_S | --clients N] [--engine KIND] [--threads N] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any, get_args

import numpy as np
import torch

from leadre.decoding.batcher import MicroBatcher
from leadre.decoding.engine import Engine, Score
from leadre.domain.retrieval import Beam
from leadre.errors import ConfigError, Unavailable
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie.live_mask import LiveMask
from leadre.pipelines.decode import Prepared, prepare
from leadre.settings import EngineKind, Settings

Ask = Callable[[int, float], Future[list[Beam]]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--rate", type=float, help="requests a second, at random instants")
    how.add_argument("--clients", type=int, default=32, help="that ask one after another")
    parser.add_argument("--users", type=int, default=256, help="different prompts: users with the newest behaviors")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each way")
    parser.add_argument("--beam-width", type=int, help="default: LEADRE_BEAM_WIDTH")
    parser.add_argument("--engine", choices=get_args(EngineKind), help="default: LEADRE_ENGINE")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, help="of the engine; default: torch's")
    parser.add_argument("--all-ads", action="store_true", help="no filters")
    parser.add_argument("--quick", action="store_true", help="3 seconds for each way")
    parser.add_argument("--json", action="store_true", help="JSON on the last line instead of a table")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    figures = run(arguments)
    if arguments.json:
        print(json.dumps(figures))
    elif "skipped" in figures:
        print(f"skipped: {figures['skipped']}")
    else:
        print_table(figures)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures, or why there are none."""
    try:
        settings = Settings.from_environment()
        kind = arguments.engine or settings.engine
        prepared = prepare(
            settings,
            arguments.users,
            now=datetime.now(UTC),
            kind=kind,
            precision=arguments.precision,
            filtered=not arguments.all_ads,
        )
    except (ConfigError, Unavailable) as error:
        return {"skipped": str(error)}
    load = Load(clients=arguments.clients, per_s=arguments.rate, seconds=3.0 if arguments.quick else arguments.seconds)
    width = arguments.beam_width or settings.beam_width
    ways = measure(prepared, beam_width=width, load=load)
    lengths = sorted(len(prompt) for prompt in prepared.prompts)
    return {
        "release": prepared.release,
        "engine": kind,
        "precision": arguments.precision,
        "threads": torch.get_num_threads(),
        "beam_width": width,
        "filtered": not arguments.all_ads,
        "prompts": len(lengths),
        "prompt_tokens": {"least": lengths[0], "mean": sum(lengths) / len(lengths), "most": lengths[-1]},
        "load": {"clients": load.clients} if load.per_s is None else {"rate_per_s": load.per_s},
        "seconds": load.seconds,
        "ways": {name: asdict(way) for name, way in ways.items()},
    }


def print_table(figures: dict[str, Any]) -> None:
    """Print a row for each way."""
    columns = ("users_per_s", "cpu_ms_per_user", "p50_ms", "p95_ms", "p99_ms", "mean_batch", "padding", "refused")
    print(f"release {figures['release']}, load {figures['load']}, {figures['beam_width']} beams")
    print(f"{'way':<12}" + "".join(f"{column:>17}" for column in columns))
    for name, way in figures["ways"].items():
        print(f"{name:<12}" + "".join(f"{way[column]:>17.2f}" for column in columns))


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


if __name__ == "__main__":
    main()
