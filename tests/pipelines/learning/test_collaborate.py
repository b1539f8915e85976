"""The collaborative signal over a real database: in S-IDs, in a release, in its lists, and never from held-out ads."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from sqlalchemy import text
from transformers import AutoModelForCausalLM

from leadre.collaborative.blend import Collaborative
from leadre.decoding.combined import ranker as ranker_module
from leadre.decoding.combined.engine import RankedEngine
from leadre.decoding.combined.ranker import PENALTIES, Ranker
from leadre.decoding.engine import Engine
from leadre.decoding.exact.fusion import histories_in
from leadre.decoding.load import engine_of, load_engine
from leadre.domain.behavior import Domain
from leadre.domain.retrieval import Beam
from leadre.errors import ConfigError, InvalidInput
from leadre.evaluation.baselines import Histories
from leadre.evaluation.ranking import ABSENT
from leadre.experiments.ablation import Trials
from leadre.experiments.combined import combined
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask
from leadre.pipelines.engine import engine_of_release
from leadre.pipelines.index import build as pipeline
from leadre.pipelines.index.build import add_new_ads, build_index
from leadre.pipelines.learning.collaborate import CANDIDATES, calibrate, fit_signal
from leadre.pipelines.learning.evaluate import answer
from leadre.pipelines.learning.release import evaluate_release
from leadre.pipelines.learning.train import read_training_data, train
from leadre.pipelines.learning.validate import validation_of
from leadre.recipe import (
    CollaborativeRecipe,
    DecodingRecipe,
    DpoRecipe,
    EvaluationRecipe,
    IndexRecipe,
    ModelRecipe,
    PromptRecipe,
    Recipe,
    SasRecRecipe,
    SftRecipe,
)
from leadre.settings import Settings
from leadre.store.importers.synthetic import import_world
from leadre.store.records.catalog import upsert_ads
from leadre.store.records.database import connect, transaction
from leadre.synthetic import make_world
from leadre.training.learner.learner import fresh_learner
from leadre.training.learner.release_folder import load_prompt_encoder, load_vocabulary

WORLD = make_world(seed=2, ads=96, users=50, sessions=5, slate=4)
TINY = SasRecRecipe(width=16, layers=1, heads=2, positions=9, epochs=2, batch_size=16)
RECIPE = Recipe(
    name="tiny",
    index=IndexRecipe(
        encoder="hashed", quantiser="residual_kmeans", signal="collaborative", sasrec=TINY, levels=2, codes=16
    ),
    prompt=PromptRecipe(template="one_pass", budget_tokens=1200),
    model=ModelRecipe(hidden_size=16, layers=1, heads=2, feed_forward=20, text_vocabulary=700, code_start="codebooks"),
    sft=SftRecipe(curriculum=(("main",),), epochs=(1.0,), learning_rate=1e-3, batch_size=16, device_batch_size=16),
    dpo=DpoRecipe(enabled=False),
    collaborative=CollaborativeRecipe(enabled=True, sasrec=TINY, calibration_users=13),
    evaluation=EvaluationRecipe(cutoffs=(1, 8), max_users=7, baselines=("popularity", "collaborative")),
)


@pytest.fixture
def world_url(database_url: str) -> str:
    import_world(WORLD, database_url=database_url)
    return database_url


def build(url: str, home: Path) -> AdIndex:
    return build_index(
        database_url=url, indexes=home / "indexes", recipe=RECIPE.index, now=WORLD.now, held_out=RECIPE.evaluation
    )


def change(url: str, *, from_the_end: int) -> int:
    """Let every user with three ads or more have clicked another ad at that place; return how many users."""
    statement = """
        WITH places AS (
            SELECT behavior_id, row_number() OVER newest AS place, count(*) OVER (PARTITION BY user_id) AS count
            FROM behaviors WHERE domain = 'ad' AND action = ANY(:positive)
            WINDOW newest AS (PARTITION BY user_id ORDER BY occurred_at DESC, ordinal DESC, behavior_id DESC)
        )
        UPDATE behaviors b SET item_id = (SELECT max(ad_id) FROM ads WHERE ad_id <> b.item_id)
        FROM places WHERE b.behavior_id = places.behavior_id AND place = :place AND count >= 3
    """
    database = connect(url)
    with transaction(database) as connection:
        found = connection.execute(text(statement), {"positive": ["click", "conversion"], "place": from_the_end})
    database.dispose()
    return int(found.rowcount)


def test_the_index_rests_on_the_histories_and_held_out_ads_have_no_part_in_it_nor_in_the_signal(
    world_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def signal() -> np.ndarray:
        fitted = fit_signal(database_url=world_url, releases=tmp_path / "releases", recipe=RECIPE, now=WORLD.now)
        asked = Histories.of([fitted.items[[5, 2]], fitted.items[[7]]])
        return fitted.log_probabilities(asked)

    index, said = build(world_url, tmp_path), signal()
    assert len(index) == 96
    assert index.version != pipeline.version_of(WORLD.ads, RECIPE.index)
    assert change(world_url, from_the_end=1) > 9  # the test ads
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "fit_codebooks", None)  # must not be needed: the index is found
        again = build(world_url, tmp_path)
    assert again.version == index.version
    assert np.array_equal(again.codes, index.codes)
    assert np.array_equal(signal(), said)
    assert change(world_url, from_the_end=3) > 9  # ads to learn
    assert build(world_url, tmp_path).version != index.version
    after = signal()
    assert after.shape != said.shape or not np.allclose(after, said)


def test_without_behaviors_an_index_of_histories_is_refused(database_url: str, tmp_path: Path) -> None:
    import_world(dataclasses.replace(WORLD, behaviors=(), impressions=()), database_url=database_url)
    with pytest.raises(InvalidInput, match=r"import behaviors first, or build with index\.signal='text'"):
        build(database_url, tmp_path)
    with pytest.raises(InvalidInput, match="import behaviors first"):
        fit_signal(database_url=database_url, releases=tmp_path / "releases", recipe=RECIPE, now=WORLD.now)


def test_a_release_with_a_signal_fuses_it_measures_it_and_takes_new_ads(world_url: str, tmp_path: Path) -> None:
    index = build(world_url, tmp_path)
    folder = train(
        database_url=world_url, releases=tmp_path / "releases", index=index, recipe=RECIPE, now=WORLD.now, name="r"
    ).folder
    weight = json.loads((folder / "metrics.json").read_text())["training"]["collaborative"]["weight"]
    assert 0 <= weight <= 1
    data = read_training_data(database_url=world_url, index=index, recipe=RECIPE, now=WORLD.now)
    encode = load_prompt_encoder(folder).encode
    vocabulary = load_vocabulary(folder)
    places = data.validation[:4]
    prompts = [encode(data.prompt(*place, augment=False)) for place in places]

    # What the engine reads from a prompt is the user's history.
    read = histories_in(prompts, index=index, vocabulary=vocabulary)
    for number, (user, at) in enumerate(places):
        had = [row.item_id for row in data.sequences[user][:at] if row.domain is Domain.AD]
        assert had
        assert read.items[read.offsets[number] : read.offsets[number + 1]].tolist() == had

    # The release's own share is what it decodes by; another one gives other lists, and none the LLM's.
    def lists(share: float | None) -> list[object]:
        return load_engine(folder, index=index, collaborative_weight=share).generate(prompts, beam_width=9)  # type: ignore[return-value]

    assert lists(None) == lists(weight)
    alone = engine_of(
        AutoModelForCausalLM.from_pretrained(folder / "model"), index=index, vocabulary=vocabulary, score="level"
    )
    assert lists(0.0) == alone.generate(prompts, beam_width=9)
    assert lists(0.0) != lists(0.5)
    with pytest.raises(ConfigError, match="collaborative_weight 0"):
        load_engine(folder, index=index, collaborative_weight=0.5, score="valid")
    load_engine(folder, index=index, collaborative_weight=0.0, score="valid")

    # The signal without the LLM is one of the baselines.
    found, without = (
        evaluate_release(
            folder, database_url=world_url, index=index, now=WORLD.now, baselines=baselines, collaborative_weight=share
        )
        for baselines, share in (("recipe", 0.5), ("none", 0.0))  # type: ignore[misc]
    )
    assert list(found.metrics) == ["leadre", "popularity", "collaborative"]
    assert list(without.metrics) == ["leadre"]
    assert found.users == without.users == 7

    # New ads join the index, and the engine goes over to its revision.
    new = [
        dataclasses.replace(ad, ad_id=ad.ad_id + 10**9, source_id=str(ad.ad_id + 10**9), name=f"{ad.name} II")
        for ad in WORLD.ads[:5]
    ]
    database = connect(world_url)
    with transaction(database) as connection:
        upsert_ads(connection, new)
    database.dispose()
    later = WORLD.now + timedelta(minutes=1)
    grown = add_new_ads(database_url=world_url, indexes=tmp_path / "indexes", version=index.version, now=later).index
    assert (grown.revision, len(grown)) == (1, 101)
    fused = load_engine(folder, index=index, collaborative_weight=0.5)
    over = fused.over(grown).generate(prompts, beam_width=101)
    assert over == load_engine(folder, index=grown, collaborative_weight=0.5).generate(prompts, beam_width=101)
    assert all({ad.ad_id for ad in new} < {beam.ad_id for beam in beams} for beams in over)
    assert lists(0.5) == fused.generate(prompts, beam_width=9)


def test_an_aligned_release_has_an_aligned_signal_and_serves_with_its_variety(world_url: str, tmp_path: Path) -> None:
    recipe = msgspec.structs.replace(
        RECIPE,
        dpo=DpoRecipe(batch_size=8, max_pairs=8),
        collaborative=msgspec.structs.replace(RECIPE.collaborative, weight=0.5, ecpm_power=0.4),
        decoding=DecodingRecipe(variety=0.4),
    )
    index = build(world_url, tmp_path)
    trained = train(
        database_url=world_url, releases=tmp_path / "releases", index=index, recipe=recipe, now=WORLD.now, name="r1"
    )
    assert trained.sft_folder is not None
    loaded = [Collaborative.load(folder) for folder in (trained.sft_folder, trained.folder)]
    assert [found is not None and found[0].tilt is None for found in loaded] == [True, False]

    data = read_training_data(database_url=world_url, index=index, recipe=recipe, now=WORLD.now)
    encode = load_prompt_encoder(trained.folder).encode
    prompts = [encode(data.prompt(*place, augment=False)) for place in data.validation[:4]]
    served, plain = (
        [[beam.ad_id for beam in beams] for beams in engine.generate(prompts, beam_width=12)]
        for engine in (
            load_engine(trained.folder, index=index),
            load_engine(trained.folder, index=index, variety=0.0),
        )
    )
    assert served != plain
    assert [sorted(ads) for ads in served] == [sorted(ads) for ads in plain]


def test_lists_shorter_than_what_shares_are_compared_on_give_a_share_all_the_same(
    world_url: str, tmp_path: Path
) -> None:
    index = build(world_url, tmp_path)
    few = AdIndex.assemble(
        version=index.version,
        ad_ids=index.ad_ids[: CANDIDATES // 2],
        codes=index.codes[: CANDIDATES // 2],
        first_categories=[""] * (CANDIDATES // 2),
        second_categories=[""] * (CANDIDATES // 2),
        advertiser_ids=index.advertiser_ids[: CANDIDATES // 2],
        embeddings=index.embeddings[: CANDIDATES // 2],
        code_counts=index.code_counts,
        quality={},
    )
    data = read_training_data(database_url=world_url, index=few, recipe=RECIPE, now=WORLD.now)
    signal = fit_signal(database_url=world_url, releases=tmp_path / "releases", recipe=RECIPE, now=WORLD.now)
    told: list[tuple[str, int, int | None]] = []
    progress: Callable[[str, int, int | None], None] = lambda *said: told.append(said)  # noqa: E731
    learner = fresh_learner(RECIPE, few, data)
    assert 0 <= calibrate(signal, learner, data, index=few, recipe=RECIPE, progress=progress) <= 1
    assert told == [("weigh the signal", 13, 13)]
    nobody = dataclasses.replace(data, validation=[])
    assert calibrate(signal, learner, nobody, index=few, recipe=RECIPE) == 0.5


def test_training_is_validated_without_the_users_own_ads_where_they_are_left_out(
    world_url: str, tmp_path: Path
) -> None:
    index = build(world_url, tmp_path)
    asking = msgspec.structs.replace(RECIPE, sft=msgspec.structs.replace(RECIPE.sft, validate_users=12))
    left_out = msgspec.structs.replace(asking, decoding=DecodingRecipe(seen="leave_out", beam_width=40))
    for recipe in (left_out, msgspec.structs.replace(left_out, decoding=DecodingRecipe(seen="keep", beam_width=40))):
        data = read_training_data(database_url=world_url, index=index, recipe=recipe, now=WORLD.now)
        assert data.seen == recipe.decoding.seen
        validation = validation_of(fresh_learner(recipe, index, data), data, index=index, recipe=recipe)
        assert validation is not None
        order = np.random.default_rng(recipe.sft.seed).permutation(len(data.validation))[:12].tolist()
        again = 0
        for row, (user, at) in zip(validation.lists(), [data.validation[place] for place in order], strict=True):
            own = {one.item_id for one in data.sequences[user][:at] if one.domain is Domain.AD}
            again += len(own & set(row.tolist()))
        assert (again > 0) == (data.seen == "keep")


def test_a_release_with_a_ranker_serves_what_it_is_measured_by(
    world_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranker_module, "_FEWEST", 3)  # of few users
    recipe = replace(
        RECIPE, collaborative=CollaborativeRecipe(enabled=True, sasrec=TINY, calibration_users=50, combine="ranker")
    )
    index = build(world_url, tmp_path)
    folder = train(
        database_url=world_url, releases=tmp_path / "releases", index=index, recipe=recipe, now=WORLD.now, name="r"
    ).folder
    kept = Ranker.load(folder)
    assert kept is not None
    assert kept.penalty in PENALTIES
    assert json.loads((folder / "metrics.json").read_text())["training"]["collaborative"]["ranker"] == kept.to_json()

    # Evaluation's lists, in batches, are those that a worker's engine gives one user.
    settings = Settings(home=tmp_path, database_url=world_url, redis_url="", feature_repo=tmp_path)
    serving = engine_of_release(settings, folder, index=index)
    assert isinstance(serving, RankedEngine)
    measured = answer(
        database_url=world_url,
        index=index,
        engine=(asked := Asked(load_engine(folder, index=index))),  # type: ignore[arg-type]
        encoder=load_prompt_encoder(folder),
        recipe=recipe,
        now=WORLD.now,
    )
    lists = {tuple(ads[ads != ABSENT].tolist()) for ads in measured.lists["leadre"][0]}
    served = {tuple(beam.ad_id for beam in serving.generate([prompt], beam_width=20)[0]) for prompt in asked.prompts}
    assert lists <= served

    # The share in the beam can still be asked for, and the LLM alone.
    assert not isinstance(load_engine(folder, index=index, collaborative_weight=0.5), RankedEngine)
    with pytest.raises(ConfigError, match="collaborative_weight 0"):
        load_engine(folder, index=index, score="valid")

    (found,) = combined(recipe, Trials(
        database_url=world_url, indexes=tmp_path / "indexes", kept=tmp_path / "kept", now=WORLD.now, seeds=(0,)
    ), release=folder)  # fmt: skip
    assert [row.name for row in found.rows] == ["signal alone", "LLM alone", "fusion in the beam", "ranker"]
    assert found.extra["ranker"] == kept.to_json()
    assert {"HR@10 canonical", "NDCG@10 shuffled"} < set(found.metrics)
    assert len(found.compared("ranker", "fusion in the beam")) == len(found.metrics)
    assert found.users == 7


class Asked:
    """An engine that notes what it is asked."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.index_version, self.prompts = engine, engine.index_version, list[list[int]]()

    def generate(
        self, prompts: list[list[int]], *, beam_width: int, filters: list[LiveMask | None]
    ) -> list[list[Beam]]:
        self.prompts += prompts
        assert filters == [None] * len(prompts)  # in this world ads repeat
        return self._engine.generate(prompts, beam_width=beam_width, filters=filters)
