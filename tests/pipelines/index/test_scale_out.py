"""Many workers give the index that one machine gives, byte for byte."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine, text

from leadre.errors import ArtifactIncomplete, ConfigError, InvalidInput
from leadre.pipelines.index import build as single
from leadre.pipelines.index import fit_codebooks, scale_out
from leadre.pipelines.index.build import embedding_store
from leadre.recipe import IndexRecipe
from leadre.store.records.catalog import upsert_ads
from leadre.store.records.database import connect, transaction
from leadre.synthetic import make_world

pytestmark = [
    pytest.mark.slow,
    # November 2026, Ray 2.60: its own defaults warn of their deprecation.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]

NOW = datetime(2025, 6, 1, tzinfo=UTC)
RECIPE = IndexRecipe(
    encoder="hashed", quantiser="residual_kmeans", assignment="balanced", levels=2, codes=8, width=4, seed=3
)
ADS = make_world(seed=1, ads=130, users=3, sessions=2, slate=2).ads


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[None]:
    """Ray with two processors, as a build would start it, for all tests; without a token in the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        with scale_out._ray(None, workers=2):
            yield


@pytest.fixture
def database(database_url: str) -> Engine:
    made = connect(database_url)
    with transaction(made) as connection:
        upsert_ads(connection, ADS)
    return made


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.resolve().iterdir()}


def test_two_workers_give_the_same_files_as_one_machine(
    database: Engine, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale_out, "BLOCK", 32)  # five blocks, the last one short
    monkeypatch.setattr(fit_codebooks, "FIT_ADS", 100)  # a sample
    arguments = {"database_url": database_url, "recipe": RECIPE, "now": NOW}
    seen: list[tuple[str, int, int]] = []
    many = scale_out.index_inventory(
        **arguments, indexes=tmp_path / "many" / "indexes", workers=2, progress=lambda *said: seen.append(said)
    )
    with transaction(database) as connection:
        recorded = connection.execute(text("SELECT count(*) FROM semantic_ids")).scalar_one()
    one = single.build_index(**arguments, indexes=tmp_path / "one" / "indexes")
    assert many.version == one.version
    assert files(tmp_path / "many" / "indexes" / one.version) == files(tmp_path / "one" / "indexes" / one.version)
    assert recorded == len(ADS)
    assert sorted(path.name for path in (tmp_path / "many").iterdir()) == ["embeddings", "indexes", "scale-out.lock"]
    assert ("encode ads", 100, 100) in seen
    assert ("assign codes", 130, 130) in seen

    again = scale_out.index_inventory(**arguments, indexes=tmp_path / "many" / "indexes", workers=2)
    assert np.array_equal(again.codes, many.codes)  # it was there: no Ray was needed


def test_an_error_of_a_worker_arrives_as_itself_and_leaves_nothing(
    database: Engine, database_url: str, tmp_path: Path
) -> None:
    indexes = tmp_path / "home" / "indexes"
    embedding_store(indexes, RECIPE)
    (damaged,) = (tmp_path / "home" / "embeddings").iterdir()
    (damaged / "a.safetensors").write_bytes(b"no shard")
    with pytest.raises(ArtifactIncomplete, match=r"a\.safetensors"):
        scale_out.index_inventory(database_url=database_url, indexes=indexes, recipe=RECIPE, now=NOW, workers=2)
    assert not indexes.exists()
    assert not (tmp_path / "home" / "scale-out").exists()


def test_without_ray_the_error_says_what_to_install(
    database: Engine, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"leadre\[scale\]"):
        scale_out.index_inventory(
            database_url=database_url, indexes=tmp_path / "indexes", recipe=RECIPE, now=NOW, workers=2
        )


def test_an_empty_catalog_is_refused(database_url: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no ads"):
        scale_out.index_inventory(
            database_url=database_url, indexes=tmp_path / "indexes", recipe=RECIPE, now=NOW, workers=2
        )
