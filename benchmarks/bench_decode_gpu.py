"""Constrained decoding on a GPU: milliseconds a user for models of Qwen3's sizes, and how much of the GPU they use.

LEADRE §3.4, §4.4.2. `python benchmarks/bench_decode_gpu.py --model qwen3-1.7b --ads 10000000 --json`; a cell, `--cell
8x256x1000`, is users x beams x prompt tokens. Weights are random: time does not depend on them. Seconds are wall clock,
from token ids on the host to ads on the host. The floor is the multiply-adds that the `level` score cannot avoid, at
the rate of a matrix product measured in the same run. Published, without a constraint: 17.6 ms for 1 user and 93.2 ms
for 8 (Qwen3-1.7B, 256 beams, context 1,000, H100). Without a GPU it says so; `--quick` then runs a tiny model on the
CPU, which shows that the script works and nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from toy import CODES, LEVELS, cell_of, compare, toy_index
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from leadre.decoding.device import fp8
from leadre.decoding.device import kernels as device_kernels
from leadre.decoding.device.engine import DeviceEngine
from leadre.decoding.device.trie import DeviceTrie, MaskStack, stable_top
from leadre.decoding.engine import Engine, Score
from leadre.decoding.exact.engine import BeamSearchEngine
from leadre.decoding.exact.hf import HfDecoder
from leadre.domain.retrieval import Beam
from leadre.prompts.vocabulary import Vocabulary

# hidden size, MLP width, layers, heads, key heads, head width, text vocabulary: huggingface.co/Qwen/Qwen3-*/config.json
MODELS = {
    "qwen3-0.6b": (1024, 3072, 28, 16, 8, 128, 151_936),
    "qwen3-1.7b": (2048, 6144, 28, 16, 8, 128, 151_936),
    "tiny": (64, 128, 2, 4, 2, 16, 500),
}
CELLS = [(1, 128, 512), (1, 256, 1000), (8, 128, 512), (8, 256, 1000), (32, 32, 512), (32, 256, 1000)]
QUICK_CELLS = [(1, 8, 24), (3, 16, 40)]
PUBLISHED_MS = {("qwen3-1.7b", 1, 256, 1000): 17.6, ("qwen3-1.7b", 8, 256, 1000): 93.2}
DICT_TOKENS, COPIED_TOKENS = 128 * 512, 512 * 1024  # users x beams x prompt up to which the peers are run
ROW = "{:>22} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10} {:>10} {:>9} {:>7} {:>6}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One measurement; seconds are wall clock for all users together, None where something was not run."""

    users: int
    beams: int
    prompt: int
    hf_dict_s: float | None
    hf_prefill_once_s: float | None
    raw_s: float
    level_s: float
    fp8_s: float | None
    floor_s: float
    published_s: float | None
    matmul_fraction: float
    same_beams: float | None
    max_abs_score_difference: float | None
    fp8_same_ads: float | None
    trie_share: float

    def row(self) -> str:
        """Return the cell as a line of the table, in milliseconds a user."""
        seconds = (
            *(self.level_s, self.raw_s, self.fp8_s, self.floor_s, self.published_s),
            *(self.hf_prefill_once_s, self.hf_dict_s),
        )
        times = ["-" if value is None else f"{1e3 * value / self.users:.2f}" for value in seconds]
        same = "-" if self.same_beams is None else f"{self.same_beams:.3f}"
        shape = f"{self.users} x {self.beams} x {self.prompt}"
        return ROW.format(shape, *times, f"{self.matmul_fraction:.1%}", f"{self.trie_share:.1%}", same)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cells and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--quick", action="store_true", help="two small cells of a tiny model, on the CPU without a GPU"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--model", choices=["qwen3-0.6b", "qwen3-1.7b"], default="qwen3-0.6b")
    parser.add_argument("--ads", type=int, help="size of the inventory (1,000,000)")
    parser.add_argument(
        "--cell",
        "--cells",
        type=cell_of,
        nargs="+",
        action="extend",
        help="users x beams x prompt: 1x128x512",
    )
    parser.add_argument("--repeat", type=int, default=10, help="runs, of which the median counts")
    options = parser.parse_args(arguments)
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    if name is None and not options.quick:
        report: dict[str, Any] = {"device": None, "matmul_tflops": None, "cells": []}
        print(json.dumps(report) if options.json else "no CUDA device is here: nothing was measured")
        return 0
    size = "tiny" if options.quick else options.model
    ads = options.ads or (3_000 if options.quick else 1_000_000)
    bench = Bench(
        size, ads=ads, repeat=3 if options.quick else options.repeat, device=torch.device("cuda" if name else "cpu")
    )
    if not options.json:
        where = name or "CPU, no CUDA device is here: these times say nothing"
        print(f"{where}; {size}, {ads} ads, {bench.matmul_tflops:.3g} TFLOP/s; milliseconds a user")
        names = ("users x beams x prompt", "level", "raw", "FP8", "floor", "published", "KV copied", "dict trie")
        print(ROW.format(*names, "matmul", "trie", "same"))
    cells = []
    for users, beams, prompt in options.cell or (QUICK_CELLS if options.quick else CELLS):
        cells.append(bench.measure(users, beams, prompt))
        if not options.json:
            print(cells[-1].row(), flush=True)
    if options.json:
        facts = {"device": name, "model": size, "ads": ads, "matmul_tflops": bench.matmul_tflops}
        print(json.dumps({**facts, "cells": [asdict(cell) for cell in cells]}))
    return 0


