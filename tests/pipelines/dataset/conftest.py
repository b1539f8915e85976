"""A small world of twenty days whose release has no model, trained ten days before the end as far as anyone knows."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sqlalchemy import Engine

from leadre.artifacts import write_artifact
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.build import index_ads
from leadre.indexing.quantisers.residual_kmeans import fit_residual_kmeans
from leadre.pipelines.index.publish import BuiltIndex, publish_built
from leadre.prompts.vocabulary import Vocabulary
from leadre.recipe import (
    DpoRecipe,
    EvaluationRecipe,
    IndexRecipe,
    ModelRecipe,
    PromptRecipe,
    Recipe,
    SftRecipe,
    encode_recipe,
)
from leadre.settings import Settings
from leadre.store.importers.synthetic import import_world
from leadre.store.records.database import connect, transaction
from leadre.store.release.records import record_release
from leadre.synthetic import World, make_world
from leadre.training.learner.release_folder import METRICS, RECIPE, TEXT_TOKENIZER, VOCABULARY
from leadre.training.learner.tokenizer import train_text_tokenizer

NOW = datetime(2026, 3, 15, tzinfo=UTC)
USERS = int(os.environ.get("LEADRE_TEST_USERS", "40"))
"""Of the world; 2,500 make the 10,000 rows of docs/features.md in test_skew.py (a quarter of an hour)."""
TRAINED = NOW - timedelta(days=10)
RECIPE_OF_TESTS = Recipe(name="tiny", prompt=PromptRecipe(budget_tokens=2000))

QUICK_RECIPE = Recipe(
    name="tiny",
    index=IndexRecipe(encoder="hashed", quantiser="residual_kmeans", levels=2, codes=8),
    prompt=PromptRecipe(template="one_pass", budget_tokens=300),
    model=ModelRecipe(hidden_size=32, layers=1, heads=2, feed_forward=48, text_vocabulary=500),
    sft=SftRecipe(curriculum=(("main",),), epochs=(1.0,), learning_rate=1e-3, batch_size=16, device_batch_size=16),
    dpo=DpoRecipe(enabled=False),
    evaluation=EvaluationRecipe(cutoffs=(8,)),
)
"""Trains in seconds."""


@dataclass(frozen=True, kw_only=True)
class Past:
    """What a test of the past works on."""

    settings: Settings
    database: Engine
    world: World
    index: AdIndex
    add_release: Callable[..., None]


@pytest.fixture
def past(applied: Settings) -> Iterator[Past]:
    """The world imported, its index published, release "r1" recorded and not promoted."""
    settings = replace(applied, engine="stub", beam_width=8)
    world = make_world(seed=5, ads=96, users=USERS, sessions=8, slate=3, days=20, now=NOW)
    embeddings = np.random.default_rng(5).normal(size=(96, 12)).astype(np.float32)
    quantiser = fit_residual_kmeans(embeddings, levels=2, codes=8, width=6, seed=5)
    index = index_ads(world.ads, embeddings, quantiser, version="i1")
    import_world(world, database_url=settings.database_url)
    database = connect(settings.database_url)
    built = BuiltIndex(index=index, quantiser=quantiser, recipe=IndexRecipe())
    index = publish_built(database, settings.indexes / "i1", built=built, now=NOW)

    def add_release(name: str, *, until: datetime | None = TRAINED) -> None:
        folder = settings.releases / name
        _write_stub_release(folder, index=index, until=until)
        with transaction(database) as connection:
            record_release(
                connection,
                name,
                index_version=index.version,
                uri=str(folder),
                recipe=encode_recipe(RECIPE_OF_TESTS),
                metrics={},
                trained_until=until,
            )

    add_release("r1")
    try:
        yield Past(settings=settings, database=database, world=world, index=index, add_release=add_release)
    finally:
        database.dispose()


def _write_stub_release(folder: Path, *, index: AdIndex, until: datetime | None) -> None:
    tokenizer = train_text_tokenizer(["a small corpus", "for prompts"], size=300)
    vocabulary = Vocabulary(text_size=tokenizer.get_vocab_size(), code_counts=index.code_counts)
    training = {} if until is None else {"until": until.isoformat()}

    def write(unfinished: Path) -> None:
        tokenizer.save(str(unfinished / TEXT_TOKENIZER))
        (unfinished / VOCABULARY).write_text(json.dumps(vocabulary.to_json()))
        (unfinished / RECIPE).write_bytes(msgspec.toml.encode(encode_recipe(RECIPE_OF_TESTS)))
        (unfinished / METRICS).write_text(json.dumps({"training": training}))

    write_artifact(folder, kind="release", facts={"index_version": index.version}, write=write)
