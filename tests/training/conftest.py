"""A tiny world as training sees it: 60 users, 96 ads, an index of 2 levels of 16 codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from leadre.domain.behavior import Domain
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.build import index_ads, version_of
from leadre.indexing.quantisers.fit import fit_quantiser
from leadre.indexing.texts.description import describe
from leadre.indexing.texts.encoder import encode
from leadre.prompts.fit_length import PromptEncoder
from leadre.prompts.vocabulary import Vocabulary
from leadre.recipe import IndexRecipe, ModelRecipe, PromptRecipe, Recipe, SftRecipe
from leadre.synthetic import World, make_world
from leadre.training.data.contexts import ACTIONS, DOMAINS, ContextBuilder
from leadre.training.data.examples import TrainingData, corpus
from leadre.training.learner.learner import Learner
from leadre.training.learner.model import build_model
from leadre.training.learner.tokenizer import model_tokenizer, text_encoder, train_text_tokenizer
from leadre.training.objectives.head import IGNORED, attach_head, detach_head

HELD_OUT = 2


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """Positive behaviors in the flat form of leadre.store.records.events."""

    users: NDArray[np.int64]
    offsets: NDArray[np.int64]
    item_ids: NDArray[np.int64]
    domains: NDArray[np.uint8]
    actions: NDArray[np.uint8]
    occurred_at_s: NDArray[np.float64]
    ordinals: NDArray[np.int64]


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return Recipe(
        name="tiny",
        index=IndexRecipe(encoder="hashed", quantiser="residual_kmeans", levels=2, codes=16, epochs=5),
        prompt=PromptRecipe(template="one_pass", budget_tokens=260),
        model=ModelRecipe(hidden_size=32, layers=1, heads=2, feed_forward=48, text_vocabulary=900),
        sft=SftRecipe(
            epochs=(2.0, 1.0, 2.0),
            learning_rate=3e-3,
            minimum_learning_rate=3e-4,
            weight_decay=0.01,
            batch_size=16,
            device_batch_size=8,
            level_loss=True,
            precision="fp32",
        ),
    )


@pytest.fixture(scope="session")
def world() -> World:
    return make_world(seed=3, ads=96, users=60, sessions=5, slate=4)


@pytest.fixture(scope="session")
def index(world: World, recipe: Recipe) -> AdIndex:
    embeddings = encode([describe(ad) for ad in world.ads], encoder=recipe.index.encoder)
    quantiser = fit_quantiser(embeddings, recipe.index)
    return index_ads(world.ads, embeddings, quantiser, version=version_of(world.ads, recipe.index))


@pytest.fixture(scope="session")
def data(world: World, index: AdIndex, recipe: Recipe) -> TrainingData:
    return make_data(world, index, recipe.prompt)


@pytest.fixture(scope="session")
def paper_data(world: World, index: AdIndex) -> TrainingData:
    """The same in the paper's template: one example a target."""
    return make_data(world, index, PromptRecipe(budget_tokens=260))


def make_data(world: World, index: AdIndex, prompt: PromptRecipe) -> TrainingData:
    rows = sorted(
        (row for row in world.behaviors if row.positive), key=lambda row: (row.user_id, row.occurred_at, row.ordinal)
    )
    users, starts = np.unique([row.user_id for row in rows], return_index=True)
    arrays = Arrays(
        users=users,
        offsets=np.append(starts, len(rows)).astype(np.int64),
        item_ids=np.array([row.item_id for row in rows]),
        domains=np.array([DOMAINS.index(row.domain) for row in rows], np.uint8),
        actions=np.array([ACTIONS.index(row.action) for row in rows], np.uint8),
        occurred_at_s=np.array([row.occurred_at.timestamp() for row in rows]),
        ordinals=np.array([row.ordinal for row in rows]),
    )
    contexts = ContextBuilder(
        arrays,
        {profile.user_id: profile for profile in world.profiles},
        ({ad.ad_id: ad.name for ad in world.ads}, {item.content_id: item.title for item in world.content_items}),
        (
            {ad.ad_id: ad.first_category for ad in world.ads},
            {item.content_id: item.category for item in world.content_items},
        ),
        recipe=prompt,
    )
    sequences = [contexts.behaviors(user) for user in range(len(users))]
    return TrainingData(
        ads=world.ads,
        sequences=sequences,
        targets=[
            [at for at, row in enumerate(sequence) if row.domain is Domain.AD][:-HELD_OUT] for sequence in sequences
        ],
        contexts=contexts,
        sid_of={ad.ad_id: index.sid(ad.ad_id) for ad in world.ads}.get,
        recipe=prompt,
        seed=5,
    )


@pytest.fixture(scope="session")
def text_tokenizer(data: TrainingData, recipe: Recipe) -> Tokenizer:
    return train_text_tokenizer(corpus(data, users=30), size=recipe.model.text_vocabulary)


@pytest.fixture(scope="session")
def vocabulary(text_tokenizer: Tokenizer, index: AdIndex) -> Vocabulary:
    return Vocabulary(text_size=text_tokenizer.get_vocab_size(), code_counts=index.code_counts)


@pytest.fixture(scope="session")
def encoder(text_tokenizer: Tokenizer, vocabulary: Vocabulary, recipe: Recipe) -> PromptEncoder:
    return PromptEncoder(vocabulary, text_encoder(text_tokenizer), recipe.prompt)


@pytest.fixture
def model(recipe: Recipe, vocabulary: Vocabulary) -> PreTrainedModel:
    """A fresh model with initial weights, the same every time."""
    return build_model(
        recipe.model,
        vocabulary_size=vocabulary.size,
        positions=recipe.prompt.budget_tokens + vocabulary.levels,
        pad=vocabulary.pad_id,
        eos=vocabulary.eos_id,
        seed=1,
    )


@pytest.fixture
def learner(
    model: PreTrainedModel, vocabulary: Vocabulary, text_tokenizer: Tokenizer, encoder: PromptEncoder
) -> Learner:
    return Learner(
        model=model,
        vocabulary=vocabulary,
        text_tokenizer=text_tokenizer,
        tokenizer=model_tokenizer(text_tokenizer, vocabulary),
        encoder=encoder,
    )


@pytest.fixture(scope="session")
def code_blocks(vocabulary: Vocabulary) -> list[tuple[int, int]]:
    return list(zip(vocabulary.level_offsets, vocabulary.code_counts, strict=True))


@pytest.fixture(scope="session")
def log_probability() -> Callable[..., float]:
    """Of a response to a prompt, over the blocks' codes where there are blocks, else over the vocabulary."""

    def measure(
        model: PreTrainedModel, prompt: tuple[int, ...], response: tuple[int, ...], blocks: list[tuple[int, int]]
    ) -> float:
        attach_head(model, blocks=blocks)
        ids = torch.tensor([prompt + response])
        labels = torch.full_like(ids, IGNORED)
        labels[:, len(prompt) :] = ids[:, len(prompt) :]
        with torch.no_grad():
            out = model(input_ids=ids, labels=labels, fused_lm_head=True)
        detach_head(model)
        return float(out.log_probs.sum())

    return measure


@pytest.fixture(scope="session")
def data_of() -> Callable[[World, AdIndex, PromptRecipe], TrainingData]:
    """What makes training data of a world."""
    return make_data
