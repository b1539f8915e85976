"""A made-up world with a live release whose model is real, though untrained: decided, different probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import torch
from sqlalchemy import Connection

from leadre.indexing.ad_index import AdIndex
from leadre.indexing.build import index_ads
from leadre.indexing.quantisers.fit import fit_quantiser
from leadre.indexing.texts.description import describe
from leadre.indexing.texts.encoder import encode
from leadre.pipelines.refresh import refresh_users
from leadre.prompts.fit_length import PromptEncoder
from leadre.prompts.vocabulary import Vocabulary
from leadre.recipe import IndexRecipe, ModelRecipe, PromptRecipe, Recipe, encode_recipe
from leadre.settings import Settings
from leadre.store.features.client import FeatureClient
from leadre.store.records import catalog, events
from leadre.store.records.database import connect, transaction
from leadre.store.release import records as releases
from leadre.synthetic import World, make_world
from leadre.training.learner.learner import Learner
from leadre.training.learner.model import build_model
from leadre.training.learner.release_folder import write_release
from leadre.training.learner.tokenizer import model_tokenizer, text_encoder, train_text_tokenizer

RECIPE = Recipe(
    name="tiny",
    index=IndexRecipe(encoder="hashed", quantiser="residual_kmeans", levels=2, codes=12, epochs=5),
    prompt=PromptRecipe(template="one_pass", budget_tokens=1200),
    model=ModelRecipe(hidden_size=32, layers=1, heads=2, feed_forward=48, text_vocabulary=600),
)


@dataclass(frozen=True, kw_only=True)
class LiveWorld:
    """Where it is, and what it is made of."""

    settings: Settings
    world: World
    index: AdIndex

    @property
    def user_ids(self) -> list[int]:
        return [profile.user_id for profile in self.world.profiles]


def small_index(world: World) -> AdIndex:
    """Return an index of the world's ads."""
    embeddings = encode([describe(ad) for ad in world.ads], encoder=RECIPE.index.encoder)
    return index_ads(world.ads, embeddings, fit_quantiser(embeddings, RECIPE.index), version="i1")


def untrained(index: AdIndex, texts: Sequence[str], *, seed: int = 5) -> Learner:
    """Return a learner that has learned nothing, its weights large enough for different probabilities."""
    text_tokenizer = train_text_tokenizer(texts, size=RECIPE.model.text_vocabulary)
    vocabulary = Vocabulary(text_size=text_tokenizer.get_vocab_size(), code_counts=index.code_counts)
    model = build_model(
        RECIPE.model,
        vocabulary_size=vocabulary.size,
        positions=RECIPE.prompt.budget_tokens + vocabulary.levels,
        pad=vocabulary.pad_id,
        eos=vocabulary.eos_id,
        seed=seed,
    )
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(8.0)
    return Learner(
        model=model,
        vocabulary=vocabulary,
        text_tokenizer=text_tokenizer,
        tokenizer=model_tokenizer(text_tokenizer, vocabulary),
        encoder=PromptEncoder(vocabulary, text_encoder(text_tokenizer), RECIPE.prompt),
    )


def make_live_world(settings: Settings, *, users: int = 12, ads: int = 96) -> LiveWorld:
    """Fill the database and make release "r1" live; the feature store is applied already."""
    world = make_world(seed=5, ads=ads, users=users, sessions=3, slate=3, days=20, now=datetime.now(UTC))
    index = small_index(world)
    index.save(settings.indexes / "i1")
    database = connect(settings.database_url)
    with transaction(database) as connection:
        catalog.upsert_ads(connection, world.ads)
        catalog.upsert_users(connection, world.profiles, event_at=world.now)
        catalog.upsert_content_items(connection, world.content_items)
        events.upsert_behaviors(connection, world.behaviors, arrived_at=world.now)
        releases.record_index(connection, "i1", uri=str(settings.indexes / "i1"), recipe={}, quality={})
        first, second = index.categories_at(np.arange(len(index)))
        releases.record_sids(
            connection,
            "i1",
            ad_ids=index.ad_ids,
            sids=[str(index.sid_at(row)) for row in range(len(index))],
            codes=index.codes,
            embeddings=index.embeddings,
            first_categories=first,
            second_categories=second,
            advertiser_ids=index.advertiser_ids,
            event_at=world.now,
        )
        add_release(connection, settings, world=world, index=index, name="r1")
        releases.promote(connection, "r1")
    database.dispose()
    return LiveWorld(settings=settings, world=world, index=index)


def serve_everybody(made: LiveWorld) -> None:
    """Bring the online store up to the world's present, and store a list for every user."""
    features = FeatureClient(made.settings.feature_repo, made.settings.feast_environment())
    features.materialize(now=datetime.now(UTC))  # rows count from when they were written
    features.close()
    refresh_users(made.settings, made.user_ids, now=made.world.now)


def add_release(
    connection: Connection,
    settings: Settings,
    *,
    world: World,
    index: AdIndex,
    name: str,
    seed: int = 5,
    recipe: Recipe = RECIPE,
) -> None:
    """Write and record a release; another seed is another model."""
    learner = untrained(index, [ad.name for ad in world.ads], seed=seed)
    write_release(
        settings.releases / name,
        model=learner.model,
        tokenizer=learner.tokenizer,
        text_tokenizer=learner.text_tokenizer,
        vocabulary=learner.vocabulary,
        recipe=recipe,
        metrics={},
        curves=[],
        index_version=index.version,
    )
    uri = str(settings.releases / name)
    releases.record_release(
        connection, name, index_version=index.version, uri=uri, recipe=encode_recipe(recipe), metrics={}
    )
