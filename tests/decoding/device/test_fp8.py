"""FP8 projections: the product is that of the scaled numbers, and near the unquantised one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from leadre.decoding.device.fp8 import LARGEST, Fp8Linear, quantise_model, scaled_rows
from leadre.errors import ConfigError


def model_of(width: int) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=50,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.1,
    )
    return Qwen3ForCausalLM(config).eval()


class TestScaledRows:
    @settings(max_examples=30, deadline=None)
    @given(seed=st.integers(0, 10**6), rows=st.integers(1, 5), magnitude=st.sampled_from([1e-30, 1e-3, 1.0, 1e4]))
    def test_each_value_comes_back_within_a_sixteenth(self, seed: int, rows: int, magnitude: float) -> None:
        values = torch.randn(rows, 48, generator=torch.Generator().manual_seed(seed)) * magnitude

        scaled, scale = scaled_rows(values)

        assert scaled.dtype == torch.float8_e4m3fn
        assert scale.shape == (rows, 1)
        step = values.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / LARGEST * 2**-9  # of e4m3's smallest numbers
        assert bool(((scaled.float() * scale - values).abs() <= values.abs() / 16 * 1.001 + step).all())

    def test_a_row_of_zeros_stays_zeros(self) -> None:
        scaled, scale = scaled_rows(torch.zeros(2, 16))

        assert torch.equal(scaled.float() * scale, torch.zeros(2, 16))


class TestFp8Linear:
    @pytest.mark.parametrize("bias", [True, False])
    def test_its_product_is_that_of_the_dequantised_numbers(self, bias: bool) -> None:
        torch.manual_seed(1)
        linear = nn.Linear(32, 48, bias=bias)
        states = torch.randn(2, 3, 32)

        product = Fp8Linear(linear)(states)

        rows, scale = scaled_rows(states.reshape(6, 32))
        weight, weight_scale = scaled_rows(linear.weight.detach())
        expected = (rows.float() * scale) @ (weight.float() * weight_scale).T
        expected = expected if linear.bias is None else expected + linear.bias
        torch.testing.assert_close(product, expected.reshape(2, 3, 48), atol=1e-2, rtol=1e-2)

    def test_it_is_near_the_layer(self) -> None:
        torch.manual_seed(2)
        linear = nn.Linear(256, 64)
        states = torch.randn(20, 256)

        product, exact = Fp8Linear(linear)(states), linear(states).detach()

        assert float((product - exact).norm() / exact.norm()) < 0.05

    def test_an_empty_batch_gives_none(self) -> None:
        assert scaled_rows(torch.zeros(0, 16))[0].shape == (0, 16)


class TestQuantiseModel:
    def test_projections_are_replaced_and_nothing_else(self) -> None:
        model = model_of(32)

        quantise_model(model)

        replaced = [name for name, module in model.named_modules() if isinstance(module, Fp8Linear)]
        assert len(replaced) == 2 * 7
        assert all(".layers." in name for name in replaced)
        assert isinstance(model.get_output_embeddings(), nn.Linear)

    def test_the_models_logits_stay_near(self) -> None:
        tokens = torch.arange(12)[None]
        model = model_of(64)
        with torch.inference_mode():
            exact = model(tokens).logits
            quantise_model(model)
            quantised = model(tokens).logits

        assert not torch.equal(quantised, exact)
        assert float((quantised - exact).norm() / exact.norm()) < 0.2

    def test_sizes_that_the_kernels_do_not_take_are_refused_and_nothing_is_replaced(self) -> None:
        model = model_of(24)

        with pytest.raises(ConfigError, match=r"multiples of 16, q_proj has 24 inputs"):
            quantise_model(model)

        assert not any(isinstance(module, Fp8Linear) for module in model.modules())

    def test_a_gpu_without_fp8_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = model_of(32)
        monkeypatch.setattr(type(model), "device", property(lambda _: torch.device("cuda")))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))

        with pytest.raises(ConfigError, match=r"capability 8\.9, this GPU has 8\.0"):
            quantise_model(model)
