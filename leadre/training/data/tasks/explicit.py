"""Explicit alignment: from an ad's description to its S-ID. LEADRE §4.3.1."""

from __future__ import annotations

from leadre.indexing.texts.description import describe
from leadre.prompts.fit_length import PromptEncoder
from leadre.prompts.render import render_explicit
from leadre.training.data.examples import Example, TrainingData, with_response


def examples(data: TrainingData, encoder: PromptEncoder) -> list[Example]:
    """Return one example for each ad of the index."""
    made = []
    for ad in data.ads:
        sid = data.sid_of(ad.ad_id)
        if sid is not None:
            ids = encoder.encode(render_explicit(describe(ad), recipe=data.recipe))
            made.append(with_response(ids, encoder.vocabulary.sid_ids(sid)))
    return made
