"""Muon beside AdamW: who takes what, how long its steps are, one schedule for both, and what it is worth."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch
from torch import nn

from leadre.errors import ConfigError
from leadre.recipe import ModelRecipe, Recipe
from leadre.training.data.examples import TrainingData
from leadre.training.data.tasks import explicit
from leadre.training.learner.adapters import adapted
from leadre.training.learner.learner import Learner
from leadre.training.objectives.sft import Stage, run_stage
from leadre.training.run.optimizer import MuonWithAdamW, matrices_of


def test_muon_takes_the_layers_matrices_and_adamw_all_else_that_is_trained(learner: Learner) -> None:
    model = learner.model
    gain = model.base_model.norm.weight
    optimizer = MuonWithAdamW(model, rate=0.1, decay=0.3, decayed={"model.embed_tokens.weight"})
    muon, decayed, free = (group["params"] for group in optimizer.param_groups)
    assert {id(each) for each in muon} == {
        id(value) for name, value in model.named_parameters() if name.endswith("_proj.weight")
    }
    assert [id(each) for each in decayed] == [id(model.get_input_embeddings().weight)]
    assert any(each is gain for each in free)
    assert len(muon) + 1 + len(free) == len(list(model.parameters()))
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [
        (0.1, 0.3),
        (0.1, 0.3),
        (0.1, 0),
    ]


def test_of_an_adapted_model_muon_takes_the_adapters(learner: Learner) -> None:
    with adapted(learner.model, ModelRecipe(lora_rank=2), new_tokens=learner.new_tokens, seed=0):
        matrices = matrices_of(learner.model)
        assert matrices
        assert all(2 in matrix.shape for matrix in matrices)


def test_a_model_without_a_linear_layer_that_is_trained_is_refused(learner: Learner) -> None:
    for layer in learner.model.modules():
        if isinstance(layer, nn.Linear):
            layer.requires_grad_(False)
    with pytest.raises(ConfigError, match=r"sft\.optimizer='muon' trains .*set it to 'adamw'"):
        MuonWithAdamW(learner.model, rate=0.1, decay=0.0, decayed=())
    learner.model.requires_grad_(True)


def test_its_steps_are_as_long_as_those_of_adamw_in_every_direction() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(24, 40)
    before = linear.weight.detach().clone()
    optimizer = MuonWithAdamW(linear, rate=0.01, decay=0.0, decayed=())
    linear.weight.grad = torch.randn(40, 24) @ torch.diag(torch.logspace(-3, 0, 24))  # of directions most are rare
    linear.bias.grad = torch.ones(40)
    optimizer.step()
    moved = before - linear.weight.detach()
    assert float(moved.pow(2).mean().sqrt()) == pytest.approx(0.2 * 0.01, rel=0.3)
    values = torch.linalg.svdvals(moved)
    assert float(values.max() / values.min()) < 10.0  # of the gradient's: thousands


def test_a_schedule_moves_both_rates_also_after_a_state_was_loaded() -> None:
    layer = nn.Linear(3, 4)
    optimizer = MuonWithAdamW(layer, rate=0.5, decay=0.1, decayed={"bias"})
    other = MuonWithAdamW(layer, rate=0.5, decay=0.1, decayed={"bias"})
    for each in layer.parameters():
        each.grad = torch.ones_like(each)
    optimizer.step()
    other.load_state_dict(optimizer.state_dict())
    for group in other.param_groups:
        group["lr"] = 0.0
    before = [each.detach().clone() for each in layer.parameters()]
    other.step()
    assert all(torch.equal(old, new) for old, new in zip(before, layer.parameters(), strict=True))
    with pytest.raises(TypeError, match="without a closure"):
        optimizer.step(lambda: 0.0)


def test_training_by_muon_lowers_the_loss_the_same_way_every_time(
    learner: Learner, data: TrainingData, recipe: Recipe, tmp_path: Path
) -> None:
    initial = {name: value.clone() for name, value in learner.model.state_dict().items()}
    runs = []
    for _ in range(2):
        learner.model.load_state_dict(initial)
        points = run_stage(
            learner.model,
            Stage(name="explicit", examples=explicit.examples(data, learner.encoder), epochs=4.0),
            recipe=msgspec.structs.replace(recipe.sft, optimizer="muon"),
            tokenizer=learner.tokenizer,
            code_blocks=learner.code_blocks,
            work=tmp_path,
        )
        runs.append([point.loss for point in points])
    assert runs[0] == runs[1]
    assert runs[0][-1] < 0.8 * runs[0][0]
