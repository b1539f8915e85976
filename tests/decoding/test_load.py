from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from transformers import PreTrainedModel

from leadre.artifacts import write_artifact
from leadre.decoding.load import engine_of, load_engine
from leadre.errors import ArtifactIncomplete, ReleaseMismatch
from leadre.indexing.ad_index import AdIndex
from leadre.prompts.vocabulary import Vocabulary

MakeIndex = Callable[..., AdIndex]


@pytest.fixture
def release(tmp_path: Path, make_model: Callable[..., PreTrainedModel], vocabulary: Vocabulary) -> Path:
    return write_release(tmp_path / "r1", make_model(seed=3), vocabulary)


def write_release(
    to: Path, model: PreTrainedModel, vocabulary: Vocabulary, *, generation: dict[str, Any] | None = None
) -> Path:
    def write(folder: Path) -> None:
        model.save_pretrained(folder / "model")
        if generation is not None:
            (folder / "model" / "generation_config.json").write_text(json.dumps(generation))
        (folder / "vocabulary.json").write_text(json.dumps(vocabulary.to_json()))
        (folder / "recipe.toml").write_text('[decoding]\nscore = "raw"\n')

    write_artifact(to, kind="release", facts={"index_version": "tiny"}, write=write)
    return to


@pytest.mark.parametrize("kind", ["auto", "hf", "shared_prefix"])
def test_a_release_decodes_as_its_model_in_memory_with_its_recipes_score(
    kind: str, release: Path, make_index: MakeIndex, make_model: Callable[..., PreTrainedModel], vocabulary: Vocabulary
) -> None:
    index = make_index()
    in_memory = engine_of(make_model(seed=3), index=index, vocabulary=vocabulary, score="raw")

    loaded = load_engine(release, index=index, kind=kind)  # type: ignore[arg-type]

    expected, answer = in_memory.generate([[1, 2]], beam_width=4)[0], loaded.generate([[1, 2]], beam_width=4)[0]
    assert [beam.ad_id for beam in answer] == [beam.ad_id for beam in expected]
    assert [beam.log_probability for beam in answer] == pytest.approx(
        [beam.log_probability for beam in expected], abs=1e-4
    )


ASKED_FOR = {
    "do_sample": True,
    "temperature": 0.01,
    "top_k": 1,
    "top_p": 0.1,
    "num_beams": 3,
    "repetition_penalty": 9.0,
    "no_repeat_ngram_size": 1,
    "length_penalty": -5.0,
    "max_length": 2,
    "eos_token_id": [1, 2, 24, 30, 36],  # codes among them
    "forced_eos_token_id": 30,
    "suppress_tokens": [25, 31, 37],
}


@pytest.mark.parametrize("kind", ["hf", "shared_prefix", "device"])
def test_a_checkpoint_that_asks_for_sampling_penalties_and_stops_decodes_as_one_that_does_not(
    kind: Literal["hf", "shared_prefix", "device"],
    release: Path,
    make_index: MakeIndex,
    make_model: Callable[..., PreTrainedModel],
    vocabulary: Vocabulary,
) -> None:
    index, prompts = make_index(), [[1, 2], [7, 7, 7, 3]]
    expected = load_engine(release, index=index, kind=kind).generate(prompts, beam_width=6)
    asking = write_release(release.with_name("r2"), make_model(seed=3), vocabulary, generation=ASKED_FOR)

    for _ in range(2):  # and the same every time
        assert load_engine(asking, index=index, kind=kind).generate(prompts, beam_width=6) == expected


def test_a_stub_needs_no_model_but_the_releases_vocabulary(release: Path, make_index: MakeIndex) -> None:
    assert len(load_engine(release, index=make_index(), kind="stub").generate([[47]], beam_width=4)[0]) == 4


def test_bf16_weights_load(release: Path, make_index: MakeIndex) -> None:
    assert len(load_engine(release, index=make_index(), precision="bf16").generate([[5]], beam_width=4)[0]) == 4


@pytest.mark.parametrize("kind", ["auto", "stub"])
def test_another_index_version_is_refused(kind: str, release: Path, make_index: MakeIndex) -> None:
    other = dataclasses.replace(make_index(), version="other")
    with pytest.raises(ReleaseMismatch, match="r1 was trained for index tiny, this is index other"):
        load_engine(release, index=other, kind=kind)  # type: ignore[arg-type]


def test_an_index_with_more_codes_than_the_release_is_refused(release: Path, make_index: MakeIndex) -> None:
    with pytest.raises(ReleaseMismatch, match=r"needs \(7, 5, 6, 9\)"):
        load_engine(release, index=make_index(counts=(7, 5, 6, 9)))


def test_no_release_is_an_error_that_names_the_folder(tmp_path: Path, make_index: MakeIndex) -> None:
    with pytest.raises(ArtifactIncomplete, match="nowhere"):
        load_engine(tmp_path / "nowhere", index=make_index())


def test_weights_that_somebody_altered_are_not_loaded(release: Path, make_index: MakeIndex) -> None:
    weights = release / "model/model.safetensors"
    altered = bytearray(weights.read_bytes())
    altered[-1] ^= 1
    weights.write_bytes(altered)
    with pytest.raises(ArtifactIncomplete, match=r"model.safetensors differs from its manifest"):
        load_engine(release, index=make_index())
