"""Training curves in TensorBoard, MLflow, wandb and others, by transformers' own callbacks. Ours.

Our own curves stay in the release in any case; this is for who watches a training, or compares many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, get_available_reporting_integrations

from leadre.errors import ConfigError
from leadre.training.run.processes import is_main


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporting:
    """Where the curves of one training go.

    Args:
        names: the recipe's `sft.report_to`.
        run: the training's name.
        folder: TensorBoard's files, a folder a stage. The others are told where by their own environment variables
            (`MLFLOW_TRACKING_URI`, `WANDB_PROJECT`, ...).

    Raises:
        ConfigError: the package of one of the names is not installed.
    """

    names: Sequence[str]
    run: str
    folder: Path

    def __post_init__(self) -> None:
        missing = sorted(set(self.names) - set(get_available_reporting_integrations())) if self.names else []
        if missing:
            raise ConfigError(
                f"sft.report_to names {missing[0]!r}, which is not installed: `pip install "
                f"{missing[0].replace('_', '-')}`, or leave it out of the recipe"
            )

    def settings(self, stage: str) -> dict[str, Any]:
        """Return what the trainer's arguments of a stage say."""
        others = [name for name in self.names if name != "tensorboard"]
        return {"report_to": others or "none", "run_name": f"{self.run} {stage}"}

    def callbacks(self, stage: str) -> list[TrainerCallback]:
        """Return what the trainer of a stage calls beside them: TensorBoard's, which writes to `folder`."""
        if "tensorboard" not in self.names or not is_main():
            return []
        from torch.utils.tensorboard import SummaryWriter

        return [TensorBoardCallback(SummaryWriter(log_dir=str(self.folder / stage.replace(" ", ""))))]


def reporting_of(names: Sequence[str], release: Path) -> Reporting:
    """Return where the curves of the training of a release go: `tensorboard/<release>` beside the folder of releases.

    Raises:
        ConfigError: as `Reporting`.
    """
    return Reporting(names=names, run=release.name, folder=release.parent.parent / "tensorboard" / release.name)
