"""`[sft] report_to`: the curves elsewhere are the release's own, and what is missing is said before training."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from leadre.errors import ConfigError
from leadre.recipe import Recipe, load_recipe
from leadre.training.data.examples import TrainingData
from leadre.training.data.tasks import explicit
from leadre.training.learner.learner import Learner
from leadre.training.objectives.sft import Stage, run_stage
from leadre.training.run.reporting import Reporting, reporting_of


@pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard", "ignore::DeprecationWarning:google")
def test_tensorboard_shows_the_curve_of_each_stage(
    learner: Learner, data: TrainingData, recipe: Recipe, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sft = msgspec.structs.replace(recipe.sft, report_to=("tensorboard",))
    points = run_stage(
        learner.model,
        Stage(name="explicit", examples=explicit.examples(data, learner.encoder), epochs=2.0),
        recipe=sft,
        tokenizer=learner.tokenizer,
        code_blocks=learner.code_blocks,
        work=tmp_path / "work",
        reporting=reporting_of(sft.report_to, tmp_path / "releases" / "r1"),
    )
    read = EventAccumulator(str(tmp_path / "tensorboard" / "r1" / "explicit"))
    read.Reload()
    shown = read.Scalars("train/loss")
    assert [event.step for event in shown] == [point.step for point in points]
    assert [event.value for event in shown] == pytest.approx([point.loss for point in points], abs=1e-4)


def test_what_is_not_installed_is_named_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sft\.report_to names 'comet_ml'.*pip install comet-ml"):
        Reporting(names=("comet_ml",), run="r1", folder=tmp_path)


def test_a_recipe_names_who_is_told(tmp_path: Path) -> None:
    written = tmp_path / "recipe.toml"
    written.write_text('[sft]\nreport_to = ["tensorboard", "mlflow"]\n')
    assert load_recipe(written).sft.report_to == ("tensorboard", "mlflow")
    written.write_text('[sft]\nreport_to = ["tensorbord"]\n')
    with pytest.raises(ConfigError, match="tensorbord"):
        load_recipe(written)
