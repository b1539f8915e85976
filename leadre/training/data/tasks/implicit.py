"""Implicit alignment: the next ad's S-ID from a history that names ads by title. LEADRE §4.3.1.

Titles cost many tokens, so each user gives its last two targets at most, with or without reuse.
"""

from __future__ import annotations

from leadre.prompts.fit_length import PromptEncoder
from leadre.training.data.examples import Example, TrainingData, with_response

TARGETS_A_USER = 2


def examples(data: TrainingData, encoder: PromptEncoder) -> list[Example]:
    """Return an example for each of a user's newest targets; without `reuse_positives`, for the newest one."""
    kept = TARGETS_A_USER if data.recipe.reuse_positives else 1
    return [
        with_response(
            encoder.encode(data.prompt(user, position, titles=True)),
            encoder.vocabulary.sid_ids(data.answer(user, position)),
        )
        for user, positions in enumerate(data.targets)
        for position in positions[-kept:]
    ]
