"""What a training is validated on: held-out ads, asked for as serving asks and retrieved by the decoder that serves.

LEADRE §5.1.1: each user's last ad but one. Evaluation asks for the last, which no choice made here has seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leadre.collaborative.blend import Collaborative
from leadre.decoding.exact.fusion import Fusion
from leadre.decoding.load import engine_of
from leadre.errors import InvalidInput
from leadre.evaluation.ranking import ABSENT
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask
from leadre.recipe import Recipe
from leadre.retrieval.own_ads import own_rows, without
from leadre.training.data.examples import TrainingData
from leadre.training.learner.learner import Learner
from leadre.training.run.validation import CUTOFF, Validation


def filters_at(places: Sequence[tuple[int, int]], data: TrainingData, *, index: AdIndex) -> list[LiveMask | None]:
    """Return the ads that may be generated at (user, position) of the data: all, or all but the own ones by then."""
    contexts = [data.context(*place) for place in places]
    own = own_rows(contexts, seen=data.seen, index=index, window_days=data.recipe.window_days)
    return without([None] * len(places), own, leaves=len(index))


def validation_of(
    learner: Learner,
    data: TrainingData,
    *,
    index: AdIndex,
    recipe: Recipe,
    signal: Collaborative | None = None,
) -> Validation | None:
    """Return the validation that a recipe asks for, on a seeded sample of users; None when it asks for none.

    The lists are the LLM's alone. One that learns beside the signal is validated beside it, as much as it trains: alone
    it is weak, and its best pass alone says nothing of what it adds.

    Args:
        learner: with the model in training.
        data: its validation ads.
        index: the ads.
        recipe: says how many users are asked, and how the model learns and scores.
        signal: for the objective "beside_signal".

    Raises:
        InvalidInput: it does, and no user has a held-out ad.
    """
    if not recipe.sft.validate_users:
        return None
    if not data.validation:
        raise InvalidInput(
            f"sft.validate_users={recipe.sft.validate_users}, but no user has enough ad behaviors to hold one out; "
            "import more, or set it to 0"
        )
    order = np.random.default_rng(recipe.sft.seed).permutation(len(data.validation))[: recipe.sft.validate_users]
    places = [data.validation[at] for at in order.tolist()]
    prompts = [learner.encoder.encode(data.prompt(*place, augment=False)) for place in places]
    filters = filters_at(places, data, index=index)
    width = max(CUTOFF, recipe.decoding.beam_width)
    model = learner.model
    fusion = None
    if recipe.sft.objective == "beside_signal" and signal is not None:
        beside = recipe.sft.beside_weight
        fusion = Fusion(signal, weight=beside / (1.0 + beside), index=index, vocabulary=learner.vocabulary)

    def lists() -> NDArray[np.int64]:
        training = model.config._attn_implementation
        model.set_attn_implementation("sdpa")  # training's own may know no padding on the left
        engine = engine_of(
            model,
            index=index,
            vocabulary=learner.vocabulary,
            score=recipe.decoding.score,
            kind="hf" if recipe.model.lora_rank else "auto",  # until they are merged, adapters are modules of their own
            fusion=fusion,
        )
        found = np.full((len(prompts), width), ABSENT, np.int64)
        for row, beams in enumerate(engine.generate(prompts, beam_width=width, filters=filters)):
            found[row, : len(beams)] = [beam.ad_id for beam in beams]
        model.set_attn_implementation(training)
        return found

    return Validation(
        lists=lists,
        answers=np.array([data.sequences[user][at].item_id for user, at in places], np.int64),
        patience=recipe.sft.patience,
    )
