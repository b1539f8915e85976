from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leadre.decoding.network.attention import Prompts, attend, attend_causal, attend_own, attend_written_out, merge

CPU = torch.device("cpu")


def states(seed: int, *shape: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=generator) for _ in range(3))


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 150), min_size=1, max_size=3),
    rows=st.integers(1, 300),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 99),
)
def test_attending_to_padded_prompts_is_the_formula_written_out(
    lengths: list[int], rows: int, dtype: torch.dtype, seed: int
) -> None:
    prompts = Prompts(lengths, device=CPU)
    keys, values, _ = (t.to(dtype) for t in states(seed, len(lengths), 2, prompts.longest, 8))
    queries = states(seed + 100, len(lengths), 2, rows, 8)[0].to(dtype)

    output, log_sum = attend(queries, keys, values, prompts=prompts, scale=0.3)
    expected = attend_written_out(queries, keys, values, bias=prompts.bias(queries), scale=0.3)

    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    assert torch.allclose(output.float(), expected[0].float(), atol=tolerance)
    assert torch.allclose(log_sum, expected[1], atol=tolerance)


@pytest.mark.parametrize("tokens", [1, 127, 128, 300])
@pytest.mark.parametrize("group", [1, 3])
def test_causal_attention_sees_a_token_and_those_before_it(tokens: int, group: int) -> None:
    keys, values, _ = states(1, 2, 2, tokens, 8)
    queries = states(2, 2, 2 * group, tokens, 8)[0]
    later = torch.full((tokens, tokens), -torch.inf).triu(1)

    output = attend_causal(queries, keys, values, scale=0.3)

    repeated = keys.repeat_interleave(group, dim=1), values.repeat_interleave(group, dim=1)
    assert torch.allclose(output, attend_written_out(queries, *repeated, bias=later, scale=0.3)[0], atol=1e-5)


def test_scores_far_apart_keep_a_finite_log_sum() -> None:
    queries = torch.tensor([[[[100.0, 0.0]]]])
    keys = torch.tensor([[[[50.0, 0.0], [-50.0, 0.0]]]])

    _, log_sum = attend(queries, keys, keys, prompts=Prompts([2], device=CPU), scale=1.0)

    assert log_sum.item() == pytest.approx(5000)


def test_two_parts_merged_are_attention_over_both() -> None:
    keys, values, _ = states(3, 1, 2, 9, 8)
    queries = states(4, 1, 2, 5, 8)[0]
    prefix = attend(queries, keys[:, :, :6], values[:, :, :6], prompts=Prompts([6], device=CPU), scale=0.3)
    own_keys, own_values = (part[:, :, 6:].transpose(1, 2).expand(5, -1, -1, -1) for part in (keys, values))
    rows = queries[0].transpose(0, 1)  # [beams, heads, head width]
    own = attend_own(rows, own_keys, own_values, scale=0.3)

    merged = merge((prefix[0][0].transpose(0, 1), prefix[1][0].transpose(0, 1)), own)

    expected = attend_written_out(queries, keys, values, bias=None, scale=0.3)[0]
    assert torch.allclose(merged, expected[0].transpose(0, 1), atol=1e-5)
