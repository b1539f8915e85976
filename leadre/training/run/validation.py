"""Validation while training: hits of held-out ads decide which weights are kept and when to stop.

LEADRE §5.1.1 (the held-out ad), §5.1.2 (HR and NDCG, over ads); stopping by them is ours. The lists come from the
decoder that serves, under its trie: a loss that still falls is no proof of better lists.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from leadre.evaluation.ranking import hit_ratio, ndcg, ranks_of
from leadre.training.run.average import Average
from leadre.training.run.checkpoint import write_weights
from leadre.training.run.processes import agreed
from leadre.training.run.progress import Curves

CUTOFF = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What a training is validated on.

    Args:
        lists: generates the best ads for each validation user with the model as it stands, int64[n, at least
            `CUTOFF`], padded with `leadre.evaluation.ranking.ABSENT`.
        answers: int64[n], each user's held-out ad.
        patience: passes without a better result after which training stops; 0: it never does.
    """

    lists: Callable[[], NDArray[np.int64]]
    answers: NDArray[np.int64]
    patience: int

    def measure(self) -> tuple[float, float]:
        """Return HR@10 and NDCG@10."""
        ranks = ranks_of(self.answers, self.lists())
        return hit_ratio(ranks, CUTOFF), ndcg(ranks, CUTOFF)


class Validator(TrainerCallback):  # type: ignore[misc]
    """Validates after every pass: higher HR@10 is better, then higher NDCG@10.

    Args:
        validation: what on.
        curves: get what was measured; they are called before this.
        model: the one in training.
        best: file of the best weights so far.
        steps_a_pass: optimizer steps in a pass; the last step ends one too.
        average: validated and kept in place of the weights, where there is one; it is called before this.
    """

    def __init__(
        self,
        validation: Validation,
        *,
        curves: Curves,
        model: PreTrainedModel,
        best: Path,
        steps_a_pass: int,
        average: Average | None = None,
    ) -> None:
        self._validation, self._curves, self._model, self._best = validation, curves, model, best
        self._steps_a_pass, self._average = steps_a_pass, average
        self._measured: tuple[float, float] | None = None

    def on_step_end(self, _: TrainingArguments, state: TrainerState, control: TrainerControl, **__: Any) -> None:
        """Keep the weights if no pass was better; stop if patience is at an end."""
        if state.global_step % self._steps_a_pass and state.global_step < state.max_steps:
            return
        began = time.monotonic()
        with self._average.in_place() if self._average is not None else nullcontext():
            hr, gain = agreed(self._validation.measure())  # rounding differs, and all processes must stop together
            self._measured = round(hr, 6), round(gain, 6)  # as the curve holds it: a tie is no gain
            points = self._curves.points
            results = [(point.hr_10, point.ndcg_10) for point in points if point.hr_10 is not None] + [self._measured]
            since_best = len(results) - 1 - results.index(max(results))
            if since_best == 0:
                write_weights(self._best, self._model)
        self._curves.leave_out(time.monotonic() - began)
        control.should_log = True
        if 0 < self._validation.patience <= since_best:
            control.should_training_stop = True
            control.should_save = False  # going on from here, a killed training would not stop

    def on_log(self, _: TrainingArguments, __: TrainerState, ___: TrainerControl, **____: Any) -> None:
        """Add what was measured to the point of its step."""
        if self._measured is not None:
            hr, gain = self._measured
            self._curves.points[-1] = replace(self._curves.points[-1], hr_10=hr, ndcg_10=gain)
            self._measured = None
