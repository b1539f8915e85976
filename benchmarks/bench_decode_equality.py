"""Are our beams transformers' beams? Over users x beams x prompt lengths, with and without filters.

LEADRE §3.4, Algorithm 2. `python benchmarks/bench_decode_equality.py [--quick] [--json]`. The peer is transformers'
constrained beam search (`generate`, a dict trie as `prefix_allowed_tokens_fn`; under a filter, a dict trie of the live
ads alone), the score is `raw`. The model is a smaller one than in bench_decode.py (2 layers of 64), because the peer
reads a prompt once a beam: 8,192 times 1,024 tokens in the largest cell. It gets few users at once, to fit into memory.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from bench_decode import Bench
from toy import compare
from transformers import logging

from leadre.decoding.exact.engine import BeamSearchEngine
from leadre.decoding.exact.shared_prefix import SharedPrefixDecoder
from leadre.indexing.trie import LiveMask

USERS, BEAMS, PROMPTS = (1, 8, 32), (1, 8, 32, 128, 256), (128, 512, 1024)
QUICK = ((1, 3), (1, 8, 32), (16, 128))
LIVE_SHARE = 0.3
PEER_ROWS = 512  # users x beams that the peer decodes together
ROW = "{:>22} {:>8} {:>12} {:>10} {:>16}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the grid and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="small cells: seconds, not an hour")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--ads", type=int, default=20_000, help="size of the inventory")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    users, beams, prompts = QUICK if options.quick else (USERS, BEAMS, PROMPTS)
    bench = Bench(ads=options.ads, longest=max(prompts), width=64, layers=2, text_vocabulary=1000)
    engine = BeamSearchEngine(
        SharedPrefixDecoder(bench.model, vocabulary=bench.vocabulary, score="raw"), index=bench.index
    )
    live = np.random.default_rng(5).random(len(bench.index)) < LIVE_SHARE
    tries = {1.0: bench.dict_trie(bench.index.codes), LIVE_SHARE: bench.dict_trie(bench.index.codes[live])}
    cells = []
    if not options.json:
        print(ROW.format("users x beams x prompt", "live", "same place", "same set", "score difference"))
    for tokens, width, count in product(prompts, beams, users):
        asked = bench.prompts(count, tokens)
        for share, root in tries.items():
            ours = engine.generate(asked, beam_width=width, filters=[LiveMask.of(live) if share < 1 else None] * count)
            at_once = max(1, PEER_ROWS // width)
            parts = [bench.generate(asked[low : low + at_once], width, root) for low in range(0, count, at_once)]
            codes, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
            same, difference = compare(ours, codes, scores)
            theirs = [{tuple(sid) for sid in user} for user in codes.tolist()]
            sets = [
                len(their & {beam.sid.codes for beam in our}) / width for their, our in zip(theirs, ours, strict=True)
            ]
            cells.append(
                {
                    "users": count,
                    "beams": width,
                    "prompt": tokens,
                    "live": share,
                    "same_beams": same,
                    "same_set": float(np.mean(sets)),
                    "max_abs_score_difference": difference,
                }
            )
            if not options.json:
                cell = f"{count} x {width} x {tokens}"
                print(
                    ROW.format(cell, f"{share:.0%}", f"{same:.4f}", f"{np.mean(sets):.4f}", f"{difference:.1e}"),
                    flush=True,
                )
    if options.json:
        print(json.dumps({"ads": len(bench.index), "cells": cells}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
