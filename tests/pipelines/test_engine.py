"""Which engine a process decodes with, by the settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from leadre.artifacts import write_artifact
from leadre.decoding.stub import StubEngine
from leadre.errors import ConfigError, ReleaseMismatch
from leadre.pipelines.engine import engine_of_release
from leadre.prompts.vocabulary import Vocabulary
from leadre.settings import Settings
from tests.decoding.remote_server import Shelf, index_of, running

INDEX = index_of(40)
VOCABULARY = Vocabulary(text_size=23, code_counts=(8, 8, 8))


@pytest.fixture
def release(tmp_path: Path) -> Path:
    def write(folder: Path) -> None:
        (folder / "vocabulary.json").write_text(json.dumps(VOCABULARY.to_json()))
        (folder / "recipe.toml").write_text('[decoding]\nscore = "raw"\n')

    write_artifact(tmp_path / "r1", kind="release", facts={"index_version": "v1"}, write=write)
    return tmp_path / "r1"


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    return Settings(home=tmp_path, database_url="postgresql://nowhere", redis_url=redis_url, feature_repo=tmp_path)


@pytest.fixture
def url() -> Iterator[str]:
    shelf = Shelf()
    shelf.put("r1", StubEngine(INDEX, vocabulary_size=VOCABULARY.size), INDEX)
    with running(shelf) as url:
        yield url
    shelf.close()


def test_remote_decodes_on_engine_servers_and_says_the_same(release: Path, settings: Settings, url: str) -> None:
    remote = engine_of_release(replace(settings, engine="remote", engine_urls=(url,)), release, index=INDEX)
    here = engine_of_release(settings, release, index=INDEX, kind="stub")

    assert remote.generate([[1], [2, 3]], beam_width=9) == here.generate([[1], [2, 3]], beam_width=9)
    assert (remote.index_version, remote.score) == ("v1", "raw")


def test_remote_refuses_an_index_that_the_release_was_not_trained_for(
    release: Path, settings: Settings, url: str
) -> None:
    with pytest.raises(ReleaseMismatch, match="trained for index v1, this is index v2"):
        engine_of_release(
            replace(settings, engine="remote", engine_urls=(url,)), release, index=index_of(40, version="v2")
        )


def test_remote_without_servers_says_what_is_missing(release: Path, settings: Settings) -> None:
    with pytest.raises(ConfigError, match="LEADRE_ENGINE_URLS"):
        engine_of_release(settings, release, index=INDEX, kind="remote")


def test_tensorrt_is_for_engine_servers(release: Path, settings: Settings) -> None:
    with pytest.raises(ConfigError, match="leadre serve engine --engine tensorrt"):
        engine_of_release(replace(settings, engine="tensorrt"), release, index=INDEX)
