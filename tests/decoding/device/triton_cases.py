"""The Triton kernels give what their formulas in torch give.

`test_triton_kernels.py` runs this file in Triton's interpreter, in a process of its own: Triton must be told before it
is first imported. On a GPU machine, `pytest tests/decoding/device/triton_cases.py` compiles and runs them there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from leadre.decoding.device import engine as device_engine
from leadre.decoding.device import fp8, triton_kernels
from leadre.decoding.device import kernels as device_kernels
from leadre.decoding.device import trie as device_trie
from leadre.decoding.device.engine import DeviceEngine
from leadre.decoding.device.fused_layer import FusedLayer
from leadre.decoding.device.trie import DeviceTrie, MaskStack
from leadre.decoding.engine import Score
from leadre.decoding.exact.engine import BeamSearchEngine
from leadre.decoding.exact.shared_prefix import SharedPrefixDecoder
from leadre.decoding.network.layers import Layer
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask, Trie
from leadre.prompts.vocabulary import Vocabulary

DEVICE = torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")


# Every depth of one trie, and few kernels: what a depth is stored as, three times the scores. Codes that no logit is
# asked for give the stored integers their sign bit, as torch sees them, without a kernel of so many codes.
HIDDEN = (33_000, 2**31 - 1, 2**31 - 1, None, 2**31 - 1, None)
CODES = (13, 13, 13, 4, 13, 2)
LOGITS: dict[Score, int] = {"raw": 13, "level": 7, "valid": 16}
"""Codes a step scores: fewer than there are, more, and a power of two; 7 as the engine's case below has them."""


@pytest.mark.parametrize(("score", "logits"), LOGITS.items())
@settings(max_examples=2, deadline=None)
@example(seed=0, ads=1)
@given(seed=st.integers(0, 10**6), ads=st.integers(100, 600))  # at all of these the first depth alone is shallow
def test_the_trie_step_is_the_formula_at_every_depth(score: Score, logits: int, seed: int, ads: int) -> None:
    random = np.random.default_rng(seed)
    sids = np.stack([random.integers(0, codes, ads) for codes in CODES], axis=1)
    for level, code in enumerate(HIDDEN):
        if code is not None:
            sids[random.random(ads) < 0.2, level] = code
            sids[0, level] = code
    trie = Trie.build(np.unique(sids, axis=0))
    arrays = DeviceTrie(trie, device=DEVICE)
    masks = MaskStack(trie.leaves, slots=2, device=DEVICE)
    slots = masks.place([LiveMask.of(random.random(trie.leaves) < share) for share in (0.3, 0.02)])
    nodes = torch.tensor([arrays.root, arrays.root, 0, arrays.root], device=DEVICE)
    slot = torch.tensor([slots[0], -1, -1, slots[1]], device=DEVICE)
    scores = torch.tensor([-0.5, 0.0, -torch.inf, -3.25], dtype=torch.float64, device=DEVICE)

    for depth, level in enumerate(arrays.levels):
        of_codes = torch.from_numpy(random.standard_normal((len(nodes), logits), np.float32)).to(DEVICE)
        given_: dict[str, Any] = {"beam_score": scores, "node": nodes, "slot": slot, "masks": masks, "score": score}

        candidates, children = triton_kernels.score_children(level, of_codes, **given_)

        expected, expected_children = device_trie.score_children(level, of_codes, **given_)
        assert torch.equal(children, expected_children)
        torch.testing.assert_close(candidates, expected, atol=1e-5, rtol=1e-6)
        _, best = device_trie.stable_top(expected, 2 if depth == 0 else 1)
        nodes, scores = (part.gather(1, best).flatten() for part in (expected_children, expected))
        slot = slot.repeat_interleave(best.shape[1])


