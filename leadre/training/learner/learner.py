"""A learner: model, vocabulary, tokenizers and prompt encoder that belong together. LEADRE §4.3, §5.1.3."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from leadre.errors import ReleaseMismatch
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.code_vectors import code_vectors
from leadre.prompts.fit_length import PromptEncoder
from leadre.prompts.vocabulary import Vocabulary
from leadre.recipe import Recipe
from leadre.training.data.examples import TrainingData, corpus
from leadre.training.learner.model import build_model, start_codes
from leadre.training.learner.release_folder import MODEL, load_text_tokenizer, load_vocabulary, open_release
from leadre.training.learner.tokenizer import (
    load_base_tokenizer,
    model_tokenizer,
    text_encoder,
    text_tokenizer_of,
    train_text_tokenizer,
)

TOKENIZER_USERS = 2000
"""Users whose prompts the tokenizer learns from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """A model with everything that turns prompts into its token ids."""

    model: PreTrainedModel
    vocabulary: Vocabulary
    text_tokenizer: Tokenizer
    tokenizer: PreTrainedTokenizerBase
    encoder: PromptEncoder

    @property
    def code_blocks(self) -> list[tuple[int, int]]:
        """(First token id, count) of each level's codes."""
        return list(zip(self.vocabulary.level_offsets, self.vocabulary.code_counts, strict=True))

    @property
    def new_tokens(self) -> range:
        """Ids of the special tokens and codes, which no text has."""
        return range(self.vocabulary.text_size, self.vocabulary.size)


def fresh_learner(recipe: Recipe, index: AdIndex, data: TrainingData, *, more_text: Iterable[str] = ()) -> Learner:
    """Return an untrained model for an index: from the base model, or small with a tokenizer trained on the data.

    Args:
        recipe: its prompts and its model.
        index: whose S-IDs get tokens.
        data: whose prompts the tokenizer learns from.
        more_text: what else it learns from, each text as often as it will be written.

    Raises:
        ConfigError: a base model that cannot be used, or sizes that do not fit each other.
    """
    base: PreTrainedTokenizerBase | Tokenizer
    if recipe.model.base_model:
        base = load_base_tokenizer(recipe.model.base_model)
        text_tokenizer = text_tokenizer_of(base)
        text_size = max(base.get_vocab().values()) + 1
    else:
        texts = chain(corpus(data, users=TOKENIZER_USERS), more_text)
        text_tokenizer = train_text_tokenizer(texts, size=recipe.model.text_vocabulary)
        base, text_size = text_tokenizer, text_tokenizer.get_vocab_size()
    vocabulary = Vocabulary(text_size=text_size, code_counts=index.code_counts)
    model = build_model(
        recipe.model,
        vocabulary_size=vocabulary.size,
        text_tokens=text_tokenizer.get_vocab_size(),
        positions=recipe.prompt.budget_tokens + vocabulary.levels,
        pad=vocabulary.pad_id,
        eos=vocabulary.eos_id,
        seed=recipe.sft.seed,
    )
    if recipe.model.code_start == "codebooks":
        start_codes(model, code_vectors(index), vocabulary=vocabulary, seed=recipe.sft.seed)
    return Learner(
        model=model,
        vocabulary=vocabulary,
        text_tokenizer=text_tokenizer,
        tokenizer=model_tokenizer(base, vocabulary),
        encoder=PromptEncoder(vocabulary, text_encoder(text_tokenizer), recipe.prompt),
    )


def warm_learner(recipe: Recipe, index: AdIndex, release: Path) -> Learner:
    """Return the model of a release, to train on.

    Raises:
        ReleaseMismatch: it speaks of another index.
        ArtifactIncomplete: no whole release there.
    """
    trained_for = open_release(release).facts["index_version"]
    if trained_for != index.version:
        raise ReleaseMismatch(
            f"release {release.name} was trained for index {trained_for}, this is index {index.version}; "
            "train without a warm start"
        )
    vocabulary, text_tokenizer = load_vocabulary(release), load_text_tokenizer(release)
    return Learner(
        model=AutoModelForCausalLM.from_pretrained(release / MODEL, use_safetensors=True, local_files_only=True),
        vocabulary=vocabulary,
        text_tokenizer=text_tokenizer,
        tokenizer=load_base_tokenizer(str(release / MODEL)),
        encoder=PromptEncoder(vocabulary, text_encoder(text_tokenizer), recipe.prompt),
    )
