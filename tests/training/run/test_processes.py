"""Several processes train one model as one process does: two of them, launched as `torchrun` launches them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from leadre.errors import ConfigError
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import Trie
from leadre.prompts.vocabulary import Vocabulary
from leadre.recipe import DistilRecipe, ModelRecipe, SftRecipe
from leadre.training.data.examples import Example
from leadre.training.learner.model import build_model
from leadre.training.learner.tokenizer import model_tokenizer, train_text_tokenizer
from leadre.training.objectives.sft import Stage, device_batch_size, run_stage
from leadre.training.run.processes import agreed, is_main, main_first, process_count, process_number
from leadre.training.teacher.rows import TeacherRows

pytestmark = pytest.mark.slow  # two processes import everything
TIMEOUT_S = 240
SFT = SftRecipe(
    learning_rate=1e-2,
    batch_size=8,
    device_batch_size=8,
    level_loss=True,
    precision="fp32",
    checkpoint_steps=2,
    distil=DistilRecipe(weight=0.6),
    average=0.5,
)


def train_and_tell(folder: Path) -> None:
    """Train a tiny model; leave its weights, and who wrote what."""
    text = train_text_tokenizer(["abcde"], size=300)
    vocabulary = Vocabulary(text_size=text.get_vocab_size(), code_counts=(7, 5))
    sizes = ModelRecipe(hidden_size=16, layers=1, heads=2, feed_forward=24)
    model = build_model(sizes, vocabulary_size=vocabulary.size, positions=40, pad=vocabulary.pad_id, eos=1, seed=3)
    first, second = vocabulary.level_offsets
    examples = [
        Example(
            input_ids=(*range(at % 9 + 1), first + at % 7, second + at % 5),
            supervised=(at % 9 + 1, at % 9 + 2),
            first_target=at,
        )
        for at in range(24)
    ]
    index, made = every_ad(), Path(agreed(str(folder))) / "teacher"
    with main_first():
        seen = made.exists()
        if not seen:
            leaves = index.trie.find(np.array([[at % 7, at % 5] for at in range(24)], np.int32))
            TeacherRows.write(made, leaves, index=index, fill=say_something)
    points = run_stage(
        model,
        Stage(name="main", examples=examples, epochs=2.0),
        recipe=SFT,
        tokenizer=model_tokenizer(text, vocabulary),
        code_blocks=list(zip(vocabulary.level_offsets, vocabulary.code_counts, strict=True)),
        work=folder / "stage",
        teacher=TeacherRows.load(made),
    )
    tell("losses", [point.loss for point in points])
    tell("claimed before", seen)
    tell("agreed", agreed(f"from {process_number()} of {process_count()}"))
    tell("main", is_main())
    save_file(
        {name: value.detach() for name, value in model.named_parameters() if name != "lm_head.weight"},
        folder / f"weights-{process_number()}.safetensors",
    )
    (folder / f"told-{process_number()}.json").write_text(json.dumps(TOLD))


def every_ad() -> AdIndex:
    """An index with an ad for each S-ID."""
    codes = np.stack(np.unravel_index(np.arange(35), (7, 5)), axis=1).astype(np.int32)
    nothing = np.zeros(35, np.int32)
    return AdIndex(
        version="all",
        ad_ids=np.arange(35),
        codes=codes,
        first_categories=nothing,
        second_categories=nothing,
        category_names=("",),
        advertiser_ids=nothing.astype(np.int64),
        embeddings=np.zeros((35, 1), np.float32),
        trie=Trie.build(codes),
        code_counts=(7, 5),
        quality={},
    )


def say_something(rows: TeacherRows) -> None:
    """Fill the teacher's rows with probabilities that differ."""
    wish = np.random.default_rng(3).random(len(rows.logs)) + 0.1
    for start, end in zip(rows.starts[:-1].tolist(), rows.starts[1:].tolist(), strict=True):
        rows.logs[start:end] = np.log(wish[start:end] / wish[start:end].sum())


TOLD: dict[str, object] = {}


def tell(what: str, value: object) -> None:
    TOLD[what] = value


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders that one process, this one, and two processes left."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", __file__, str(two)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(launch, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as started:
        try:
            train_and_tell(one)
            said, _ = started.communicate(timeout=TIMEOUT_S)
        finally:
            started.kill()
    assert started.returncode == 0, said.decode()[-3000:]
    return one, two


def test_two_processes_end_with_the_same_weights_which_are_those_of_one_process(trained: tuple[Path, Path]) -> None:
    one, two = trained
    alone = load_file(one / "weights-0.safetensors")
    mine, other = (load_file(two / f"weights-{number}.safetensors") for number in (0, 1))
    assert all(torch.equal(mine[name], other[name]) for name in alone)
    for name, value in alone.items():
        if not name.endswith("k_proj.bias"):  # softmax cancels it: its gradient is rounding, which AdamW enlarges
            torch.testing.assert_close(mine[name], value, rtol=0, atol=1e-3)
    losses = [json.loads((folder / "told-0.json").read_text())["losses"] for folder in trained]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_only_the_main_process_writes_and_all_agree_with_it(trained: tuple[Path, Path]) -> None:
    _, two = trained
    main, other = (json.loads((two / f"told-{number}.json").read_text()) for number in (0, 1))
    assert (main["main"], other["main"]) == (True, False)
    assert (main["claimed before"], other["claimed before"]) == (False, True)
    assert main["agreed"] == other["agreed"] == "from 0 of 2"
    assert main["losses"] == other["losses"]
    assert sorted(path.name for path in two.glob("stage*")) == ["stage.finished"]
    assert sorted(path.name for path in (two / "stage.finished").iterdir()) == [
        "curve.json", "manifest.json", "weights.safetensors",
    ]  # fmt: skip


def test_an_optimizer_step_has_the_recipes_samples_however_many_processes_share_them() -> None:
    recipe = SftRecipe(batch_size=48, device_batch_size=16)
    assert [device_batch_size(recipe, processes=count) for count in (1, 3, 6)] == [16, 16, 8]
    with pytest.raises(ConfigError, match="batch_size=48 cannot be shared out among 5 processes"):
        device_batch_size(recipe, processes=5)
    with pytest.raises(ConfigError, match=r"among 2 processes in batches of sft\.device_batch_size=16"):
        device_batch_size(recipe, processes=2)


if __name__ == "__main__":
    train_and_tell(Path(sys.argv[1]))