@pytest.mark.parametrize(
    ("users", "beams", "key_heads", "group", "width", "codes", "precision"),
    [
        (2, 5, 2, 3, 6, 3, torch.float32),
        (2, 5, 2, 3, 6, 3, torch.bfloat16),
        (3, 4, 1, 1, 16, 1, torch.bfloat16),
    ],
)
def test_suffix_attention_is_the_formula(
    users: int, beams: int, key_heads: int, group: int, width: int, codes: int, precision: torch.dtype
) -> None:
    torch.manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape).to(precision).to(DEVICE)

    rows = users * beams
    queries = random(rows, key_heads * group, width)
    prefix = (
        random(users, beams * group, key_heads, width).transpose(1, 2),  # fused attention's layout
        torch.randn(users, key_heads, beams * group + 5).to(DEVICE)[..., : beams * group],
    )
    given_: dict[str, Any] = {
        "keys": random(2 * rows, key_heads, width),
        "values": random(2 * rows, key_heads, width),
        "ancestors": torch.randint(2 * rows, (rows, codes)).to(DEVICE),
        "prefix": prefix,
        "scale": width**-0.5,
    }

    attended = triton_kernels.attend_suffix(queries, **given_)

    expected = device_kernels.attend_suffix(queries, **given_)
    tolerance = 1e-5 if precision == torch.float32 else 3e-2
    torch.testing.assert_close(attended, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_rows_in_fp8_are_the_formula(precision: torch.dtype) -> None:
    torch.manual_seed(4)
    values = (torch.randn(5, 48) * torch.tensor([[1e-20], [1e-3], [1.0], [300.0], [0.0]])).to(precision).to(DEVICE)

    scaled, scale = triton_kernels.scaled_rows(values)

    expected, expected_scale = fp8.scaled_rows(values)
    torch.testing.assert_close(scale, expected_scale)
    compared = torch.ones_like(values, dtype=torch.bool)
    if DEVICE.type == "cpu":  # Triton 3.9's interpreter halves what rounds up to a power of two (2026-11)
        compared = expected.float().abs().log2() % 1 != 0
    assert float(compared.float().mean()) > 0.5
    assert float((scaled.float() == expected.float())[compared].float().mean()) > 0.99  # a GPU's division is not exact


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "hunyuan"])
def test_a_fused_layer_is_the_layer(architecture: str, make_model: Callable[..., PreTrainedModel]) -> None:
    model = make_model(architecture, seed=2, key_heads=4).to(DEVICE)  # one kernel for queries and keys
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.uniform_(0.5, 2)
    raw = model.get_decoder().layers[1]
    fused, plain = FusedLayer(raw), Layer(raw)
    torch.manual_seed(3)
    hidden, attended = torch.randn(2, 7, 24).to(DEVICE), torch.randn(2, 7, 4, 6).to(DEVICE)
    cosine, sine = (torch.randn(1, 7, 1, 6).to(DEVICE) for _ in range(2))

    with torch.inference_mode():
        normed = plain.enter(hidden)
        pairs = [
            (fused.enter(hidden), normed),
            *zip(fused.keys_values(normed, cosine, sine), plain.keys_values(normed, cosine, sine), strict=True),
            (fused.queries(normed, cosine, sine), plain.queries(normed, cosine, sine)),
            (fused.leave(hidden, attended), plain.leave(hidden, attended)),
        ]

    for ours, expected in pairs:
        torch.testing.assert_close(ours, expected, atol=2e-5, rtol=2e-5)


def test_the_engine_with_every_kernel_answers_as_the_beam_engine(
    vocabulary: Vocabulary,
    make_model: Callable[..., PreTrainedModel],
    make_index: Callable[..., AdIndex],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if DEVICE.type == "cpu":
        monkeypatch.setattr(device_kernels, "fused", lambda _: triton_kernels)
        monkeypatch.setattr(device_engine, "_TOKENS", 4)  # the interpreter is slow
    index = make_index(200, seed=4)
    filters = [None, LiveMask.of(np.random.default_rng(0).random(200) < 0.2)]
    prompts = [[1, 2, 3], [4, 5]]
    model = make_model("qwen3", seed=4)
    decoder = SharedPrefixDecoder(model, vocabulary=vocabulary, score="level")
    expected = BeamSearchEngine(decoder, index=index).generate(prompts, beam_width=6, filters=filters)
    engine = DeviceEngine(model.to(DEVICE), index=index, vocabulary=vocabulary, score="level")

    for _ in range(1 if DEVICE.type == "cpu" else 2):  # on a GPU both replay a graph
        answers = engine.generate(prompts, beam_width=6, filters=filters)

        assert [[beam.sid for beam in beams] for beams in answers] == [[b.sid for b in beams] for beams in expected]
