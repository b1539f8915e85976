"""Where the device engine's time goes: reading and steps, kinds of kernels, product by product, and near ties.

LEADRE §3.4, §4.4.2. `python benchmarks/profile_decode_gpu.py --model qwen3-1.7b --ads 10000000 --json`; to be read
before anything of leadre.decoding.device is made faster. Model, index and cells are those of bench_decode_gpu.py.
Without a GPU it says so; `--quick` then runs a tiny model on the CPU, which shows that the script works and nothing
else.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from bench_decode_gpu import CELLS, DICT_TOKENS, MODELS, QUICK_CELLS, Bench
from torch import nn
from torch.profiler import ProfilerActivity, profile
from toy import cell_of, compare

from leadre.decoding.device.engine import DeviceEngine
from leadre.decoding.device.forward import DevicePass, PassShape, _Beams
from leadre.decoding.device.fp8 import CAPABILITY, Fp8Linear
from leadre.domain.retrieval import Beam

KINDS = (  # the first that a kernel's name holds
    ("trie", ("score_children",)),
    ("order", ("sort", "topk", "radix", "gather")),
    ("attention", ("flash", "fmha", "attend", "softmax", "sdpa", "attention")),
    ("product", ("gemm", "gemv", "cutlass", "nvjet", "xmma", "splitk", "addmm", "::mm", "scaled_mm", "bmm")),
    ("fused layer", ("_add_norm", "_rotate", "_gate", "scaled_rows")),
)
REST = "elementwise and copies"
ROW = "{:>22} {:>9} {:>9} {:>9} {:>9} {:>9}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Profile the cells and print tables, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a tiny model, on the CPU without a GPU")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--model", choices=["qwen3-0.6b", "qwen3-1.7b"], default="qwen3-1.7b")
    parser.add_argument("--ads", type=int, help="size of the inventory (1,000,000)")
    parser.add_argument("--cell", "--cells", type=cell_of, nargs="+", action="extend", help="users x beams x prompt")
    options = parser.parse_args(arguments)
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    if name is None and not options.quick:
        print(json.dumps({"device": None, "cells": []}) if options.json else "no CUDA device: nothing profiled")
        return 0
    size = "tiny" if options.quick else options.model
    ads = options.ads or (3_000 if options.quick else 1_000_000)
    bench = Bench(size, ads=ads, repeat=3 if options.quick else 10, device=torch.device("cuda" if name else "cpu"))
    found = [of_cell(bench, *cell) for cell in options.cell or (QUICK_CELLS if options.quick else CELLS)]
    report = {"device": name, "model": size, "ads": ads, "matmul_tflops": bench.matmul_tflops, "cells": found}
    if options.json:
        print(json.dumps(report))
        return 0
    print(f"{name or 'CPU: these times say nothing'}; {size}, {ads} ads; milliseconds of all users together")
    for cell in found:
        print(f"\n{cell['users']} x {cell['beams']} x {cell['prompt']}: {cell['pass_ms']:.2f}")
        print("  read the prompts {read_ms:.2f}, steps {steps_ms:.2f}, in the graph's gaps {gap_ms:.2f}".format(**cell))
        print("  " + ", ".join(f"{kind} {ms:.2f} ({cell['launches'][kind]})" for kind, ms in cell["kinds_ms"].items()))
        print(ROW.format("product", "rows", "bf16 ms", "FP8 ms", "rows of", "TFLOP/s"))
        for product in cell["products"]:
            print(ROW.format(*product.values()))
        print("  near ties: " + ", ".join(f"{key} {value:.4g}" for key, value in cell["ties"].items()))
    return 0


def of_cell(bench: Bench, users: int, beams: int, prompt: int) -> dict[str, Any]:
    """Profile one cell."""
    prompts = np.random.default_rng(users).integers(0, MODELS[bench._size][-1], (users, prompt)).tolist()
    engine = bench._engines["level"]
    assert isinstance(engine, DeviceEngine)
    whole_s, _ = bench._timed(lambda: engine.generate(prompts, beam_width=beams))
    made = DevicePass(
        engine._network,
        blocks=engine._blocks,
        score="level",
        trie=engine._trie,
        masks=engine._masks,
        shape=PassShape(users=users, tokens=prompt, beams=beams),
        prefill_tokens=engine._prefill_tokens,
    )
    made._tokens.copy_(torch.tensor(prompts))
    made._users.copy_(torch.tensor([[prompt] * users, [-1] * users, [engine._trie.root] * users]))
    read_s = _alone(bench, lambda: _Beams(made, made._users[0]).prefill(made._tokens, chunk=made._chunk))
    kinds, launches = _kernels(bench, made._run)
    return {
        "users": users,
        "beams": beams,
        "prompt": prompt,
        "pass_ms": 1e3 * whole_s,
        "read_ms": 1e3 * read_s,
        "steps_ms": 1e3 * (whole_s - read_s),
        "gap_ms": 1e3 * whole_s - sum(kinds.values()),
        "kinds_ms": kinds,
        "launches": launches,
        "products": _products(bench, {"prompt": users * prompt, "beams": users * beams}),
        "ties": _ties(bench, prompts, beams),
    }


@torch.inference_mode()
def _alone(bench: Bench, work: Callable[[], Any]) -> float:
    """Return the seconds of a part of a pass, as a CUDA graph where there is one."""
    if bench._device.type != "cuda":
        return bench._timed(work)[0]
    for _ in range(2):
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return bench._timed(graph.replay)[0]


@torch.inference_mode()
def _kernels(bench: Bench, work: Callable[[], Any]) -> tuple[dict[str, float], dict[str, int]]:
    """Return milliseconds and launches of a run by kind of kernel; on the CPU, of operators."""
    on_gpu = bench._device.type == "cuda"
    work()
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiled:
        work()
        bench._wait()
    spent: dict[str, float] = defaultdict(float)
    launches: dict[str, int] = defaultdict(int)
    for event in profiled.key_averages():
        took_us = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if took_us:
            kind = next((kind for kind, parts in KINDS if any(part in event.key.lower() for part in parts)), REST)
            spent[kind] += 1e-3 * took_us
            launches[kind] += event.count
    return dict(sorted(spent.items(), key=lambda item: -item[1])), dict(launches)


@torch.inference_mode()
def _products(bench: Bench, rows_of: dict[str, int]) -> list[dict[str, Any]]:
    """Time each matrix product of a layer at a pass's numbers of rows: which of them FP8 pays for."""
    fp8 = bench._device.type != "cuda" or torch.cuda.get_device_capability() >= CAPABILITY
    timed = []
    for name, layer in bench._model.get_decoder().layers[0].named_modules():
        if not isinstance(layer, nn.Linear):
            continue
        twin = Fp8Linear(layer) if fp8 else None
        for part, rows in rows_of.items():
            states = torch.randn(rows, layer.in_features, dtype=layer.weight.dtype, device=bench._device)
            plain_s = _alone(bench, lambda layer=layer, states=states: layer(states))  # type: ignore[misc]
            fp8_s = None if twin is None else _alone(bench, lambda twin=twin, states=states: twin(states))  # type: ignore[misc]
            tflops = 2e-12 * rows * layer.in_features * layer.out_features / plain_s
            timed.append(
                {
                    "product": name,
                    "rows": rows,
                    "bf16_ms": round(1e3 * plain_s, 4),
                    "fp8_ms": None if fp8_s is None else round(1e3 * fp8_s, 4),
                    "part": part,
                    "tflops": round(tflops, 3),
                }
            )
    return timed


