"""Constrained decoding against transformers' own: CPU seconds of one thread, on a Qwen2 of random weights.

LEADRE §3.4, §4.4.2. `python benchmarks/bench_decode.py --quick`, `--cell 1x128x512` (users x beams x prompt tokens),
`--json`. The peer is what everybody uses: `generate` with beams and a dict trie as `prefix_allowed_tokens_fn`. CPU time
of a single thread is counted, so that other programs on the machine do not enter. The floor is the multiply-adds that
the `level` score cannot avoid, at the rate of PyTorch's own matrix product, measured in the same run; oneDNN's, which
ours uses, is measured beside it and may be faster, so that ours may lie below that floor.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from toy import CODES, LEVELS, TEXT_VOCABULARY, cell_of, compare, toy_index, toy_model
from transformers import PreTrainedModel

from leadre.decoding.engine import Score
from leadre.decoding.exact.engine import BeamSearchEngine
from leadre.decoding.exact.hf import HfDecoder
from leadre.decoding.exact.search import Decoder, Reading
from leadre.decoding.exact.shared_prefix import SharedPrefixDecoder
from leadre.decoding.network.products import linear
from leadre.domain.retrieval import Beam
from leadre.prompts.vocabulary import Vocabulary

TEXT_TOKENS = 1000  # of them, in prompts
CELLS = [(1, 32, 512), (1, 128, 512), (1, 256, 1024), (8, 32, 512)]
DictTrie = dict[int, Any]
QUICK_CELLS = [(1, 8, 128), (2, 32, 128)]
ROW = "{:>22} {:>9} {:>9} {:>7} {:>7} {:>9} {:>9} {:>7} {:>7} {:>5} {:>6} {:>6} {:>8} {:>8}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One measurement; seconds are CPU seconds of one thread for all users together."""

    users: int
    beams: int
    prompt: int
    hf_dict_s: float | None
    hf_prefill_once_s: float
    raw_s: float
    level_s: float
    raw_bf16_s: float
    level_bf16_s: float
    floor_s: float
    onednn_floor_s: float
    same_beams: float | None
    max_abs_score_difference: float | None
    trie_share: float
    kv_bytes_per_user: int
    kv_bytes_per_user_replicated: int
    peak_bytes: int | None
    hf_prefill_once_peak_bytes: int | None

    def row(self) -> str:
        """Return the cell as a line of the table."""
        return ROW.format(
            f"{self.users} x {self.beams} x {self.prompt}",
            _number(self.hf_dict_s),
            _number(self.hf_prefill_once_s),
            _number(self.raw_s),
            _number(self.level_s),
            _number(self.raw_bf16_s),
            _number(self.level_bf16_s),
            _number(self.floor_s),
            _number(self.onednn_floor_s),
            _number(self.same_beams),
            _number(self.max_abs_score_difference, ".0e"),
            f"{self.trie_share:.1%}",
            _mebibytes(self.peak_bytes),
            _mebibytes(self.hf_prefill_once_peak_bytes),
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cells and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="two small cells and 20,000 ads: seconds, not minutes")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--cell", type=cell_of, action="append", help="users x beams x prompt tokens, for example 1x128x512"
    )
    parser.add_argument("--ads", type=int, help="size of the inventory (1,000,000)")
    parser.add_argument("--repeat", type=int, default=3, help="runs of ours, of which the fastest counts")
    parser.add_argument(
        "--no-peer", action="store_true", help="leave the dict trie out: it takes minutes on large cells"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cells = options.cell or (QUICK_CELLS if options.quick else CELLS)
    ads = options.ads or (20_000 if options.quick else 1_000_000)
    bench = Bench(ads=ads, longest=max(prompt for _, _, prompt in cells))
    measured = []
    if not options.json:
        print(
            f"{ads} ads; GEMM {bench.gemm_gflops:.0f} GFLOP/s, by oneDNN {bench.onednn_gflops:.0f}, "
            f"in bf16 {bench.bf16_gflops:.0f}; CPU seconds, peak MiB"
        )
        heads = ("users x beams x prompt", "dict trie", "KV copied", "raw", "level", "raw bf16", "level bf16")
        print(ROW.format(*heads, "floor", "oneDNN", "same", "diff", "trie", "peak", "copied"))
    for users, beams, prompt in cells:
        cell = bench.measure(users, beams, prompt, repeat=options.repeat, peer=not options.no_peer)
        measured.append(cell)
        if not options.json:
            print(cell.row(), flush=True)
    if options.json:
        rates = {name: getattr(bench, name) for name in ("gemm_gflops", "onednn_gflops", "bf16_gflops")}
        print(json.dumps({**rates, "ads": ads, "cells": [asdict(cell) for cell in measured]}))
    return 0


class Bench:
    """A model, an inventory, and the decoders over them."""

    def __init__(
        self, *, ads: int, longest: int, width: int = 256, layers: int = 4, text_vocabulary: int = TEXT_VOCABULARY
    ) -> None:
        self.index = toy_index(ads)
        self.vocabulary = Vocabulary(text_size=text_vocabulary, code_counts=self.index.code_counts)
        shape = {"width": width, "layers": layers, "positions": longest + LEVELS + 1}
        self.model = toy_model(self.vocabulary.size, **shape)
        self._bf16_model = toy_model(self.vocabulary.size, **shape).to(torch.bfloat16)
        self.gemm_gflops = _gemm_gflops(torch.nn.functional.linear, torch.float32)
        self.onednn_gflops = _gemm_gflops(linear, torch.float32)
        self.bf16_gflops = _gemm_gflops(linear, torch.bfloat16)
        self._dict_trie: DictTrie | None = None

    def measure(self, users: int, beams: int, prompt: int, *, repeat: int, peer: bool) -> Cell:
        """Measure one cell: ours, transformers with one prefill (our `hf`), transformers with the dict trie."""
        prompts = self.prompts(users, prompt)
        bf16 = self._bf16_model
        raw_s, raw = self.ours(SharedPrefixDecoder, self.model, "raw", prompts, beams, repeat=repeat)[:2]
        level_s, _, trie_share = self.ours(SharedPrefixDecoder, self.model, "level", prompts, beams, repeat=repeat)
        once_s = self.ours(HfDecoder, self.model, "raw", prompts, beams, repeat=1)[0]
        dict_s = same = difference = None
        if peer:
            if self._dict_trie is None:
                self._dict_trie = self.dict_trie(self.index.codes)
            start = time.process_time()
            sequences, scores = self.generate(prompts, beams, self._dict_trie)
            dict_s = time.process_time() - start
            same, difference = compare(raw, sequences, scores)
        config = self.model.config
        kv_row = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
        floor_flops = 2 * self._multiply_adds(users, beams, prompt)
        return Cell(
            users=users,
            beams=beams,
            prompt=prompt,
            hf_dict_s=dict_s,
            hf_prefill_once_s=once_s,
            raw_s=raw_s,
            level_s=level_s,
            raw_bf16_s=self.ours(SharedPrefixDecoder, bf16, "raw", prompts, beams, repeat=repeat)[0],
            level_bf16_s=self.ours(SharedPrefixDecoder, bf16, "level", prompts, beams, repeat=repeat)[0],
            floor_s=1e-9 * floor_flops / self.gemm_gflops,
            onednn_floor_s=1e-9 * floor_flops / self.onednn_gflops,
            same_beams=same,
            max_abs_score_difference=difference,
            trie_share=trie_share,
            kv_bytes_per_user=kv_row * prompt,
            kv_bytes_per_user_replicated=kv_row * prompt * beams,
            peak_bytes=self._peak_bytes(SharedPrefixDecoder, prompts, beams),
            hf_prefill_once_peak_bytes=self._peak_bytes(HfDecoder, prompts, beams),
        )

    @staticmethod
    def prompts(users: int, tokens: int) -> list[list[int]]:
        """Return random prompts of one length."""
        return np.random.default_rng(users).integers(0, TEXT_TOKENS, (users, tokens)).tolist()  # type: ignore[no-any-return]

    def _peak_bytes(self, decoder_class: Callable[..., Decoder], prompts: list[list[int]], beams: int) -> int | None:
        """Return how far the process's memory rises above what it holds before; None where Linux is not asked."""
        engine = BeamSearchEngine(
            decoder_class(self.model, vocabulary=self.vocabulary, score="level"), index=self.index
        )
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
        except OSError:
            return None
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed must not hide what is taken
        before = _status_bytes("VmRSS")
        engine.generate(prompts, beam_width=beams)
        return max(0, _status_bytes("VmHWM") - before)

    def ours(
        self,
        decoder_class: Callable[..., Decoder],
        model: PreTrainedModel,
        score: Score,
        prompts: list[list[int]],
        beams: int,
        *,
        repeat: int,
    ) -> tuple[float, list[list[Beam]], float]:
        """Return the fastest run's seconds, its beams, and its share of time outside the LLM."""
        decoder = _Timed(decoder_class(model, vocabulary=self.vocabulary, score=score))
        engine = BeamSearchEngine(decoder, index=self.index)
        runs = []
        for _ in range(repeat):
            decoder.seconds = 0.0
            start = time.process_time()
            answer = engine.generate(prompts, beam_width=beams)
            seconds = time.process_time() - start
            runs.append((seconds, answer, 1 - decoder.seconds / seconds))
        return min(runs, key=lambda run: run[0])

    def dict_trie(self, codes: NDArray[np.int32]) -> DictTrie:
        """Return the nested dict of token ids over S-IDs [ads, levels]."""
        root: DictTrie = {}
        for tokens in (codes + np.array(self.vocabulary.level_offsets)).tolist():
            node = root
            for token in tokens:
                node = node.setdefault(token, {})
        return root

    def generate(
        self, prompts: list[list[int]], beams: int, root: DictTrie
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Run transformers' beam search: codes [users, beams, levels] and scores [users, beams]."""
        length = len(prompts[0])

        def allowed(_: int, tokens: torch.Tensor) -> list[int]:
            node = root
            for token in tokens[length:].tolist():
                node = node[token]
            return list(node)

        output = self.model.generate(
            input_ids=torch.tensor(prompts),
            attention_mask=torch.ones(len(prompts), length, dtype=torch.int64),
            num_beams=beams,
            num_return_sequences=beams,
            min_new_tokens=LEVELS + 1,
            max_new_tokens=LEVELS + 1,
            length_penalty=0.0,
            do_sample=False,
            prefix_allowed_tokens_fn=allowed,
            return_dict_in_generate=True,
            output_scores=True,
            output_logits=beams == 1,  # a single beam is a greedy search there, which gives no scores of sequences
            pad_token_id=self.vocabulary.pad_id,
        )
        tokens = output.sequences[:, length:].numpy() - np.array(self.vocabulary.level_offsets)
        if beams == 1:
            steps = torch.log_softmax(torch.stack(output.logits, dim=1), dim=-1)
            chosen = steps.gather(2, output.sequences[:, length:, None])
            scores = chosen.sum(dim=(1, 2)).numpy().astype(np.float64)
        else:
            scores = output.sequences_scores.numpy().astype(np.float64)
        return tokens.reshape(len(prompts), beams, LEVELS + 1), scores.reshape(len(prompts), beams)

    def _multiply_adds(self, users: int, beams: int, prompt: int) -> float:
        """Count what `level` cannot avoid: prefill (its last layer for one query), beams behind it, level heads."""
        config = self.model.config
        width, layers = config.hidden_size, config.num_hidden_layers
        query = config.num_attention_heads * config.head_dim
        keys = config.num_key_value_heads * config.head_dim
        per_row = 2 * width * query + 2 * width * keys + 3 * width * config.intermediate_size
        prefill = (layers - 1) * (prompt * per_row + query * prompt * prompt) + 2 * prompt * width * keys
        steps = LEVELS * beams * layers * (per_row + 2 * query * prompt)
        heads = CODES * width * (1 + beams * (LEVELS - 1))
        return float(users * (prefill + steps + heads))


class _Timed:
    """A decoder that counts the CPU seconds spent in it."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder, self.seconds = decoder, 0.0
        self.vocabulary_size, self.longest_prompt = decoder.vocabulary_size, decoder.longest_prompt
        self.score = decoder.score

    def read(self, prompts: Sequence[Sequence[int]]) -> Reading:
        return _TimedReading(self, self._time(lambda: self._decoder.read(prompts)))

    def _time(self, work: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = work()
        self.seconds += time.process_time() - start
        return result


class _TimedReading:
    def __init__(self, timed: _Timed, reading: Reading) -> None:
        self._timed, self._reading = timed, reading

    def first(self) -> Any:
        return self._timed._time(self._reading.first)

    def next(self, level: int, parents: Any, codes: Any) -> Any:
        return self._timed._time(lambda: self._reading.next(level, parents, codes))

    def next_two(self, level: int, parents: Any, codes: Any, child_parents: Any, child_codes: Any) -> Any:
        return self._timed._time(lambda: self._reading.next_two(level, parents, codes, child_parents, child_codes))


def _gemm_gflops(product: Callable[..., torch.Tensor], dtype: torch.dtype) -> float:
    """Measure a matrix product of the shape that dominates here: the best of several."""
    left, right = torch.randn(512, 256).to(dtype), torch.randn(1024, 256).to(dtype)
    fastest = float("inf")
    with torch.inference_mode():
        for _ in range(12):
            start = time.process_time()
            for _ in range(20):
                product(left, right)
            fastest = min(fastest, (time.process_time() - start) / 20)
    return 2e-9 * 512 * 256 * 1024 / fastest


def _status_bytes(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def _number(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)


def _mebibytes(value: int | None) -> str:
    return "-" if value is None else f"{value / 2**20:.0f}"


if __name__ == "__main__":
    sys.exit(main())
