from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from leadre.decoding.network.products import linear


@pytest.mark.parametrize("shape", [(0, 12), (1, 12), (8, 12), (40, 12), (3, 11, 12)])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_the_product_is_torchs_own(shape: tuple[int, ...], with_bias: bool, transposed: bool) -> None:
    torch.manual_seed(0)
    states, bias = torch.randn(shape), torch.randn(7) if with_bias else None
    weight = torch.randn(12, 7).t() if transposed else torch.randn(7, 12)

    with torch.inference_mode():
        assert torch.allclose(linear(states, weight, bias), functional.linear(states, weight, bias), atol=1e-5)
