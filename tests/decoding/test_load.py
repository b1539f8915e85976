from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

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
    def write(folder: Path) -> None:
        make_model(seed=3).save_pretrained(folder / "model")
        (folder / "vocabulary.json").write_text(json.dumps(vocabulary.to_json()))
        (folder / "recipe.toml").write_text('[decoding]\nscore = "raw"\n')

    write_artifact(tmp_path / "r1", kind="release", facts={"index_version": "tiny"}, write=write)
    return tmp_path / "r1"


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
