"""A stand-in for TIGER: generative retrieval from S-IDs alone, the baseline that shows what text and alignment add.

Ours; the paper prints no such baseline. Rajput et al., Recommender Systems with Generative Retrieval, NeurIPS 2023
(arXiv:2305.05065). TIGER is a T5 encoder-decoder that reads a hashed user id and one history a sample; this is a
decoder without user ids that learns every item of a history in one pass. S-IDs, trie and beam search are our own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models
from transformers import PreTrainedModel

from leadre.evaluation.baselines import Histories, Seen
from leadre.evaluation.ranking import ABSENT
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask
from leadre.prompts.vocabulary import Vocabulary
from leadre.recipe import ModelRecipe, SftRecipe, TigerRecipe
from leadre.training.data.examples import with_response
from leadre.training.learner.model import build_model
from leadre.training.learner.tokenizer import model_tokenizer
from leadre.training.objectives.sft import Stage, run_stage
from leadre.training.run.progress import Progress
from leadre.training.run.validation import CUTOFF, Validation

if TYPE_CHECKING:
    from leadre.decoding.engine import Engine

Ints = NDArray[np.int64]

VALIDATION_USERS = 1_000
"""A seeded sample of at most so many users decides when to stop (ours)."""
_ROWS_AT_ONCE = 256


class Tiger:
    """A model over the codes of an index, and the engine that decodes it."""

    def __init__(
        self,
        model: PreTrainedModel,
        vocabulary: Vocabulary,
        *,
        index: AdIndex,
        engine_of: Callable[[PreTrainedModel, Vocabulary], Engine],
        positions: int,
    ) -> None:
        self._model, self._vocabulary, self._index = model, vocabulary, index
        self._engine_of, self._positions = engine_of, positions
        self._tokens = index.codes + np.array(vocabulary.level_offsets)

    @classmethod
    def fit(
        cls,
        train: Histories,
        *,
        targets: Ints,
        index: AdIndex,
        engine_of: Callable[[PreTrainedModel, Vocabulary], Engine],
        recipe: TigerRecipe,
        seed: int,
        progress: Progress | None = None,
    ) -> Tiger:
        """Train until validation HR@10 has not risen for `recipe.patience` passes; keep the best weights.

        Every item of a history is learned from those before it, the first from nothing.

        Args:
            train: one row a user; items that the index does not hold are passed over.
            targets: int64[len(train)], the item that followed each row, `ABSENT` where none is held out; without any,
                all passes are trained.
            index: gives items their S-IDs; all its ads may be generated.
            engine_of: puts a model and its vocabulary behind `index`.
            recipe: sizes and rates.
            seed: of weights and order.
            progress: called after each step.
        """
        vocabulary = Vocabulary(text_size=0, code_counts=index.code_counts)
        model = build_model(
            ModelRecipe(
                hidden_size=recipe.width, layers=recipe.layers, heads=recipe.heads, feed_forward=recipe.feed_forward
            ),
            vocabulary_size=vocabulary.size,
            positions=1 + (recipe.positions + 1) * vocabulary.levels,
            pad=vocabulary.pad_id,
            eos=vocabulary.eos_id,
            seed=seed,
        )
        tiger = cls(model, vocabulary, index=index, engine_of=engine_of, positions=recipe.positions)
        rows = tiger._rows(train)
        if any(map(len, rows)):
            tiger._train(rows, targets, recipe=recipe, seed=seed, seen=train.seen, progress=progress)
        return tiger

    def top(self, histories: Histories, k: int, *, seen: Seen) -> Ints:
        """Return the k best ads of the index for each row, int64[n, k], padded with `ABSENT`."""
        return self._top(self._rows(histories), k, seen=seen)

    def _train(
        self, rows: list[Ints], targets: Ints, *, recipe: TigerRecipe, seed: int, seen: Seen, progress: Progress | None
    ) -> None:
        vocabulary = self._vocabulary
        held_out = np.random.default_rng(seed).permutation(np.flatnonzero(targets != ABSENT))[:VALIDATION_USERS]
        asked = [rows[row] for row in held_out.tolist()]
        validation = Validation(
            lists=lambda: self._top(asked, CUTOFF, seen=seen), answers=targets[held_out], patience=recipe.patience
        )
        prompts = [self._prompt(row, items=recipe.positions + 1) for row in rows if len(row)]
        with tempfile.TemporaryDirectory(prefix="leadre-tiger-") as work:
            run_stage(
                self._model,
                Stage(
                    name="tiger",
                    examples=[with_response(prompt[:1], prompt[1:]) for prompt in prompts],
                    epochs=recipe.epochs,
                ),
                recipe=SftRecipe(
                    learning_rate=recipe.learning_rate,
                    minimum_learning_rate=recipe.learning_rate / 10,
                    weight_decay=recipe.weight_decay,
                    batch_size=recipe.batch_size,
                    device_batch_size=recipe.batch_size,
                    level_loss=True,
                    seed=seed,
                ),
                tokenizer=model_tokenizer(Tokenizer(models.BPE()), vocabulary),
                code_blocks=list(zip(vocabulary.level_offsets, vocabulary.code_counts, strict=True)),
                work=Path(work),
                validation=validation if asked else None,
                progress=progress,
            )

    def _rows(self, histories: Histories) -> list[Ints]:
        """Return, for each history, the index's rows of the items it holds."""
        rows = self._index.rows(histories.items)
        known = rows >= 0
        ends = np.append(0, np.cumsum(known))[histories.offsets]
        return np.split(rows[known], ends[1:-1])

    def _prompt(self, row: Ints, *, items: int) -> list[int]:
        codes: list[int] = self._tokens[row[-items:]].ravel().tolist()
        return [self._vocabulary.learnable_id, *codes]

    def _top(self, rows: list[Ints], k: int, *, seen: Seen) -> Ints:
        engine = self._engine_of(self._model, self._vocabulary)
        found = np.full((len(rows), k), ABSENT, np.int64)
        order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
        for start in range(0, len(order), _ROWS_AT_ONCE):
            chosen = order[start : start + _ROWS_AT_ONCE]
            lists = engine.generate(
                [self._prompt(rows[at], items=self._positions) for at in chosen],
                beam_width=k,
                filters=[self._without(rows[at]) for at in chosen] if seen == "leave_out" else None,
            )
            for at, beams in zip(chosen, lists, strict=True):
                found[at, : len(beams)] = [beam.ad_id for beam in beams]
        return found

    def _without(self, row: Ints) -> LiveMask:
        live = np.ones(len(self._index), np.bool_)
        live[row] = False
        return LiveMask.of(live)
