"""Which share of a fleet's theoretical load keeps its promise, by policy: simulated, and with real processes and Redis.

LEADRE §4.4.2: with global counters "over 90% of its theoretical maximum load capacity". `python
benchmarks/bench_balancer.py [--quick] [--json]`. A load is sustained when 99 % of the requests are answered within the
time that two and a half full batches take. Simulated: 8 to 64 instances, five scenarios, eight policies, crashes. Real:
four engine processes and several proxies; then an engine, then a proxy is killed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import real_fleet
import simulated_fleet as sim
from servers import own_servers, print_figures

from leadre.decoding.sent_masks import KeptMasks, SentMasks, digest_of
from leadre.decoding.wire import Answered, Asked, pack_beams, pack_prompts, unpack_beams, unpack_prompts
from leadre.domain.retrieval import Beam
from leadre.domain.semantic_id import SemanticId
from leadre.indexing.trie import LiveMask
from leadre.retrieval.balancer.shared import SharedCounters

IN_SLO = 0.99
CRASHED_SHARE = 0.8
"""Load offered when something dies: seven of eight instances can still carry it."""


def sustained(scenario: sim.Scenario, policy: str, *, requests: int, seeds: Sequence[int]) -> float:
    """Return the largest load, in hundredths of the theoretical one, under which `IN_SLO` of the requests keep it."""
    low, high = 20, 101
    while low < high - 1:
        middle = (low + high) // 2
        shares = [
            sim.in_slo(
                sim.simulate(
                    scenario, sim.POLICIES[policy](Random(seed)), load=middle / 100, requests=requests, seed=seed
                )
            )
            for seed in seeds
        ]
        low, high = (middle, high) if statistics.mean(shares) >= IN_SLO else (low, middle)
    return low / 100


def simulated(sizes: Sequence[int], *, an_instance: Callable[[int], int], seeds: Sequence[int]) -> dict[str, float]:
    """Return the sustained load of each policy in each scenario and size."""
    figures: dict[str, float] = {}
    for size in sizes:
        for name, scenario in sim.scenarios(size).items():
            for policy in sim.POLICIES:
                load = sustained(scenario, policy, requests=an_instance(size) * size, seeds=seeds)
                figures[f"load_{policy}_{name}_{size}"] = load
            print(
                size, name, {p: figures[f"load_{p}_{name}_{size}"] for p in sim.POLICIES}, file=sys.stderr, flush=True
            )
    for policy in sim.POLICIES:
        ours = [load for name, load in figures.items() if name.startswith(f"load_{policy}_")]
        figures[f"least_load_{policy}"] = min(ours)
    return figures


def crashes(sizes: Sequence[int], *, seeds: Sequence[int]) -> dict[str, float]:
    """Return which share of the requests of the 10 s after a death kept their promise; the least of sizes and seeds."""
    figures = {}
    for dies in ("instance", "proxy"):
        for policy in ("round_robin", "random", "local_least", "global_work", "pull"):
            shares = []
            for size in sizes:
                scenario = sim.Scenario(speeds=(1.0,) * size, proxies=4)
                rate = CRASHED_SHARE * scenario.capacity
                for seed in seeds:
                    asked = sim.simulate(
                        scenario,
                        sim.POLICIES[policy](Random(seed)),
                        load=CRASHED_SHARE,
                        requests=int(45 * rate),
                        seed=seed,
                        crash=(20.0, dies),
                    )
                    shares.append(sim.in_slo(asked, begin=20.0, end=30.0))
            figures[f"{dies}_dies_{policy}"] = min(shares)
    return figures


def real(speeds: Sequence[float], *, seconds: float, rounds: int, count: int, kill: Sequence[str]) -> dict[str, float]:
    """Return what real processes do at .9 of the theoretical load, and at .6 when an engine, then a proxy is killed."""
    figures: dict[str, float] = {}
    with own_servers(durable=False) as settings, tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        full = real_fleet.rate_of(speeds)
        ways = {"global": settings.redis_url, "alone": real_fleet.NOWHERE, "round_robin": settings.redis_url}
        shares: dict[str, list[float]] = {way: [] for way in ways}
        with real_fleet.engines(speeds) as (_, urls):
            for number in range(rounds):
                for way, redis_url in ways.items():
                    to = work / f"{way}{number}"
                    started = real_fleet.proxies(
                        count, urls, redis_url=redis_url, policy=way, rate=0.9 * full, seconds=seconds, to=to
                    )
                    for proxy in started:
                        proxy.wait()
                    shares[way].append(_kept(real_fleet.seen(to)))
                    print(way, shares[way], file=sys.stderr, flush=True)
        figures |= {f"real_{way}_in_slo": statistics.median(found) for way, found in shares.items()}
        for dies in kill:
            with real_fleet.engines(speeds) as (processes, urls):
                to = work / dies
                started = real_fleet.proxies(
                    count, urls, redis_url=settings.redis_url, policy="global", rate=0.6 * full, seconds=20, to=to
                )
                while len(real_fleet.seen(to)) < 0.6 * full * 6:
                    time.sleep(0.1)
                at = time.time()
                (processes[0] if dies == "engine" else started[0]).kill()
                for proxy in started:
                    proxy.wait()
                after = [(sent, took) for sent, took in real_fleet.seen(to) if at - real_fleet.SLO_S <= sent < at + 10]
                figures[f"real_{dies}_killed_in_slo"] = _kept([row for row in after if row[0] >= at])
                figures[f"real_{dies}_killed_lost"] = float(sum(took == float("inf") for _, took in after))
        figures |= dispatching(settings.redis_url, instances=(4, 64))
    return figures


def dispatching(redis_url: str, *, instances: Sequence[int], times: int = 2000) -> dict[str, float]:
    """Return how long a dispatch and its release take, over so many instances."""
    figures = {}
    shared = SharedCounters.connect(redis_url)
    for size in instances:
        urls = [f"http://engine-{number}:8030" for number in range(size)]
        took = []
        for _ in range(times):
            begin = time.perf_counter()
            shared.release(shared.acquire(urls, work=100).dispatch.token, outcome="done")
            took.append(time.perf_counter() - begin)
        figures[f"dispatch_and_release_us_{size}"] = statistics.median(took) * 1e6
    return figures


def filters(ads: int) -> dict[str, float]:
    """Return what a filter costs on the wire: first, by name, after one ad was paused, and whole without a base."""
    random = np.random.default_rng(0)
    on, wanted = random.random(ads) < 0.8, random.random(ads // 1000 + 1) < 0.5
    live = on & np.repeat(wanted, 1000)[:ads]  # paused ads anywhere, targeting by advertiser
    first, here, there = LiveMask.of(live), SentMasks(), KeptMasks()
    live[ads // 3] ^= True
    second = LiveMask.of(live)
    figures: dict[str, float] = {"filter_bitmap_bytes": float(first.words.nbytes)}
    for name, mask in (("first", first), ("again", first), ("one_ad_paused", second)):
        begin = time.process_time()
        named = [(digest_of(mask), mask)]
        sent = here.pack(named)
        packed = time.process_time()
        there.unpack(sent, leaves=ads)
        here.arrived(named)
        figures[f"filter_{name}_bytes"] = float(len(msgspec.msgpack.encode(sent)))
        figures[f"filter_{name}_pack_cpu_ms"] = (packed - begin) * 1e3
        figures[f"filter_{name}_unpack_cpu_ms"] = (time.process_time() - packed) * 1e3
    return figures


def wire(prompts: int = 32, tokens: int = 500, beams: int = 20) -> dict[str, float]:
    """Return what a batch's way costs beside its decoding: bytes there and back, CPU time of packing and unpacking."""
    asked = [[number] * tokens for number in range(prompts)]
    answer = [
        [Beam(sid=SemanticId((1, 2, 3, 4, 0)), ad_id=ad, log_probability=-float(ad)) for ad in range(beams)]
        for _ in range(prompts)
    ]
    took = []
    for _ in range(20):
        begin = time.process_time()
        lengths, flat = pack_prompts(asked)
        filters_ = np.full(prompts, -1, "<i4").tobytes()
        there = msgspec.msgpack.encode(Asked("r", "v", 0, 1, beams, lengths, flat, (), filters_))
        unpack_prompts(msgspec.msgpack.decode(there, type=Asked))
        back = msgspec.msgpack.encode(pack_beams(answer))
        unpack_beams(msgspec.msgpack.decode(back, type=Answered))
        took.append(time.process_time() - begin)
    return {
        "batch_bytes_there": float(len(there)),
        "batch_bytes_back": float(len(back)),
        "batch_packing_cpu_ms": statistics.median(took) * 1e3,
    }


def _kept(rows: Sequence[tuple[float, float]]) -> float:
    kept = Counter(took <= real_fleet.SLO_S for _, took in rows)
    return kept[True] / max(1, sum(kept.values()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one size, short runs")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=["simulated", "real", "filters"])
    arguments = parser.parse_args()
    quick, figures = arguments.quick, dict[str, float]()
    if arguments.only in (None, "simulated"):
        sizes, seeds = ((8,), (1,)) if quick else ((8, 16, 32, 64), (1, 2))
        figures |= simulated(sizes, an_instance=lambda size: 150 if quick else 600 if size <= 16 else 300, seeds=seeds)
        figures |= crashes(sizes[:2], seeds=seeds)
    if arguments.only in (None, "filters"):
        figures |= filters(1_000_000 if quick else 10_000_000) | wire()
    if arguments.only in (None, "real"):
        speeds = (1.0, 1.0, 1.0, 0.5)
        dying = ("engine",) if quick else ("engine", "proxy")
        figures |= real(speeds, seconds=5 if quick else 20, rounds=1 if quick else 5, count=3, kill=dying)
    print_figures(figures, as_json=arguments.json)


if __name__ == "__main__":
    main()
