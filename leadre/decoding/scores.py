"""Named score semantics: what a code's probability is.

LEADRE §3.4: P_LLM(c^l | c^{1:l-1}). `raw` is that over the whole vocabulary, `level` over the level's codes, and
`valid` over the live children of the beam, which the search knows (leadre.decoding.exact.search): here it is
the bare logit.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from leadre.decoding.engine import Score
from leadre.decoding.network.products import linear
from leadre.errors import BrokenModel
from leadre.prompts.vocabulary import Vocabulary

_RAW_ROWS = 128


def level_blocks(vocabulary: Vocabulary) -> tuple[slice, ...]:
    """Return each level's tokens as a slice of the vocabulary."""
    return tuple(
        slice(offset, offset + count)
        for offset, count in zip(vocabulary.level_offsets, vocabulary.code_counts, strict=True)
    )


def code_log_probabilities(logits: Tensor, block: slice, *, score: Score) -> Tensor:
    """Turn next-token logits into log-probabilities of a level's codes ("valid": up to a constant a row).

    Args:
        logits: [rows, vocabulary].
        block: the level's tokens inside the vocabulary.
        score: what to normalise over.

    Returns:
        float32 [rows, codes of the level].
    """
    if score == "raw":
        return torch.log_softmax(logits.float(), dim=-1)[:, block]
    codes = logits[:, block].float()
    return torch.log_softmax(codes, dim=-1) if score == "level" else codes


def head_log_probabilities(hidden: Tensor, head: nn.Linear, block: slice, *, score: Score) -> Tensor:
    """Apply the output head and `code_log_probabilities`, computing no more of the head than the score needs.

    Args:
        hidden: [rows, width], after the final norm.
        head: the output embedding, [vocabulary, width].
        block: the level's tokens inside the vocabulary.
        score: what to normalise over.

    Returns:
        float32 [rows, codes of the level].
    """
    if score == "raw":
        # In parts: logits over a whole vocabulary are the largest tensor of a decode.
        parts = torch.split(hidden, _RAW_ROWS)
        return torch.cat(
            [code_log_probabilities(linear(rows, head.weight, head.bias), block, score=score) for rows in parts]
        )
    bias = None if head.bias is None else head.bias[block]
    codes = linear(hidden, head.weight[block], bias)
    return code_log_probabilities(codes, slice(None), score=score)


def to_host(log_probabilities: Tensor) -> NDArray[np.float32]:
    """Bring log-probabilities to the CPU, where the trie is.

    Raises:
        BrokenModel: one of them is not a number. Without this check such a beam would sort anywhere.
    """
    # The sum is NaN if any term is (no term is +inf): one pass, nothing allocated.
    if torch.isnan(log_probabilities.sum()):
        raise BrokenModel(
            "the model gives NaN for the next code; its weights or its precision are broken: train or convert it again"
        )
    host: NDArray[np.float32] = log_probabilities.cpu().numpy()
    return host
