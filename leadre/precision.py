"""What to multiply in while training. LEADRE §5.1.3 names no precision; bfloat16 is ours."""

from __future__ import annotations

import time
from functools import cache
from typing import Literal

import torch

_CLEARLY = 0.8
"""bfloat16 is worth its rounding from this share of float32's time on (ours): noise of a clock decides nothing."""


def training_type(precision: Literal["auto", "bf16", "fp32"]) -> torch.dtype:
    """Return what to multiply in: bfloat16 if asked for, or by "auto" on hardware that multiplies it faster."""
    if precision != "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    if torch.cuda.is_available():
        faster = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        faster = torch.cpu._is_amx_tile_supported() or (torch.cpu._is_avx512_bf16_supported() and _is_faster())
    return torch.bfloat16 if faster else torch.float32


@cache
def _is_faster() -> bool:
    """Return whether this CPU multiplies bfloat16 clearly faster than float32, once measured (some 30 ms).

    AVX-512's instructions for bfloat16 alone do not say so: some Xeons take 1.8 times as long with them.
    """
    taken = {dtype: min(_seconds(dtype) for _ in range(3)) for dtype in (torch.bfloat16, torch.float32)}
    return taken[torch.bfloat16] < _CLEARLY * taken[torch.float32]


def _seconds(dtype: torch.dtype) -> float:
    left, right = torch.ones(1024, 512, dtype=dtype), torch.ones(512, 512, dtype=dtype)
    began = time.process_time()  # no other process counts
    left @ right
    return time.process_time() - began
