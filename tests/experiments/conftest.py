"""An engine whose lists are known by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from leadre.domain.retrieval import Beam
from leadre.indexing.ad_index import AdIndex
from leadre.prompts.vocabulary import Vocabulary


class Echo:
    """Retrieves the ads of the prompt's sequence, the newest first: what is taken away is not retrieved."""

    def __init__(self, index: AdIndex, vocabulary: Vocabulary) -> None:
        self.index, self.vocabulary, self.prompts = index, vocabulary, 0
        self.index_version = index.version
        self.ad_of = {index.sid_at(row).codes: int(ad) for row, ad in enumerate(index.ad_ids)}

    def generate(
        self, prompts: Sequence[Sequence[int]], *, beam_width: int, filters: object = None
    ) -> list[list[Beam]]:
        self.prompts += len(prompts)
        answer = []
        for prompt in prompts:
            codes = [self.vocabulary.code_of(token) for token in prompt if self.vocabulary.level_of(token) is not None]
            levels = self.vocabulary.levels
            sids = [tuple(codes[at : at + levels]) for at in range(0, len(codes), levels)]
            ads = [self.ad_of[sid] for sid in dict.fromkeys(sids[::-1])]
            beams = [Beam(sid=self.index.sid(ad), ad_id=ad, log_probability=-float(at)) for at, ad in enumerate(ads)]
            answer.append(beams[:beam_width])
        return answer


@pytest.fixture
def echo() -> Callable[[AdIndex, Vocabulary], Echo]:
    return Echo
