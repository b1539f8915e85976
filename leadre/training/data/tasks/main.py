"""The main task: the next ad's S-ID from a history of S-IDs. LEADRE §4.2, §4.3.1.

With the template "one_pass" a user is one example in which every ad of the sequence is a target, seen through the
causal mask; the paper's format needs one example a target (its interest summary, in front, knows the future).
"""

from __future__ import annotations

from leadre.prompts.fit_length import PromptEncoder
from leadre.training.data.examples import Example, TrainingData, with_all_targets, with_response


def examples(data: TrainingData, encoder: PromptEncoder) -> list[Example]:
    """Return the examples of all users that have a target."""
    one_pass = data.recipe.template == "one_pass"
    made = []
    for user, (positions, first) in enumerate(zip(data.targets, data.first_targets(), strict=True)):
        numbered = list(enumerate(positions, first))
        for target, position in numbered if data.recipe.reuse_positives and not one_pass else numbered[-1:]:
            prompt, response = data.prompt(user, position), encoder.vocabulary.sid_ids(data.answer(user, position))
            if one_pass and data.recipe.reuse_positives:
                made.append(with_all_targets(encoder.encode_with_targets(prompt), response, target=target))
            else:
                made.append(with_response(encoder.encode(prompt), response, target=target))
    return made