def _ties(bench: Bench, prompts: list[list[int]], beams: int) -> dict[str, float]:
    """Compare the pass's precision with float32 on the same device: are ads that change places near ties?

    Returns:
        same_place, same_set: shares of ads. noise: standard deviation of the scores' differences over common ads.
        moved_gap: of ads in another place, the median float32 gap between the ad that stands there and the ad that
        should, in units of the noise. transformers_same_place: share of float32 beams that are transformers' own, of
        cells small enough for it.
    """
    model = bench._made().float()
    precise = bench._engine(model, "level")
    ours = bench._engines["level"].generate(prompts, beam_width=beams)
    exact = precise.generate(prompts, beam_width=beams)
    same_place, same_set, differences, gaps = [], [], [], []
    for found, right in zip(ours, exact, strict=True):
        scores = {beam.ad_id: beam.log_probability for beam in right}
        differences += [beam.log_probability - scores[beam.ad_id] for beam in found if beam.ad_id in scores]
        same_set.append(len({beam.ad_id for beam in found} & set(scores)) / max(1, len(right)))
        same_place.append(np.mean([a.ad_id == b.ad_id for a, b in zip(found, right, strict=False)]))
        gaps += _gaps(found, right, scores)
    noise = float(np.std(differences)) if differences else 0.0
    peer = {}
    if beams * sum(map(len, prompts)) <= DICT_TOKENS:
        bench._model, kept = model, bench._model
        sequences, their_scores = bench._transformers(prompts, beams)
        bench._model = kept
        raw = bench._engine(model, "raw").generate(prompts, beam_width=beams)
        peer["transformers_same_place"] = compare(raw, sequences, their_scores)[0]
    return {
        "same_place": float(np.mean(same_place)),
        "same_set": float(np.mean(same_set)),
        "noise": noise,
        "moved_gap": float(np.median(gaps)) / noise if gaps and noise else 0.0,
        **peer,
    }


def _gaps(found: Sequence[Beam], right: Sequence[Beam], scores: dict[int, float]) -> list[float]:
    return [
        abs(scores[theirs.ad_id] - scores[ours.ad_id])
        for ours, theirs in zip(found, right, strict=False)
        if ours.ad_id != theirs.ad_id and ours.ad_id in scores
    ]


if __name__ == "__main__":
    sys.exit(main())
