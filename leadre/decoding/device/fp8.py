"""Weights and activations in FP8 (e4m3), one scale a row: w8a8 for the projections of a model's layers.

LEADRE §4.4.2 ("FP8 quantization offers a simpler alternative to smooth quantization"). A weight's rows are scaled once,
an activation's rows as they come, so that the largest of each is the largest that e4m3 holds; no calibration, no data.
Embedding, head, norms and attention stay as they are.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from leadre.decoding.device.kernels import fused
from leadre.errors import ConfigError

LARGEST = 448.0  # of e4m3
CAPABILITY = (8, 9)  # Ada and Hopper have FP8 products; row-wise scales are made for Hopper
_MULTIPLE = 16  # of a weight's inputs and outputs, for the kernels
_SMALLEST = 1e-12  # of a row's largest value: a row of zeros stays zeros


class Fp8Linear(nn.Module):
    """A linear layer whose product is of FP8 numbers.

    Args:
        linear: the layer; its inputs and outputs are multiples of 16.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = scaled_rows(linear.weight.detach())
        self.register_buffer("weight", weight)  # e4m3 [outputs, inputs]
        self.register_buffer("scale", scale)  # float32 [outputs, 1]
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, states: Tensor) -> Tensor:
        """Return [..., outputs] for states [..., inputs], in the states' precision (float32 comes back from bf16)."""
        kernels = fused(states.device.type)
        quantise = scaled_rows if kernels is None else kernels.scaled_rows
        rows, scale = quantise(states.reshape(-1, states.shape[-1]))
        weight, weight_scale = cast("Tensor", self.weight), cast("Tensor", self.scale)
        product = torch._scaled_mm(rows, weight.t(), scale_a=scale, scale_b=weight_scale.t(), out_dtype=torch.bfloat16)
        product = product.to(states.dtype)
        if self.bias is not None:
            product = product + cast("Tensor", self.bias)
        return product.reshape(*states.shape[:-1], -1)


def scaled_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return values [rows, n] as e4m3 with a scale a row, float32 [rows, 1]: their product is near the values."""
    scale = values.abs().amax(dim=1, keepdim=True).float().clamp(min=_SMALLEST) / LARGEST
    return (values.float() / scale).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn), scale


def quantise_model(model: PreTrainedModel) -> None:
    """Replace the projections of a model's layers, in place; half their memory from then on.

    Raises:
        ConfigError: the model's GPU has no FP8 products, or a projection's sizes do not fit them.
    """
    if model.device.type == "cuda" and (found := torch.cuda.get_device_capability(model.device)) < CAPABILITY:
        raise ConfigError(
            f"FP8 needs compute capability {CAPABILITY[0]}.{CAPABILITY[1]}, this GPU has {found[0]}.{found[1]}; "
            "use precision bf16"
        )
    places = [
        (parent, name, child)
        for parent in model.get_decoder().layers.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear)
    ]
    for _, name, child in places:
        if child.in_features % _MULTIPLE or child.out_features % _MULTIPLE:
            raise ConfigError(
                f"FP8 needs projections of multiples of {_MULTIPLE}, {name} has {child.in_features} inputs and "
                f"{child.out_features} outputs; use precision bf16"
            )
    for parent, name, child in places:
        setattr(parent, name, Fp8Linear(child))
