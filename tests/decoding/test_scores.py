from __future__ import annotations

import pytest
import torch
from torch import nn

from leadre.decoding.scores import code_log_probabilities, head_log_probabilities, level_blocks, to_host
from leadre.errors import BrokenModel
from leadre.prompts.vocabulary import Vocabulary

LOGITS = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0], [5.0, 0.0, 0.0, 0.0, 5.0]])
BLOCK = slice(1, 4)


def test_raw_is_a_probability_over_the_whole_vocabulary() -> None:
    expected = LOGITS.softmax(-1)[:, BLOCK]

    assert torch.allclose(code_log_probabilities(LOGITS, BLOCK, score="raw").exp(), expected)


def test_level_is_a_probability_over_the_levels_codes() -> None:
    expected = LOGITS[:, BLOCK].softmax(-1)

    assert torch.allclose(code_log_probabilities(LOGITS, BLOCK, score="level").exp(), expected)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("score", ["raw", "level"])
def test_the_heads_slice_gives_what_the_whole_head_gives(score: str, bias: bool) -> None:
    torch.manual_seed(0)
    head, hidden = nn.Linear(6, 11, bias=bias), torch.randn(3, 6)

    sliced = head_log_probabilities(hidden, head, BLOCK, score=score)  # type: ignore[arg-type]

    assert torch.allclose(sliced, code_log_probabilities(head(hidden), BLOCK, score=score), atol=1e-6)  # type: ignore[arg-type]


def test_blocks_are_the_levels_tokens() -> None:
    vocabulary = Vocabulary(text_size=10, code_counts=(4, 3))

    assert level_blocks(vocabulary) == (slice(13, 17), slice(17, 20))


def test_one_nan_is_an_error_and_impossible_codes_are_not() -> None:
    assert to_host(torch.tensor([[-torch.inf, -1.0]])).tolist() == [[-float("inf"), -1.0]]
    with pytest.raises(BrokenModel, match="NaN"):
        to_host(torch.tensor([[-torch.inf, -1.0], [torch.nan, 0.0]]))
