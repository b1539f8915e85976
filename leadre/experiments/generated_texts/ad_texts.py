"""Ads named by text in place of S-IDs: their names, and a compressed text; and a vocabulary that spells ads so.

LEADRE §5.2.5, Table 6. The paper's compressed texts are not published, nor how they were made; ours are the
most distinctive words of an ad's name, chosen without an LLM.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from leadre.domain.ads import Ad
from leadre.domain.semantic_id import SemanticId
from leadre.errors import InvalidInput, InvalidSemanticId
from leadre.prompts.fit_length import PromptEncoder
from leadre.prompts.render import clean
from leadre.prompts.vocabulary import Vocabulary
from leadre.training.learner.learner import Learner
from leadre.training.learner.tokenizer import text_encoder

COMPRESSED_WORDS = 2
"""Words of a name that a compressed text has at least, if it has so many."""
_WORD = re.compile(r"\w+")


def original_texts(ads: Sequence[Ad]) -> list[str]:
    """Return each ad's name, as prompts show it."""
    return [clean(ad.name) for ad in ads]


def compressed_texts(ads: Sequence[Ad]) -> list[str]:
    """Return for each ad the few words of its name that tell it from other ads, the most telling first.

    Words are ranked by TF-IDF over the names of all ads. Ads whose texts would be equal take one word more, of those
    that not all of them have, until the texts differ or no such word is left: ads share a text when the rest of the
    names has the same words.

    Args:
        ads: the catalog.
    """
    names = [_WORD.findall(name) for name in original_texts(ads)]
    seen_in = Counter(word for name in names for word in set(name))
    ranked = []
    for name in names:
        weights = {word: times * math.log(len(ads) / seen_in[word]) for word, times in Counter(name).items()}
        ranked.append(sorted(weights, key=lambda word: -weights[word]))  # equal ones as they stand in the name
    texts = [words[:COMPRESSED_WORDS] for words in ranked]
    left = [words[COMPRESSED_WORDS:] for words in ranked]
    while True:
        alike: dict[tuple[str, ...], list[int]] = {}
        for ad, words in enumerate(texts):
            alike.setdefault(tuple(words), []).append(ad)
        for group in (group for group in alike.values() if len(group) > 1):
            everywhere = set.intersection(*(set(left[ad]) for ad in group))  # these tell none from the others
            for ad in group:
                left[ad] = [word for word in left[ad] if word not in everywhere]
                texts[ad] = texts[ad] + left[ad][:1]
                left[ad] = left[ad][1:]
        if all(len(words) == len(texts[ad]) for words, group in alike.items() for ad in group):
            return [" ".join(words) for words in texts]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextVocabulary(Vocabulary):
    """A vocabulary that spells an ad by the tokens of a text, wherever another spells it by its S-ID's codes.

    So prompts, training tasks and evaluation are those of S-IDs, but for the tokens.

    Args:
        spelling: S-ID to the text's token ids, the end token last.
    """

    spelling: Mapping[SemanticId, tuple[int, ...]]

    def sid_ids(self, sid: SemanticId) -> list[int]:
        """Return the text's token ids and the end token.

        Raises:
            InvalidSemanticId: no ad's.
        """
        if sid not in self.spelling:
            raise InvalidSemanticId(f"{sid} has no text; give the texts of all ads of the index")
        return list(self.spelling[sid])


def spelled(learner: Learner, texts: Mapping[SemanticId, str]) -> Learner:
    """Return the learner with an encoder that writes ads as texts.

    The longest text still fits the model: what it has more tokens than an S-ID is taken from the prompts' budget.

    Args:
        learner: made for S-IDs.
        texts: of all ads of the index.

    Raises:
        InvalidInput: a text that leaves no room for a prompt.
    """
    encode, vocabulary, recipe = text_encoder(learner.text_tokenizer), learner.vocabulary, learner.encoder.recipe
    spelling = {sid: (*encode(text), vocabulary.eos_id) for sid, text in texts.items()}
    budget = recipe.budget_tokens + vocabulary.levels - max(map(len, spelling.values()))
    if budget < 1:
        raise InvalidInput(
            f"the longest text has {recipe.budget_tokens + vocabulary.levels - budget} tokens, more than "
            f"prompt.budget_tokens={recipe.budget_tokens}; raise it"
        )
    of_texts = TextVocabulary(text_size=vocabulary.text_size, code_counts=vocabulary.code_counts, spelling=spelling)
    return dataclasses.replace(
        learner, encoder=PromptEncoder(of_texts, encode, msgspec.structs.replace(recipe, budget_tokens=budget))
    )
