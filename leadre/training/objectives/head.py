"""The training head: log-probabilities of the supervised tokens alone, over the level's codes or the vocabulary.

LEADRE §3.4, §4.3: the decoder compares the codes of one level, so a model may train on the distribution it serves.

TRL's trainers call `model(..., labels=…, fused_lm_head=True)` and read per-token log-probabilities. Away from GPUs
TRL's own head multiplies every position by the whole vocabulary; responses are a tenth of a prompt's tokens and a
level is a tenth of the vocabulary, so this one does about a hundredth of that work. It gives the same numbers.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel
from trl.trainer.utils import FusedCausalLMOutput

from leadre.training.data.examples import IGNORED
from leadre.training.objectives import attention
from leadre.training.teacher.lesson import Lesson


def attach_head(
    model: PreTrainedModel,
    *,
    blocks: Sequence[tuple[int, int]] = (),
    multiply_in: torch.dtype = torch.float32,
    lesson: Lesson | None = None,
) -> None:
    """Let `model(..., labels=…, fused_lm_head=True)` return per-token log-probabilities.

    Args:
        model: a causal LM with an output embedding; call it with right-padded batches only, for behind a causal
            mask right padding needs no attention mask, and without one attention is faster.
        blocks: (first token id, count) of each level's codes: a token's probability is then over its own block.
            None: over the whole vocabulary.
        multiply_in: autocast to this type. The trainer's own `bf16` will not do: accelerate prepares a model once, and
            from the second stage on it would silently train in float32.
        lesson: what a teacher says; the log-probabilities of the tokens of samples that have a `first_target` are then
            those that `Lesson` makes of them.
    """

    def forward(
        self: PreTrainedModel,
        input_ids: torch.Tensor,
        *,
        fused_lm_head: bool = False,
        labels: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        use_cache: bool = False,
        first_target: torch.Tensor | None = None,
        **rest: Any,
    ) -> Any:
        if not fused_lm_head or labels is None:
            return type(self).forward(
                self, input_ids, labels=labels, attention_mask=attention_mask, use_cache=use_cache, **rest
            )
        targets = labels[:, 1:]
        mask = targets != IGNORED
        with torch.autocast(labels.device.type, dtype=multiply_in, enabled=multiply_in != torch.float32):
            hidden = self.base_model(input_ids=input_ids, use_cache=False).last_hidden_state[:, :-1]
            taught = None
            if lesson is not None and first_target is not None:
                taught = lesson, lesson.rows_at(first_target, mask)
            scored = _scores(hidden[mask], self.get_output_embeddings().weight, targets[mask], blocks, taught)
        log_probs, entropy, mean_logits, is_top1 = (
            value.new_zeros(mask.shape).masked_scatter(mask, value) for value in scored
        )
        return FusedCausalLMOutput(
            loss=-log_probs.sum() / mask.sum().clamp(min=1),
            log_probs=log_probs,
            entropy=entropy,
            mean_logits=mean_logits,
            is_top1=is_top1,
            label_mask=mask,
        )

    model.forward = types.MethodType(forward, model)
    if attention.suits(model):
        model.set_attn_implementation(attention.NAME)


def detach_head(model: PreTrainedModel) -> None:
    """Give the model its own forward and attention back."""
    if model.config._attn_implementation == attention.NAME:
        model.set_attn_implementation("sdpa")
    vars(model).pop("forward", None)


def _scores(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    blocks: Sequence[tuple[int, int]],
    taught: tuple[Lesson, torch.Tensor] | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return [n] log-probabilities of the targets, entropies, mean logits, and whether the target is the likeliest."""
    if not blocks:
        return _block_scores(hidden @ weight.T, targets, first=0, taught=taught)
    log_probs, entropy, mean_logits = (torch.zeros(len(targets), device=hidden.device) for _ in range(3))
    is_top1 = torch.zeros(len(targets), dtype=torch.bool, device=hidden.device)
    for first, count in blocks:
        rows = torch.nonzero((targets >= first) & (targets < first + count)).squeeze(1)
        mine = (taught[0], taught[1][rows]) if taught is not None else None
        logits = hidden[rows] @ weight[first : first + count].T
        block = _block_scores(logits, targets[rows] - first, first=first, taught=mine)
        log_probs, entropy = log_probs.index_copy(0, rows, block[0]), entropy.index_copy(0, rows, block[1])
        mean_logits, is_top1 = mean_logits.index_copy(0, rows, block[2]), is_top1.index_copy(0, rows, block[3])
    return log_probs, entropy, mean_logits, is_top1


def _block_scores(
    logits: torch.Tensor, targets: torch.Tensor, *, first: int, taught: tuple[Lesson, torch.Tensor] | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    logits = logits.float()
    logs = taught[0].log_masses(taught[1], first=first, count=logits.shape[1]) if taught is not None else None
    if taught is not None and logs is not None and taught[0].beside:
        logits = taught[0].beside_logits(logits, logs)
    log_p = logits.log_softmax(dim=-1)
    with torch.no_grad():
        entropy = -(log_p.exp() * log_p).sum(dim=-1)
        mean_logits, is_top1 = logits.mean(dim=-1), logits.argmax(dim=-1) == targets
    if taught is not None and logs is not None and taught[0].weight:
        return taught[0].log_probabilities(log_p, targets, logs), entropy, mean_logits, is_top1
    return log_p.gather(1, targets[:, None]).squeeze(1), entropy, mean_logits, is_top1
