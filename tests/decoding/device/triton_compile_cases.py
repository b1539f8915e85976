"""The Triton kernels compile for Hopper, which needs no GPU: as far as a machine without one can take them.

`test_triton_kernels.py` runs this file in a process of its own, where Triton's interpreter is not on.
"""

from __future__ import annotations

from typing import Any

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from leadre.decoding.device import fused_layer, triton_kernels

TRIE = {
    **dict.fromkeys(("begin", "end", "slot", "words", "children"), "*i64"),
    "logits": "*fp32",
    "beam_score": "*fp64",
    "candidates": "*fp64",
    "starts": "*i32",
    "ranks": "*i32",
}
SUFFIX = {
    **dict.fromkeys(("queries", "keys", "values", "prefix", "merged"), "*bf16"),
    "ancestors": "*i64",
    "prefix_log_sum": "*fp32",
    "scale": "fp32",
}
LAYER = {
    **dict.fromkeys(("hidden", "added", "weight", "total", "normed", "heads", "cosine", "sine", "rotated"), "*bf16"),
    "gates": "*bf16",
    "states": "*bf16",
    "gated": "*bf16",
    "epsilon": "fp32",
}
CASES: list[Any] = [
    *(
        (
            triton_kernels._score_children,
            {**TRIE, "packed": packed},
            {"BLOCK": block, "STARTS": starts, "SINGLE": single, "LEVEL": score == "level", "VALID": score == "valid"},
        )
        for packed, starts, single in (("*i16", True, True), ("*i64", False, False), ("*i32", False, True))
        for block, score in ((1024, "level"), (1, "valid"))
    ),
    (
        triton_kernels._attend_suffix,
        SUFFIX,
        {"CODES": 4, "KEY_HEADS": 8, "GROUP": 2, "WIDTH": 128, "GROUP_BLOCK": 2, "WIDTH_BLOCK": 128},
    ),
    (triton_kernels._scaled_rows, {"values": "*bf16", "scaled": "*fp8e4nv", "scale": "*fp32"}, {"BLOCK": 1024}),
    (fused_layer._add_norm, LAYER, {"ADD": True, "BLOCK": 2048}),
    *(
        (
            fused_layer._rotate,
            LAYER,
            {"HEADS": 16, "HALF": 64, "HEADS_BLOCK": 16, "HALF_BLOCK": 64, "BEFORE": before, "AFTER": not before},
        )
        for before in (True, False)
    ),
    (fused_layer._gate, LAYER, {"BLOCK": 1024}),
]


@pytest.mark.parametrize(("kernel", "pointers", "constants"), CASES)
def test_a_kernel_compiles_for_hopper(kernel: Any, pointers: dict[str, str], constants: dict[str, Any]) -> None:
    names = [parameter.name for parameter in kernel.params]
    signature = {name: "constexpr" if name in constants else pointers.get(name, "i32") for name in names}
    source = ASTSource(
        fn=kernel, signature=signature, constexprs={(names.index(name),): value for name, value in constants.items()}
    )

    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))

    assert "sm_90" in compiled.asm["ptx"]
