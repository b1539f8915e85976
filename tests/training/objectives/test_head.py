"""The training head gives the plain model's log-probabilities, of supervised tokens only."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from leadre.training.objectives.head import IGNORED, attach_head, detach_head

IDS = torch.tensor([[5, 9, 2, 7, 11, 3], [4, 8, 6, 1, 0, 0]])


def labels_at(model: PreTrainedModel, tokens: dict[tuple[int, int], int]) -> tuple[torch.Tensor, torch.Tensor]:
    ids, labels = IDS.clone(), torch.full_like(IDS, IGNORED)
    for place, token in tokens.items():
        ids[place] = labels[place] = token
    return ids, labels


def test_the_vocabulary_head_equals_the_models_softmax(model: PreTrainedModel) -> None:
    ids, labels = labels_at(model, {(0, 2): 20, (0, 5): 31, (1, 3): 7})
    plain = model(input_ids=ids).logits.log_softmax(-1)
    attach_head(model)
    out = model(input_ids=ids, labels=labels, fused_lm_head=True)
    assert out.label_mask.nonzero().tolist() == [[0, 1], [0, 4], [1, 2]]
    expected = torch.stack([plain[0, 1, 20], plain[0, 4, 31], plain[1, 2, 7]])
    torch.testing.assert_close(out.log_probs[out.label_mask], expected)
    assert (out.log_probs[~out.label_mask] == 0).all()


def test_the_level_head_is_the_softmax_over_the_levels_codes(
    model: PreTrainedModel, code_blocks: list[tuple[int, int]]
) -> None:
    (first, count), (second, width) = code_blocks[:2]
    ids, labels = labels_at(model, {(0, 3): first + 2, (1, 2): second + 1})
    logits = model(input_ids=ids).logits
    attach_head(model, blocks=code_blocks)
    out = model(input_ids=ids, labels=labels, fused_lm_head=True)
    expected = torch.stack(
        [
            logits[0, 2, first : first + count].log_softmax(-1)[2],
            logits[1, 1, second : second + width].log_softmax(-1)[1],
        ]
    )
    torch.testing.assert_close(out.log_probs[out.label_mask], expected)
    torch.testing.assert_close(out.loss, -expected.mean())


def test_padding_on_the_right_changes_nothing(model: PreTrainedModel, code_blocks: list[tuple[int, int]]) -> None:
    ids, labels = labels_at(model, {(1, 3): code_blocks[0][0]})
    attach_head(model, blocks=code_blocks)
    with_padding = model(input_ids=ids, labels=labels, attention_mask=(ids != 0).long(), fused_lm_head=True)
    alone = model(input_ids=ids[1:, :4], labels=labels[1:, :4], fused_lm_head=True)
    torch.testing.assert_close(with_padding.log_probs[1:, :3], alone.log_probs)


def test_a_batch_without_supervised_tokens_gives_a_differentiable_zero(model: PreTrainedModel) -> None:
    attach_head(model)
    out = model(input_ids=IDS, labels=torch.full_like(IDS, IGNORED), fused_lm_head=True)
    out.loss.backward()
    assert out.loss.item() == 0.0


def test_without_the_flag_and_after_detaching_the_model_is_itself(model: PreTrainedModel) -> None:
    before = model(input_ids=IDS).logits
    attach_head(model)
    torch.testing.assert_close(model(input_ids=IDS).logits, before)
    detach_head(model)
    assert "forward" not in vars(model)
    torch.testing.assert_close(model(input_ids=IDS).logits, before)
