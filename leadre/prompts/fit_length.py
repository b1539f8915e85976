"""From a prompt to token ids within the budget: the oldest behaviors go first.

LEADRE §5.1.1 (2,096 tokens), §4.2.1. Each segment is encoded by itself, so that training and serving give the same ids
and a repeated segment is encoded once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from leadre.errors import InvalidInput
from leadre.prompts.render import Learnable, Prompt, Segment, Sid, Text
from leadre.prompts.vocabulary import Vocabulary
from leadre.recipe import PromptRecipe

TextEncode = Callable[[str], Sequence[int]]
"""Text to ids below `Vocabulary.text_size`, by a tokenizer without added tokens and without special ones."""

REMEMBERED_SEGMENTS = 32_768
NO_TARGET = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetedPrompt:
    """A prompt's token ids with the positions that a one-pass training step supervises.

    `levels[i]` is the level of the S-ID code at position i when it belongs to an ad of the behavior sequence, else
    `NO_TARGET`. As usual for a causal LM, position i is predicted at position i - 1.
    """

    ids: list[int]
    levels: list[int]


class PromptEncoder:
    """Encodes prompts for one model.

    Args:
        vocabulary: where the special tokens stand.
        text_encode: the text tokenizer.
        recipe: `budget_tokens` bounds the prompt.
    """

    def __init__(self, vocabulary: Vocabulary, text_encode: TextEncode, recipe: PromptRecipe) -> None:
        self.vocabulary = vocabulary
        self.recipe = recipe

        @lru_cache(maxsize=REMEMBERED_SEGMENTS)
        def encode_segment(segment: Segment) -> tuple[int, ...]:
            match segment:
                case Text(text):
                    return tuple(text_encode(text))
                case Sid(sid):
                    return tuple(vocabulary.sid_ids(sid))
                case Learnable():
                    return (vocabulary.learnable_id,)

        self._encode_segment = encode_segment

    def encode(self, prompt: Prompt) -> list[int]:
        """Return the prompt's token ids, at most `recipe.budget_tokens`, the oldest behaviors left out if need be.

        Raises:
            InvalidInput: head and tail alone exceed the budget.
            InvalidSemanticId: an S-ID that the vocabulary does not have.
        """
        head, behaviors, tail = self._fit(prompt)
        ids = list(head)
        for segments in behaviors:
            for segment in segments:
                ids += self._encode_segment(segment)
        ids += tail
        return ids

    def encode_with_targets(self, prompt: Prompt) -> TargetedPrompt:
        """Return the ids of `encode` and which of them are codes of the sequence's ads.

        Raises:
            InvalidInput, InvalidSemanticId: as `encode`.
        """
        head, behaviors, tail = self._fit(prompt)
        ids, levels = list(head), [NO_TARGET] * len(head)
        for segments in behaviors:
            for segment in segments:
                encoded = self._encode_segment(segment)
                ids += encoded
                levels += range(len(encoded)) if isinstance(segment, Sid) else [NO_TARGET] * len(encoded)
        ids += tail
        levels += [NO_TARGET] * len(tail)
        return TargetedPrompt(ids=ids, levels=levels)

    def fitted(self, prompt: Prompt) -> Prompt:
        """Return the prompt with those of its behaviors that `encode` keeps.

        Raises:
            InvalidInput, InvalidSemanticId: as `encode`.
        """
        return replace(prompt, behaviors=self._fit(prompt)[1])

    def _fit(self, prompt: Prompt) -> tuple[list[int], tuple[tuple[Segment, ...], ...], list[int]]:
        head = [token for segment in prompt.head for token in self._encode_segment(segment)]
        tail = [token for segment in prompt.tail for token in self._encode_segment(segment)]
        budget = self.recipe.budget_tokens
        left = budget - len(head) - len(tail)
        if left < 0:
            raise InvalidInput(
                f"a prompt without any behavior has {len(head) + len(tail)} tokens, budget_tokens is {budget}; raise it"
            )
        first = len(prompt.behaviors)
        while first:
            cost = sum(len(self._encode_segment(segment)) for segment in prompt.behaviors[first - 1])
            if cost > left:
                break
            left -= cost
            first -= 1
        return head, prompt.behaviors[first:], tail
