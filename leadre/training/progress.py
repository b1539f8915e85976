"""Training curves and progress: what the trainer reports, kept for the release and shown to whoever waits.

LEADRE §5.1.3.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """One report of a stage: means since the last one. `seconds` counts from the stage's start."""

    stage: str
    step: int
    loss: float
    learning_rate: float
    seconds: float
    tokens_per_s: float
    accuracy: float

    def plain(self) -> dict[str, Any]:
        """Return the point as JSON values."""
        return asdict(self)


class Curves(TrainerCallback):  # type: ignore[misc]
    """Collects the curve of one stage, and draws a bar with rate and remaining time if given a console."""

    def __init__(self, *, stage: str, console: Console | None = None) -> None:
        self.stage = stage
        self.points: list[CurvePoint] = []
        self._bar = None if console is None else _bar(console)
        self._began = self._reported = 0.0
        self._tokens = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any
    ) -> None:
        """Start the clock and the bar."""
        self._began = self._reported = time.monotonic()
        if self._bar is not None:
            self._bar.start()
            self._bar.add_task(self.stage, total=state.max_steps, completed=state.global_step, loss="", rate="")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **rest: Any,
    ) -> None:
        """Keep what the trainer reports."""
        if not logs or "loss" not in logs:
            return
        now, tokens = time.monotonic(), float(logs.get("num_tokens", 0.0))
        rate = (tokens - self._tokens) / max(now - self._reported, 1e-9)
        self._reported, self._tokens = now, tokens
        self.points.append(
            CurvePoint(
                stage=self.stage,
                step=state.global_step,
                loss=float(logs["loss"]),
                learning_rate=float(logs.get("learning_rate", 0.0)),
                seconds=round(now - self._began, 3),
                tokens_per_s=round(rate, 1),
                accuracy=float(logs.get("rewards/accuracies", logs.get("mean_token_accuracy", 0.0))),
            )
        )
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], loss=f"loss {logs['loss']:.3f}", rate=f"{rate:,.0f} tokens/s")

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any) -> None:
        """Stop the bar."""
        if self._bar is not None:
            self._bar.stop()


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<18}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
