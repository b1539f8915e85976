"""The array trie beside Algorithm 1's nested dictionaries and sorted keys: bytes, build, children, filters, new ads.

LEADRE §3.3, §3.4. S-IDs are uniform over 4 levels of 1,024 codes, plus a disambiguation code. The dict trie is measured
on at most 200,000 ads, marisa-trie (where it is installed) on at most 1,000,000. Times are CPU times of one thread, so
that other programs do not enter; those of disks (`load_ms`, `publish_s`) are of the clock on the wall.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import statistics
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from toy import TEXT_VOCABULARY, timed, toy_model

from leadre.decoding.exact.engine import BeamSearchEngine
from leadre.decoding.exact.shared_prefix import SharedPrefixDecoder
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.assign import disambiguate, first_free
from leadre.indexing.grow import grow
from leadre.indexing.quality import index_quality
from leadre.indexing.trie import LiveMask, Trie
from leadre.indexing.trie.reference import Node, build_trie
from leadre.prompts.vocabulary import Vocabulary

LEVELS, CODES, SLOTS, WIDTH = 4, 1024, 8, 8
BEAMS, DICT_ADS, MARISA_ADS = 256, 200_000, 1_000_000
USERS, DECODE_BEAMS, PROMPT, ROUNDS = 4, 128, 512, 9
SHARES = (0.8, 0.5, 0.3, 0.1)  # live ads of the four filters


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ads", type=int, default=10_000_000)
    parser.add_argument("--quick", action="store_true", help="1,000,000 ads")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures = measure(1_000_000 if arguments.quick else arguments.ads)
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:>26}  {value}")


def measure(ads: int) -> dict[str, Any]:
    """Return the figures by name; times are the best of several runs."""
    codes, sort_s = sorted_codes(ads)
    trie, build_s = timed(lambda: Trie.build(codes), repeat=3)
    held = sum(array.nbytes for array in trie.arrays().values())
    live = np.random.default_rng(1).random(ads) < 0.3
    mask, filter_s = timed(lambda: LiveMask.of(live), repeat=9)
    four = [LiveMask.of(np.random.default_rng(seed).random(ads) < 0.7) for seed in range(4)]
    with tempfile.TemporaryDirectory() as folder:
        for name, array in trie.arrays().items():
            np.save(Path(folder) / f"{name}.npy", array)
        mapped, load_s = timed(lambda: load(Path(folder)), repeat=5, clock=time.perf_counter)
        children, filtered = children_ms(mapped, None), children_ms(mapped, mask)
    return {
        "ads": ads,
        "bytes_per_ad": round(held / ads, 2),
        "floor_bytes_per_ad": round(floor_bits(ads) / 8, 2),
        "sort_s": round(sort_s, 3),
        "build_s": round(build_s, 3),
        "load_ms": round(1000 * load_s, 2),
        "children_ms": children,
        "filtered_children_ms": filtered,
        "floor_children_ms": floor_children_ms(trie),
        "sorted_keys_bytes_per_ad": 8,
        "sorted_keys_children_ms": sorted_keys_children_ms(codes),
        **dict_figures(codes),
        **marisa_figures(codes),
        "filter_build_ms": round(1000 * filter_s, 3),
        "filter_bits_per_ad": round(8 * (mask.words.nbytes + mask.ranks.nbytes) / ads, 2),
        "all_of_four_filters_ms": round(1000 * timed(lambda: LiveMask.all_of(four), repeat=9)[1], 3),
        "filtered_decode_ratio": filtered_decode_ratio(codes, trie),
        **addition_figures(codes, trie),
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


def floor_bits(ads: int) -> float:
    """Return the bits an ad that telling apart all sets of so many S-IDs takes: log2(K^M over N) / N."""
    possible = CODES**LEVELS
    nats = math.lgamma(possible + 1) - math.lgamma(ads + 1) - math.lgamma(possible - ads + 1)
    return nats / math.log(2) / ads


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


def floor_children_ms(trie: Trie) -> list[float]:
    """Return milliseconds to copy what an answer holds: three int64 a child, at the rate of a copy of 64 MB."""
    random, nodes, figures = np.random.default_rng(3), np.zeros(1, np.int64), []
    block = np.zeros(8_000_000)
    target = np.empty_like(block)
    _, seconds = timed(lambda: np.copyto(target, block), repeat=9)
    for depth in range(trie.levels):
        children = trie.children(depth, nodes)
        figures.append(round(1000 * seconds * 3 * len(children.node) / len(block), 4))
        nodes = random.choice(children.node, min(BEAMS, len(children.node)), replace=False)
    return figures


def sorted_keys_children_ms(codes: NDArray[np.int32]) -> list[float]:
    """Return the same for S-IDs as sorted int64 keys: binary search for the node, then all keys below it."""
    bits = [10] * LEVELS + [int(codes[:, -1].max()).bit_length() or 1]
    keys = np.zeros(len(codes), np.int64)
    for level, width in enumerate(bits):
        keys = keys << width | codes[:, level]
    random, prefixes, figures = np.random.default_rng(3), np.zeros(1, np.int64), []
    for depth, width in enumerate(bits):
        below = sum(bits[depth:])

        def children() -> NDArray[np.int64]:
            low, high = np.searchsorted(keys, prefixes << below), np.searchsorted(keys, (prefixes + 1) << below)  # noqa: B023
            sizes = high - low
            shift = np.repeat(low - (np.cumsum(sizes) - sizes), sizes)
            found = keys[np.arange(len(shift)) + shift] >> (below - width)  # noqa: B023
            return found[np.append(True, found[1:] != found[:-1])]

        found, seconds = timed(children, repeat=3 if depth < 2 else 20)
        figures.append(round(1000 * seconds, 3))
        prefixes = np.sort(random.choice(found, min(BEAMS, len(found)), replace=False))
    return figures


def dict_figures(codes: NDArray[np.int32]) -> dict[str, Any]:
    """Return bytes, build and children of the dict trie."""
    some = codes[np.sort(np.random.default_rng(2).choice(len(codes), min(len(codes), DICT_ADS), replace=False))]
    sids = list(enumerate(some.tolist()))
    root, build_s = timed(lambda: build_trie(sids), repeat=1)
    children = dict_children_ms(root, some)
    del root
    tracemalloc.start()
    traced = build_trie(sids)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del traced
    return {
        "dict_ads": len(sids),
        "dict_bytes_per_ad": round(held / len(sids), 1),
        "dict_build_s": round(build_s, 3),
        "dict_children_ms": children,
    }


def dict_children_ms(root: Node, codes: NDArray[np.int32]) -> list[float]:
    """Return the same for the dict trie, which gives each beam a sorted list of codes."""
    beams = np.random.default_rng(3).choice(codes, BEAMS).tolist()
    figures = []
    for depth in range(codes.shape[1]):
        nodes = [root.below(beam[:depth]) for beam in beams[: 1 if depth == 0 else None]]
        _, seconds = timed(lambda: [sorted(node.children) for node in nodes if node], repeat=5)  # noqa: B023 - called here
        figures.append(round(1000 * seconds, 3))
    return figures


def marisa_figures(codes: NDArray[np.int32]) -> dict[str, Any]:
    """Return bytes, build and a level-1 look-up of one beam of marisa-trie; nothing where it is not installed."""
    if importlib.util.find_spec("marisa_trie") is None:
        return {"marisa": "skipped: marisa-trie is not installed"}
    import marisa_trie

    some = codes[:: max(1, len(codes) // MARISA_ADS)].astype(">u2")
    keys = [row.tobytes() for row in some]
    trie, build_s = timed(lambda: marisa_trie.BinaryTrie(keys), repeat=1)
    _, seconds = timed(lambda: {key[2:4] for key in trie.keys(keys[0][:2])}, repeat=3)
    return {
        "marisa_ads": len(keys),
        "marisa_bytes_per_ad": round(len(trie.tobytes()) / len(keys), 2),
        "marisa_build_s": round(build_s, 3),
        "marisa_level_1_one_beam_ms": round(1000 * seconds, 3),
    }


def filtered_decode_ratio(codes: NDArray[np.int32], trie: Trie) -> float:
    """Return CPU seconds of a batch of four users under four filters, over those of the batch without: medians."""
    random = np.random.default_rng(4)
    index = bare_index(codes, trie)
    vocabulary = Vocabulary(text_size=TEXT_VOCABULARY, code_counts=index.code_counts)
    model = toy_model(vocabulary.size, positions=PROMPT + LEVELS + 1)
    engine = BeamSearchEngine(SharedPrefixDecoder(model, vocabulary=vocabulary, score="level"), index=index)
    prompts = [random.integers(0, TEXT_VOCABULARY, PROMPT).tolist() for _ in range(USERS)]
    masks = [LiveMask.of(random.random(len(codes)) < share) for share in SHARES]
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(2 * ROUNDS + 2):
        filtered = bool(turn % 2)
        started = time.process_time()
        engine.generate(prompts, beam_width=DECODE_BEAMS, filters=masks if filtered else None)
        if turn > 1:  # the first of each warms up
            seconds[filtered].append(time.process_time() - started)
    return round(statistics.median(seconds[True]) / statistics.median(seconds[False]), 3)


def addition_figures(codes: NDArray[np.int32], trie: Trie) -> dict[str, Any]:
    """Return the seconds until an index with 1 % more ads can be used, from their codes on, and to publish it."""
    random, ads = np.random.default_rng(5), len(codes)
    new = random.integers(0, CODES, (ads // 100, LEVELS), np.int32)
    ad_ids = random.permutation(ads + len(new))
    names = [f"category {number % 50}" for number in range(len(new))]
    vectors = random.normal(size=(len(new), WIDTH)).astype(np.float32)
    quality = index_quality(codes[:, :LEVELS], size=CODES, categories=np.zeros(ads, np.int32))
    with tempfile.TemporaryDirectory() as folder:
        bare_index(codes, trie, ad_ids=ad_ids[:ads], quality=quality).save(Path(folder) / "old")
        index = AdIndex.load(Path(folder) / "old")

        def add() -> AdIndex:
            following = first_free(index.trie, new)
            return grow(
                index,
                ad_ids=ad_ids[ads:],
                codes=disambiguate(new, ad_ids[ads:], following=following, slots=SLOTS),
                first_categories=names,
                second_categories=names,
                advertiser_ids=ad_ids[ads:],
                embeddings=vectors,
            )

        grown, add_s = timed(add, repeat=5)
        added = np.sort(grown.rows(ad_ids[ads:]))
        _, trie_s = timed(lambda: index.trie.with_added(grown.codes[added]), repeat=3)
        _, publish_s = timed(lambda: grown.save(Path(folder) / "new"), repeat=1, clock=time.perf_counter)
        written = sum(path.stat().st_size for path in (Path(folder) / "new").iterdir())
    return {
        "added_ads": len(new),
        "add_1pct_s": round(add_s, 3),
        "add_1pct_trie_s": round(trie_s, 3),
        "publish_s": round(publish_s, 3),
        "published_bytes_per_ad": round(written / len(grown), 1),
    }


def bare_index(
    codes: NDArray[np.int32],
    trie: Trie,
    *,
    ad_ids: NDArray[np.int64] | None = None,
    quality: dict[str, Any] | None = None,
) -> AdIndex:
    """Return an index over codes in order, whose other columns mean nothing."""
    ads = len(codes)
    return AdIndex(
        version="bench",
        ad_ids=np.arange(ads) if ad_ids is None else ad_ids,
        codes=codes,
        first_categories=np.zeros(ads, np.int32),
        second_categories=np.zeros(ads, np.int32),
        category_names=("all",),
        advertiser_ids=np.zeros(ads, np.int64),
        embeddings=np.zeros((ads, WIDTH), np.float32),
        trie=trie,
        code_counts=(CODES,) * LEVELS + (SLOTS,),
        quality=quality or {},
    )


if __name__ == "__main__":
    main()
