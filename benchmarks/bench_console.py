"""How long the console takes for each page, on a small live world and on an index of a million ads.

A server of its own, asked over HTTP, a page at a time. The world has an untrained model of a few thousand weights: the
two pages that decode say what the console adds, not what an LLM costs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.servers import own_servers, print_figures
from leadre.console.server import create_app
from leadre.domain.ads import Ad
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import Trie
from leadre.pipelines.refresh import refresh_users
from leadre.serving.http.server import serve
from leadre.settings import Settings
from leadre.store.features.command import run_feast
from leadre.store.records import catalog
from leadre.store.records.database import connect, migrate, transaction
from leadre.store.release import records as releases
from tests.live_world import make_live_world

CATEGORIES = 40


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ads", type=int, default=1_000_000, help="of the large index")
    parser.add_argument("--times", type=int, default=200, help="that each page is asked for")
    parser.add_argument("--quick", action="store_true", help="the large index of a million, 20 times each page")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    times = 20 if arguments.quick else arguments.times
    with own_servers(durable=False) as found:
        figures = measure(found, ads=arguments.ads, times=times)
    print_figures(figures, as_json=arguments.json)


def measure(found: Settings, *, ads: int, times: int) -> dict[str, float]:
    """Return median and 95th percentile of every page, in ms; `large_` is over the index of `ads` ads."""
    migrate(found.database_url)
    os.environ.update(found.feast_environment())
    run_feast(found.feature_repo, "apply")
    live = make_live_world(found)
    refresh_users(found, live.user_ids, now=live.world.now)
    user, ad = live.user_ids[0], live.world.ads[0].ad_id
    small = {
        "overview": "/",
        "user": f"/user?id={user}",
        "user_search_llm": f"/user/search?id={user}",
        "user_why_llm": f"/user/ad?id={user}&ad={ad}",
        "ad": f"/ad?id={ad}",
        "index": "/index",
        "queue": "/queue",
        "releases": "/releases",
    }
    figures = {"ads": float(len(live.index))}
    with served(found, now=live.world.now) as port:
        figures |= asked(port, small, times=times)
    shown = make_large(found, ads=ads)
    first = int(shown.codes[0, 0])
    large = {"index": "/index", "prefix": f"/index?prefix={first}", "ad": f"/ad?id={int(shown.ad_ids[ads // 2])}"}
    with served(found, now=live.world.now, model=False) as port:
        cold = {f"large_{name}_first_ms": 1000 * ask(port, path) for name, path in large.items()}
        figures |= {"large_ads": float(ads), **cold}
        while b"lists looked at" not in _body(port, large["ad"]):  # until then the feature store is being opened
            time.sleep(0.1)
        figures |= {f"large_{name}": value for name, value in asked(port, large, times=times).items()}
    return figures


def make_large(found: Settings, *, ads: int) -> AdIndex:
    """Make a made-up index of many ads the one that is shown, and put some of its ads into the catalog."""
    rng = np.random.default_rng(7)
    number = np.arange(ads)
    codes = np.stack([number >> 12, number >> 6 & 63, number & 63], axis=1).astype(np.int32)
    category = ((number >> 12) % CATEGORIES).astype(np.int32)
    index = AdIndex(
        version="large",
        ad_ids=10**9 + rng.permutation(ads).astype(np.int64),
        codes=codes,
        first_categories=category,
        second_categories=category,
        category_names=tuple(f"category {number:02}" for number in range(CATEGORIES)),
        advertiser_ids=np.ones(ads, np.int64),
        embeddings=np.zeros((ads, 1), np.float32),
        trie=Trie.build(codes),
        code_counts=(int(codes[-1, 0]) + 1, 64, 64),
        quality={},
    )
    index.save(found.indexes / "large")
    near = index.ad_ids[ads // 2 - 2_000 : ads // 2 + 2_000].tolist()
    database = connect(found.database_url)
    with transaction(database) as connection:
        catalog.upsert_ads(connection, [_ad(ad_id) for ad_id in near])
        releases.record_index(connection, "large", uri=str(found.indexes / "large"), recipe={}, quality={})
        releases.record_release(
            connection, "large", index_version="large", uri=str(found.releases / "r1"), recipe={}, metrics={}
        )
        releases.promote(connection, "large")
    database.dispose()
    return index


def _ad(ad_id: int) -> Ad:
    return Ad(
        ad_id=ad_id,
        source_id=str(ad_id),
        name=f"ad {ad_id}",
        ad_type="",
        first_category="category",
        second_category="",
        attributes=(),
        advertiser_id=1,
        bid=1.0,
        created_at=datetime(2025, 1, 1, tzinfo=UTC),
    )


@contextmanager
def served(found: Settings, *, now: datetime, model: bool = True) -> Iterator[int]:
    """Serve the console on a free port in a thread, and wait until the live release is in memory."""
    listening = socket.create_server(("127.0.0.1", 0))
    port: int = listening.getsockname()[1]
    held: dict[str, Any] = {}
    ready = threading.Event()

    async def run() -> None:
        held["loop"], held["stop"] = asyncio.get_running_loop(), asyncio.Event()
        app = create_app(found, clock=lambda: now)
        await serve([(app, listening)], announce=ready.set, stop=held["stop"])

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        ready.wait()
        while model and b"<b>in memory</b>" not in _body(port, "/"):
            time.sleep(0.1)
        yield port
    finally:
        held["loop"].call_soon_threadsafe(held["stop"].set)
        thread.join()


def asked(port: int, pages: dict[str, str], *, times: int) -> dict[str, float]:
    """Return the median and the 95th percentile of each page in ms."""
    figures = {}
    for name, path in pages.items():
        ask(port, path)
        taken = [1000 * ask(port, path) for _ in range(times)]
        figures |= {f"{name}_ms": float(np.median(taken)), f"{name}_p95_ms": float(np.percentile(taken, 95))}
    return figures


def ask(port: int, path: str) -> float:
    """Return the seconds that a page takes, in a connection of its own."""
    began = time.perf_counter()
    _body(port, path)
    return time.perf_counter() - began


def _body(port: int, path: str) -> bytes:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise SystemExit(f"{path} answered {response.status}")
    return body


if __name__ == "__main__":
    main()
