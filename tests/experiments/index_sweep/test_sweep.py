"""The sweep: every combination fitted and measured as an index build measures it, and nothing recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from leadre.errors import ConfigError, InvalidInput
from leadre.experiments.index_sweep.plots import write_plots
from leadre.experiments.index_sweep.sweep import sweep, sweep_catalog
from leadre.indexing.build import index_ads
from leadre.indexing.quantisers.fit import fit_quantiser
from leadre.indexing.texts.description import describe
from leadre.indexing.texts.encoder import encode
from leadre.recipe import IndexRecipe
from leadre.store.records.catalog import upsert_ads
from leadre.store.records.database import connect, transaction
from leadre.synthetic import make_world

ADS = make_world(seed=1, ads=130, users=3, sessions=2, slate=2).ads
EMBEDDINGS = encode([describe(ad) for ad in ADS], encoder="hashed")
RECIPE = IndexRecipe(encoder="hashed", width=12, hidden=(16,), epochs=2, batch_size=64)


def test_every_combination_is_there_in_the_order_of_table_5() -> None:
    found = sweep(
        ADS,
        EMBEDDINGS,
        recipe=RECIPE,
        levels=(3, 2),
        codes=(4, 8, 4),
        quantisers=("residual_kmeans", "rqvae"),
        assignments=("nearest", "balanced"),
    )
    labels = ["residual_kmeans", "residual_kmeans, balanced", "rqvae", "rqvae, balanced"]
    assert [(row.label, row.levels, row.codes) for row in found.rows] == [
        (label, m, k) for label in labels for m in (2, 3) for k in (8, 4)
    ]
    assert (found.ads, found.encoder) == (130, "hashed")
    assert all(len(row.quality["mutual_information_bits"]) == row.levels for row in found.rows)
    for near, balanced in zip(found.measured["rqvae"], found.measured["rqvae, balanced"], strict=True):
        assert balanced.quality["collision_rate"] <= near.quality["collision_rate"]
    assert all(row.quality["collision_rate"] >= found.identical for row in found.rows if row.assignment == "nearest")


def test_a_row_says_what_the_index_built_from_that_recipe_says() -> None:
    found = sweep(
        ADS,
        EMBEDDINGS,
        recipe=RECIPE,
        levels=(3,),
        codes=(8,),
        quantisers=("residual_kmeans",),
        assignments=("nearest",),
    )
    recipe = IndexRecipe(encoder="hashed", quantiser="residual_kmeans", levels=3, codes=8, width=12)
    built = index_ads(ADS, EMBEDDINGS, fit_quantiser(EMBEDDINGS, recipe), version="v")
    figures = ("collision_rate", "max_collision", "usage", "entropy_bits", "category_purity")
    assert {name: found.rows[0].quality[name] for name in figures} == {name: built.quality[name] for name in figures}


def test_more_codes_than_ads_are_measured_and_their_disuse_is_said() -> None:
    found = sweep(
        ADS,
        EMBEDDINGS,
        recipe=RECIPE,
        levels=(2,),
        codes=(512,),
        quantisers=("rqvae", "residual_kmeans"),
        assignments=("nearest",),
    )
    for row in found.rows:
        assert 0 < row.quality["average_usage"] <= 130 / 512
    assert [trend.holds for trend in found.trends() if trend.claim == "every code is used"] == [False, False]


def test_what_cannot_be_fitted_says_why_and_the_others_go_on(tmp_path: Path) -> None:
    too_wide = IndexRecipe(encoder="hashed", width=300, hidden=(16,), epochs=1)  # hashed embeddings are 256 wide
    found = sweep(
        ADS,
        EMBEDDINGS,
        recipe=too_wide,
        levels=(2,),
        codes=(8,),
        quantisers=("residual_kmeans", "rqvae"),
        assignments=("nearest",),
    )
    assert "index.width=300" in found.rows[0].reason
    assert found.rows[0].quality == {}
    assert list(found.measured) == ["rqvae"]
    assert len(write_plots(found, tmp_path)) == 4


def test_sizes_out_of_bounds_are_refused_before_anything_is_fitted() -> None:
    with pytest.raises(ConfigError, match=r"rqvae with 2 levels of 1 codes.*codes"):
        sweep(
            ADS, EMBEDDINGS, recipe=RECIPE, levels=(2,), codes=(8, 1), quantisers=("rqvae",), assignments=("nearest",)
        )


def test_the_share_of_ads_that_no_codebook_tells_apart_is_that_of_equal_descriptions() -> None:
    repeated = (*ADS[:40], *ADS[:3])
    found = sweep(
        repeated,
        np.concatenate([EMBEDDINGS[:40], EMBEDDINGS[:3]]),
        recipe=RECIPE,
        levels=(3,),
        codes=(8,),
        quantisers=("residual_kmeans",),
        assignments=("nearest",),
    )
    equal = [describe(ad) for ad in repeated]
    assert found.identical == sum(equal.count(one) > 1 for one in equal) / 43
    assert found.rows[0].quality["collision_rate"] >= found.identical


def test_progress_of_the_whole_never_falls_and_ends_at_100() -> None:
    said: list[tuple[str, int, int]] = []
    sweep(
        ADS,
        EMBEDDINGS,
        recipe=RECIPE,
        levels=(2, 3),
        codes=(4,),
        quantisers=("rqvae", "residual_kmeans"),
        assignments=("nearest",),
        progress=lambda what, done, total: said.append((what, done, total)),
    )
    whole = [done for what, done, _ in said if what.startswith("sweep")]
    assert whole == sorted(whole)
    assert whole[-1] == 100
    assert ("rqvae 3 x 4", 2, 2) in said


def test_the_catalog_is_encoded_once_and_nothing_is_recorded(database_url: str, tmp_path: Path) -> None:
    database = connect(database_url)
    with pytest.raises(InvalidInput, match="no ads"):
        _sweep_catalog(database_url, tmp_path)
    with transaction(database) as connection:
        upsert_ads(connection, ADS)
    first = _sweep_catalog(database_url, tmp_path)
    assert first.ads == 130
    again = _sweep_catalog(database_url, tmp_path)
    assert [row.quality for row in again.rows] == [row.quality for row in first.rows]
    with transaction(database) as connection:
        assert connection.execute(text("SELECT count(*) FROM index_versions")).scalar_one() == 0
    database.dispose()


def _sweep_catalog(database_url: str, folder: Path):  # type: ignore[no-untyped-def]
    return sweep_catalog(
        database_url=database_url,
        indexes=folder / "indexes",
        recipe=RECIPE,
        levels=(2,),
        codes=(8,),
        quantisers=("residual_kmeans",),
        assignments=("nearest",),
    )
