"""Training curves and progress: what the trainer reports, kept for the release and shown to whoever waits.

LEADRE §5.1.3.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

Progress = Callable[[str, int, int | None], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """Means since the last point of a stage. `seconds` counts from its start; all tokens are counted, prompts' too.

    `hr_10` and `ndcg_10` are of the validation ads, where a pass ended that was validated.
    """

    stage: str
    step: int
    loss: float
    learning_rate: float
    seconds: float
    tokens_per_s: float
    accuracy: float
    hr_10: float | None = None
    ndcg_10: float | None = None

    def plain(self) -> dict[str, Any]:
        """Return the point as JSON values."""
        return asdict(self)


class Curves(TrainerCallback):  # type: ignore[misc]
    """Collects the curve of one stage and reports its steps."""

    def __init__(self, *, stage: str, progress: Progress | None = None) -> None:
        self.stage = stage
        self.points: list[CurvePoint] = []
        self._progress = progress
        self._began = self._reported = time.monotonic()
        self._tokens = 0.0

    def on_train_begin(self, _: TrainingArguments, state: TrainerState, __: TrainerControl, **___: Any) -> None:
        """Start the clock, or go on with it where points are there already."""
        self._reported = time.monotonic()
        self._began = self._reported - (self.points[-1].seconds if self.points else 0.0)
        if self._progress is not None:
            self._progress(f"train: {self.stage}", state.global_step, state.max_steps)

    def on_step_end(self, _: TrainingArguments, state: TrainerState, __: TrainerControl, **___: Any) -> None:
        """Report a step."""
        if self._progress is not None:
            self._progress(f"train: {self.stage}", state.global_step, state.max_steps)

    def leave_out(self, seconds: float) -> None:
        """Do not count time that was not spent on training as the tokens'."""
        self._reported += seconds

    def on_log(
        self,
        _: TrainingArguments,
        state: TrainerState,
        __: TrainerControl,
        logs: dict[str, float] | None = None,
        **___: Any,
    ) -> None:
        """Keep what the trainer says of the steps since it last did."""
        if not logs or "loss" not in logs:
            return
        now, tokens = time.monotonic(), float(logs.get("num_tokens", 0.0))
        rate = (tokens - self._tokens) / max(now - self._reported, 1e-9)
        self._reported, self._tokens = now, tokens
        self.points.append(
            CurvePoint(
                stage=self.stage,
                step=state.global_step,
                loss=round(float(logs["loss"]), 6),
                learning_rate=float(logs.get("learning_rate", 0.0)),
                seconds=round(now - self._began, 3),
                tokens_per_s=round(rate, 1),
                accuracy=round(float(logs.get("rewards/accuracies", logs.get("mean_token_accuracy", 0.0))), 6),
            )
        )
