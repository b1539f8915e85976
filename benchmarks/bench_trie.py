"""The array trie beside Algorithm 1's nested dictionaries: bytes, build, load, children.

LEADRE §3.3. S-IDs are uniform over 4 levels of 1,024 codes, plus a disambiguation code. The dict trie is measured on at
most 200,000 ads: its bytes and seconds grow with the ads, and 10 million would take 6 GB.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leadre.indexing.trie import LiveMask, Trie
from leadre.indexing.trie_reference import Node, build_trie

LEVELS, CODES, BEAMS, DICT_ADS = 4, 1024, 256, 200_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ads", type=int, default=10_000_000)
    parser.add_argument("--quick", action="store_true", help="1,000,000 ads")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = measure(1_000_000 if arguments.quick else arguments.ads)
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:>22}  {value}")


def measure(ads: int) -> dict[str, Any]:
    """Return the figures by name; times are the best of several runs."""
    codes, sort_s = sorted_codes(ads)
    trie, build_s = timed(lambda: Trie.build(codes), repeat=1)
    held = sum(array.nbytes for array in trie.arrays().values())
    live = np.random.default_rng(1).random(ads) < 0.3
    mask, filter_s = timed(lambda: LiveMask.of(live), repeat=5)
    with tempfile.TemporaryDirectory() as folder:
        for name, array in trie.arrays().items():
            np.save(Path(folder) / f"{name}.npy", array)
        mapped, load_s = timed(lambda: load(Path(folder)), repeat=5)
        children, filtered = children_ms(mapped, None), children_ms(mapped, mask)
    dict_codes = codes[np.sort(np.random.default_rng(2).choice(ads, min(ads, DICT_ADS), replace=False))]
    sids = list(enumerate(dict_codes.tolist()))
    root, dict_build_s = timed(lambda: build_trie(sids), repeat=1)
    dict_children = dict_children_ms(root, dict_codes)
    del root
    tracemalloc.start()
    traced = build_trie(sids)
    dict_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del traced
    return {
        "ads": ads,
        "bytes_per_ad": round(held / ads, 2),
        "sort_s": round(sort_s, 3),
        "build_s": round(build_s, 3),
        "load_ms": round(1000 * load_s, 2),
        "children_ms": children,
        "filtered_children_ms": filtered,
        "filter_build_ms": round(1000 * filter_s, 3),
        "filter_bits_per_ad": round(8 * (mask.words.nbytes + mask.ranks.nbytes) / ads, 2),
        "dict_ads": len(sids),
        "dict_bytes_per_ad": round(dict_bytes / len(sids), 1),
        "dict_build_s": round(dict_build_s, 3),
        "dict_children_ms": dict_children,
    }


def sorted_codes(ads: int) -> tuple[NDArray[np.int32], float]:
    """Return sorted unique S-IDs [ads, LEVELS + 1], and the seconds that sorting their packed form takes."""
    packed = np.random.default_rng(0).integers(0, CODES**LEVELS, ads)
    packed, sort_s = timed(lambda: np.sort(packed), repeat=1)
    codes = np.empty((ads, LEVELS + 1), np.int32)
    for level in range(LEVELS):
        codes[:, level] = packed >> (10 * (LEVELS - 1 - level)) & (CODES - 1)
    codes[:, LEVELS] = np.arange(ads) - np.searchsorted(packed, packed)
    return codes, sort_s


def load(folder: Path) -> Trie:
    """Map the trie's files into memory."""
    return Trie.from_arrays({path.stem: np.asarray(np.load(path, mmap_mode="r")) for path in folder.glob("*.npy")})


def children_ms(trie: Trie, live: LiveMask | None) -> list[float]:
    """Return milliseconds for the children of the root, then of `BEAMS` random nodes at each depth."""
    random, nodes, figures = np.random.default_rng(3), np.zeros(1, np.int64), []
    for depth in range(trie.levels):
        children, seconds = timed(lambda: trie.children(depth, nodes, live=live), repeat=20)  # noqa: B023 - called here
        figures.append(round(1000 * seconds, 3))
        nodes = random.choice(children.node, min(BEAMS, len(children.node)), replace=False)
    return figures


def dict_children_ms(root: Node, codes: NDArray[np.int32]) -> list[float]:
    """Return the same for the dict trie, which gives each beam a sorted list of codes."""
    beams = np.random.default_rng(3).choice(codes, BEAMS).tolist()
    figures = []
    for depth in range(codes.shape[1]):
        nodes = [root.below(beam[:depth]) for beam in beams[: 1 if depth == 0 else None]]
        _, seconds = timed(lambda: [sorted(node.children) for node in nodes if node], repeat=5)  # noqa: B023 - called here
        figures.append(round(1000 * seconds, 3))
    return figures


def timed(call: Callable[[], Any], *, repeat: int) -> tuple[Any, float]:
    """Return the last result and the least seconds."""
    best = float("inf")
    for _ in range(repeat):
        started = time.perf_counter()
        result = call()
        best = min(best, time.perf_counter() - started)
    return result, best


if __name__ == "__main__":
    main()
