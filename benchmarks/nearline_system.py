"""What bench_nearline.py measures on: the chaos harness's small system, a worker of it, and a model of random weights.

LEADRE §4.4.1.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from leadre.decoding.exact.engine import BeamSearchEngine
from leadre.decoding.exact.shared_prefix import SharedPrefixDecoder
from leadre.pipelines import refresh
from leadre.pipelines.drain import LaneWork, drain
from leadre.prompts.vocabulary import Vocabulary
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.store.features.client import FeatureClient
from leadre.store.records.database import connect
from leadre.training.learner.release_folder import VOCABULARY

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # for tests.chaos, which is no part of the package


@contextmanager
def own_system(users: int, batch: int) -> Iterator[Any]:
    """Give a system of its own: servers, a world of so many users, an index, a release with the stub engine."""
    from tests.chaos.world import own_system as system

    with system(seed=1, users=users, batch=batch) as made:
        yield made


@contextmanager
def worker(system: Any) -> Iterator[None]:
    """Run a real worker of the queue `retrieval`; it is warm when the block begins."""
    flags = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-Q", "retrieval", "-l", "ERROR"]
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "workers.app", "worker", "--pool=threads", "-c", "1", *flags],
        env=system.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        queue = RefreshQueue.connect(system.settings.redis_url)
        for _ in range(3):
            queue.mark(system.user_ids)
            wait_until_idle(queue)
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def wait_until_idle(queue: RefreshQueue) -> None:
    """Wait until nobody waits and nobody is claimed."""
    end = time.monotonic() + 300
    while queue.depth() or queue.claimed():
        if time.monotonic() > end:
            raise TimeoutError("users still wait after 300 s")
        time.sleep(0.01)


class Recorded:
    """An engine that notes what it was asked, and how long it took."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.asked: list[tuple[Any, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def generate(self, prompts: Sequence[Sequence[int]], **named: Any) -> Any:
        """Generate."""
        self.asked.append((prompts, named))
        return self.engine.generate(prompts, **named)


def engine_fraction(system: Any, *, users: int, width: int, layers: int, rounds: int) -> dict[str, float]:
    """Return the rate of a drain with a model as a share of the rate of its engine alone, on the same prompts."""
    from toy import toy_model

    load = refresh.engine_of_release
    engines: list[Recorded] = []

    def load_toy(_: Any, folder: Path, *, index: Any) -> Any:
        vocabulary = Vocabulary.from_json(json.loads((folder / VOCABULARY).read_text()))
        model = toy_model(vocabulary.size, positions=4096, width=width, layers=layers)
        decoder = SharedPrefixDecoder(model, vocabulary=vocabulary, score="level")
        engines.append(Recorded(BeamSearchEngine(decoder, index=index)))
        return engines[-1]

    refresh.engine_of_release = load_toy  # type: ignore[assignment]
    queue = RefreshQueue.connect(system.settings.redis_url)
    database = connect(system.settings.database_url)
    features = FeatureClient(system.settings.feature_repo, system.settings.feast_environment())
    retriever = refresh.LiveRetriever(system.settings, database=database, features=features)

    def make(user_ids: Sequence[int]) -> None:
        retriever.refresh(user_ids, now=datetime.now(UTC))

    some = system.user_ids[:users]
    whole, alone = [], []
    try:
        for round_ in range(rounds + 1):  # the first warms everything up
            queue.mark(some)
            if engines:
                engines[0].asked.clear()
            began = time.perf_counter()
            drain(
                queue, lanes=[LaneWork(lane="llm", ready=lambda: make, batch=system.settings.refresh_batch)], lease_s=4
            )
            whole_s = time.perf_counter() - began
            asked = list(engines[0].asked)
            began = time.perf_counter()
            for prompts, named in asked:
                engines[0].engine.generate(prompts, **named)
            if round_:
                whole.append(users / whole_s)
                alone.append(users / (time.perf_counter() - began))
    finally:
        refresh.engine_of_release = load
        features.close()
        database.dispose()
    order = sorted(range(rounds), key=lambda at: whole[at] / alone[at])
    middle = order[rounds // 2]
    return {
        "engine_fraction": whole[middle] / alone[middle],
        "model_users_per_s": whole[middle],
        "engine_users_per_s": alone[middle],
    }
