"""The index pipeline over a real database: built once, grown by new ads, interrupted without harm."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine, text

from leadre.domain.ads import Ad
from leadre.errors import ArtifactIncomplete, InvalidInput
from leadre.indexing.ad_index import AdIndex
from leadre.pipelines import build_index as pipeline
from leadre.recipe import IndexRecipe
from leadre.store.catalog import upsert_ads
from leadre.store.database import connect, transaction
from leadre.synthetic import make_world

NOW = datetime(2025, 6, 1, tzinfo=UTC)
RECIPE = IndexRecipe(encoder="hashed", quantiser="residual_kmeans", levels=3, codes=8, width=4)
ADS = make_world(seed=1, ads=120, users=3, sessions=2, slate=2).ads


@pytest.fixture
def database(database_url: str) -> Engine:
    return connect(database_url)


def put(database: Engine, ads: tuple[Ad, ...]) -> None:
    with transaction(database) as connection:
        upsert_ads(connection, ads)


def recorded(database: Engine) -> dict[int, str]:
    with transaction(database) as connection:
        return {row.ad_id: row.sid for row in connection.execute(text("SELECT ad_id, sid FROM semantic_ids"))}


def build(url: str, indexes: Path) -> AdIndex:
    return pipeline.build_index(database_url=url, indexes=indexes, recipe=RECIPE, now=NOW)


def add(url: str, indexes: Path, version: str) -> AdIndex:
    return pipeline.add_new_ads(database_url=url, indexes=indexes, version=version, now=NOW + timedelta(minutes=1))


def sids(index: AdIndex) -> dict[int, str]:
    return {ad_id: str(index.sid(ad_id)) for ad_id in index.ad_ids.tolist()}


def test_the_catalogs_ads_are_indexed_and_recorded_and_building_again_changes_nothing(
    database: Engine, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(database, ADS)
    index = build(database_url, tmp_path)
    assert sorted(index.ad_ids.tolist()) == sorted(ad.ad_id for ad in ADS)
    assert recorded(database) == sids(index)
    with transaction(database) as connection:
        row = connection.execute(text("SELECT * FROM index_versions")).one()
    assert (row.index_version, row.uri) == (index.version, str(tmp_path / index.version))
    assert (row.recipe["codes"], row.quality["ads"]) == (8, 120)
    monkeypatch.setattr(pipeline, "fit_quantiser", None)  # must not be needed again
    assert sids(build(database_url, tmp_path)) == sids(index)


def test_new_ads_join_the_version_and_old_sids_stay(database: Engine, database_url: str, tmp_path: Path) -> None:
    put(database, ADS[:100])
    first = build(database_url, tmp_path)
    assert add(database_url, tmp_path, first.version).revision == 0  # nothing new
    for revision, known in ((1, 105), (2, 112), (3, 120)):
        put(database, ADS[:known])
        grown = add(database_url, tmp_path, first.version)
        assert (grown.version, grown.revision, len(grown)) == (first.version, revision, known)
        assert sids(first).items() <= sids(grown).items()
        assert recorded(database) == sids(grown) == sids(AdIndex.load(tmp_path / first.version))
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == [first.version, f"{first.version}-r2", f"{first.version}-r3"]
    assert np.array_equal(first.trie.find(first.codes), np.arange(100))  # its files are gone, who has it open keeps it


def test_a_failure_while_publishing_leaves_index_and_records_as_they_were(
    database: Engine, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(database, ADS[:110])
    first = build(database_url, tmp_path)
    put(database, ADS)

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "write_artifact", fail)
        with pytest.raises(OSError, match="no space"):
            add(database_url, tmp_path, first.version)
    assert recorded(database) == sids(first) == sids(AdIndex.load(tmp_path / first.version))
    assert len(add(database_url, tmp_path, first.version)) == 120


def test_an_empty_catalog_and_an_index_that_is_not_there_are_refused(database_url: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no ads"):
        build(database_url, tmp_path)
    with pytest.raises(ArtifactIncomplete, match="no manifest"):
        add(database_url, tmp_path, "never")
    assert not list(tmp_path.iterdir())
