"""How the training head reads the teacher: which rows a batch needs, as matrices over the codes that it scores.

Ours. A soft target beside the true code (Hinton, Vinyals & Dean, 2015, arXiv:1503.02531), or the teacher's logarithms
as an offset of the logits (a product of experts; Hinton, 2002): the model then learns what they leave unexplained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from leadre.recipe import SftRecipe
from leadre.training.teacher.rows import TeacherRows


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """The teacher's rows and what becomes of them.

    Args:
        rows: of all targets.
        blocks: (first token id, count) of each level's codes.
        weight: share of the soft targets in the loss.
        beside: weight of the teacher's logarithms in the logits.
    """

    rows: TeacherRows
    blocks: Sequence[tuple[int, int]]
    weight: float
    beside: float

    @classmethod
    def of(cls, rows: TeacherRows, recipe: SftRecipe, *, blocks: Sequence[tuple[int, int]]) -> Lesson:
        """Return what a recipe makes of the teacher."""
        beside = recipe.beside_weight if recipe.objective == "beside_signal" else 0.0
        return cls(rows=rows, blocks=blocks, weight=recipe.distil.weight, beside=beside)

    def rows_at(self, first_target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the teacher's row of each supervised token, int64[tokens]; -1 where it has none.

        Args:
            first_target: int64[samples], `Example.first_target`.
            mask: bool[samples, positions], which are supervised: whole S-IDs, of targets that follow each other.
        """
        first = first_target[:, None] * self.rows.levels
        return torch.where(first >= 0, first + mask.cumsum(dim=1) - 1, -1)[mask]

    def log_masses(self, rows: torch.Tensor, *, first: int, count: int) -> torch.Tensor:
        """Return the teacher's logarithms over the token ids [first, first + count), float32[n, count].

        Codes that do not follow the prefix have minus infinity, and so has all of a row without a teacher.
        """
        known = torch.nonzero(rows >= 0).squeeze(1).cpu()
        asked = rows.cpu()[known].numpy()
        which, code, logs = self.rows.read(asked)
        level = torch.from_numpy(asked % self.rows.levels)
        offset = torch.tensor([begin for begin, _ in self.blocks])[level] - first
        which = torch.from_numpy(which)
        found = torch.full((len(rows), count), -torch.inf)
        found[known[which], torch.from_numpy(code) + offset[which]] = torch.from_numpy(logs)
        return found.to(rows.device)

    def beside_logits(self, logits: torch.Tensor, logs: torch.Tensor) -> torch.Tensor:
        """Return the logits with the teacher's logarithms; to it a code that does not follow is as its least likely one.

        So the LLM learns by itself which codes there are, and where there is but one it learns as without a teacher.
        """
        least = torch.where(logs.isneginf(), torch.inf, logs).amin(dim=1, keepdim=True)
        least = torch.where(least.isinf(), 0.0, least)
        return logits + self.beside * torch.maximum(logs, least)

    def log_probabilities(self, log_p: torch.Tensor, targets: torch.Tensor, logs: torch.Tensor) -> torch.Tensor:
        """Return (1 - weight) log p of the target + weight x the mean of log p under the teacher, float32[n].

        Args:
            log_p: float32[n, codes].
            targets: int64[n], the true codes.
            logs: float32[n, codes], of `log_masses`; where there are none the target counts whole.
        """
        hard = log_p.gather(1, targets[:, None]).squeeze(1)
        soft = (logs.exp() * log_p).sum(dim=1)
        taught = ~logs.isneginf().all(dim=1)
        return torch.where(taught, (1.0 - self.weight) * hard + self.weight * soft, hard)
