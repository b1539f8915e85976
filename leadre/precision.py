"""What to multiply in while training. LEADRE §5.1.3 names no precision; bfloat16 is ours."""

from __future__ import annotations

from typing import Literal

import torch


def training_type(precision: Literal["auto", "bf16", "fp32"]) -> torch.dtype:
    """Return what to multiply in: bfloat16 if asked for, or by "auto" on hardware that multiplies it natively."""
    if precision != "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32