class Bench:
    """A model, its FP8 twin and an inventory on one device."""

    def __init__(self, size: str, *, ads: int, repeat: int, device: torch.device) -> None:
        self._size, self._repeat, self._device = size, repeat, device
        self._dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self._index = toy_index(ads)
        self._vocabulary = Vocabulary(text_size=MODELS[size][-1], code_counts=self._index.code_counts)
        self._model, twin = self._made(), self._made()
        self._engines: dict[str, Engine] = {score: self._engine(self._model, score) for score in ("raw", "level")}
        if device.type != "cuda" or torch.cuda.get_device_capability() >= fp8.CAPABILITY:
            fp8.quantise_model(twin)
            self._engines["fp8"] = self._engine(twin, "level")
        self._copied = BeamSearchEngine(
            HfDecoder(self._model, vocabulary=self._vocabulary, score="raw"), index=self._index
        )
        self._dict_trie: dict[int, Any] = {}
        self.matmul_tflops = self._matmul_tflops()

    def measure(self, users: int, beams: int, prompt: int) -> Cell:
        """Measure one cell."""
        prompts = np.random.default_rng(users).integers(0, MODELS[self._size][-1], (users, prompt)).tolist()
        seconds, answers = {}, {}
        for name, engine in self._engines.items():
            seconds[name], answers[name] = self._timed(
                lambda engine=engine: engine.generate(prompts, beam_width=beams)  # type: ignore[misc]
            )
        copied_s = dict_s = same = difference = None
        if users * beams * prompt <= COPIED_TOKENS:
            copied_s, _ = self._timed(lambda: self._copied.generate(prompts, beam_width=beams), repeat=1)
        if users * beams * prompt <= DICT_TOKENS:
            dict_s, (sequences, scores) = self._timed(lambda: self._transformers(prompts, beams), repeat=1)
            same, difference = compare(answers["raw"], sequences, scores)
        floor_s = 2e-12 * self._multiply_adds(users, beams, prompt) / self.matmul_tflops
        published_ms = PUBLISHED_MS.get((self._size, users, beams, prompt))
        return Cell(
            users=users,
            beams=beams,
            prompt=prompt,
            hf_dict_s=dict_s,
            hf_prefill_once_s=copied_s,
            raw_s=seconds["raw"],
            level_s=seconds["level"],
            fp8_s=seconds.get("fp8"),
            floor_s=floor_s,
            published_s=None if published_ms is None else 1e-3 * published_ms,
            matmul_fraction=floor_s / seconds["level"],
            same_beams=same,
            max_abs_score_difference=difference,
            fp8_same_ads=_same_ads(answers["level"], answers["fp8"]) if "fp8" in answers else None,
            trie_share=self._trie_seconds(users, beams) / seconds["level"],
        )

    def _made(self) -> PreTrainedModel:
        width, mlp, layers, heads, key_heads, head_width, _ = MODELS[self._size]
        config = Qwen3Config(
            vocab_size=self._vocabulary.size,
            hidden_size=width,
            intermediate_size=mlp,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=key_heads,
            head_dim=head_width,
            max_position_embeddings=40_960,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
        )
        torch.manual_seed(0)
        with torch.device(self._device):
            model: PreTrainedModel = Qwen3ForCausalLM(config).to(self._dtype).eval()
        return model

    def _engine(self, model: PreTrainedModel, score: Score) -> DeviceEngine:
        return DeviceEngine(model, index=self._index, vocabulary=self._vocabulary, score=score)

    def _timed(self, work: Callable[[], Any], *, repeat: int | None = None) -> tuple[float, Any]:
        """Return the median seconds of several runs, after one that compiles and records, and the last one's result."""
        runs = []
        for _ in range(1 + (repeat or self._repeat)):
            self._wait()
            start = time.perf_counter()
            result = work()
            self._wait()
            runs.append(time.perf_counter() - start)
        return float(np.median(runs[1:])), result

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def _trie_seconds(self, users: int, beams: int) -> float:
        """Measure the trie steps and top-k of one pass alone, as a CUDA graph where there is one."""
        trie = DeviceTrie(self._index.trie, device=self._device)
        masks = MaskStack(trie.leaves, slots=1, device=self._device)
        logits = [
            torch.randn(users * (beams if depth else 1), codes, device=self._device)
            for depth, codes in enumerate(self._index.code_counts)
        ]
        step = device_kernels.score_children(self._device)
        roots = torch.full((users,), trie.root, device=self._device)
        zeros = torch.zeros(users, dtype=torch.float64, device=self._device)

        def descend() -> None:
            node, score = roots, zeros
            for level, gained in zip(trie.levels, logits, strict=True):
                slot = torch.full_like(node, -1)
                candidates, children = step(
                    level, gained[: len(node)], beam_score=score, node=node, slot=slot, masks=masks, score="level"
                )
                candidates = candidates.view(users, -1)
                best, chosen = stable_top(candidates, min(beams, candidates.shape[1]))
                score, node = best.flatten(), children.view(users, -1).gather(1, chosen).flatten()

        if self._device.type != "cuda":
            return self._timed(descend)[0]
        descend()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            descend()
        return self._timed(graph.replay)[0]

    def _transformers(self, prompts: list[list[int]], beams: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Run transformers' own constrained beam search: codes [users, beams, levels] and scores [users, beams]."""
        length, root = len(prompts[0]), self._dict()

        def allowed(_: int, tokens: torch.Tensor) -> list[int]:
            node = root
            for token in tokens[length:].tolist():
                node = node.get(token, {})
            return list(node) or [self._vocabulary.pad_id]

        output = self._model.generate(
            input_ids=torch.tensor(prompts, device=self._device),
            attention_mask=torch.ones(len(prompts), length, dtype=torch.int64, device=self._device),
            num_beams=beams,
            num_return_sequences=beams,
            min_new_tokens=LEVELS + 1,
            max_new_tokens=LEVELS + 1,
            length_penalty=0.0,
            do_sample=False,
            prefix_allowed_tokens_fn=allowed,
            return_dict_in_generate=True,
            output_scores=True,
            pad_token_id=self._vocabulary.pad_id,
        )
        tokens = output.sequences[:, length:].cpu().numpy() - np.array(self._vocabulary.level_offsets)
        scores = output.sequences_scores.float().cpu().numpy().astype(np.float64)
        return tokens.reshape(len(prompts), beams, LEVELS + 1), scores.reshape(len(prompts), beams)

    def _dict(self) -> dict[int, Any]:
        """Return the nested dict of token ids; the first run of a cell, which is not counted, builds it."""
        if not self._dict_trie:
            for tokens in (self._index.codes + np.array(self._vocabulary.level_offsets)).tolist():
                node = self._dict_trie
                for token in tokens:
                    node = node.setdefault(token, {})
        return self._dict_trie

    def _matmul_tflops(self) -> float:
        """Measure the product that dominates a large prefill: the best of several."""
        width, mlp = MODELS[self._size][:2]
        rows = 8192 if self._device.type == "cuda" else 256
        left, right = (torch.randn(n, width, dtype=self._dtype, device=self._device) for n in (rows, 2 * mlp))
        fastest = float("inf")
        for _ in range(8):
            self._wait()
            start = time.perf_counter()
            for _ in range(10):
                torch.nn.functional.linear(left, right)
            self._wait()
            fastest = min(fastest, (time.perf_counter() - start) / 10)
        return 2e-12 * rows * width * 2 * mlp / fastest

    def _multiply_adds(self, users: int, beams: int, prompt: int) -> float:
        """Count what `level` cannot avoid: prefill (its last layer for one query), beams behind it, level heads."""
        width, mlp, layers, heads, key_heads, head_width, _ = MODELS[self._size]
        query, keys = heads * head_width, key_heads * head_width
        per_row = 2 * width * query + 2 * width * keys + 3 * width * mlp
        prefill = (layers - 1) * (prompt * per_row + query * prompt * prompt) + 2 * prompt * width * keys
        steps = LEVELS * beams * layers * (per_row + 2 * query * prompt)
        return float(users * (prefill + steps + CODES * width * (1 + beams * (LEVELS - 1))))


def _same_ads(answers: list[list[Beam]], others: list[list[Beam]]) -> float:
    """Return the share of ads that two answers have in common."""
    ours, theirs = ({(row, b.ad_id) for row, beams in enumerate(a) for b in beams} for a in (answers, others))
    return len(ours & theirs) / len(ours)


if __name__ == "__main__":
    sys.exit(main())
