"""The engine's contract: prompts (token ids) in, scored S-IDs out.

LEADRE §3.4. An engine knows nothing of users, ads' texts or features. One contract test covers all implementations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from leadre.domain.retrieval import Beam
from leadre.domain.semantic_id import SemanticId
from leadre.errors import InvalidInput, ReleaseMismatch
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask

Score = Literal["raw", "level", "valid"]
"""What a beam's probability is a product of: "raw", P_LLM over the whole vocabulary, as Algorithm 2 prints it;
"level", the softmax over the codes of the level alone (ours, the default); "valid", the softmax over the codes that
lead to a live ad, as TensorRT-LLM and xLLM normalise: a code without a live sibling is certain, so scores under
different filters do not compare."""


class Engine(Protocol):
    """Generates ads under the trie of one index version."""

    @property
    def index_version(self) -> str:
        """The index whose S-IDs this engine generates."""
        ...

    @property
    def score(self) -> Score:
        """What its log-probabilities are normalised over."""
        ...

    def over(self, index: AdIndex) -> Engine:
        """Return this engine over another revision of its index. The model stays where it is; nothing is copied.

        Raises:
            ReleaseMismatch: `index` is another version.
        """
        ...

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        beam_width: int,
        filters: Sequence[LiveMask | None] | None = None,
    ) -> list[list[Beam]]:
        """Return the best ads of each prompt, best first.

        Args:
            prompts: one sequence of token ids a user, of any lengths, none empty.
            beam_width: B of Algorithm 2; at most this many beams a prompt.
            filters: one mask a prompt (None: every ad of the index may be generated).

        Returns:
            For each prompt at most `beam_width` beams in falling log-probability; fewer when fewer ads are
            live, none when no ad is. Every beam is a live ad of the index.

        Raises:
            InvalidInput: an empty prompt, one longer than the model's limit, a token id outside the vocabulary,
                `beam_width` below 1, filters that are not one a prompt, or a filter of another index.
        """
        ...


def check_revision(index: AdIndex, *, index_version: str) -> None:
    """Refuse an index of another version than the engine's.

    Raises:
        ReleaseMismatch: as it says.
    """
    if index.version != index_version:
        raise ReleaseMismatch(
            f"the engine generates under index {index_version}, this is index {index.version}; load a release for it"
        )


def check_request(
    prompts: Sequence[Sequence[int]],
    *,
    beam_width: int,
    filters: Sequence[LiveMask | None] | None,
    vocabulary_size: int,
    longest_prompt: int | None,
    leaves: int,
) -> Sequence[LiveMask | None]:
    """Check what `Engine.generate` was given and return one filter a prompt.

    Args:
        prompts: as in `Engine.generate`.
        beam_width: as in `Engine.generate`.
        filters: as in `Engine.generate`.
        vocabulary_size: token ids are below it.
        longest_prompt: tokens that a prompt may have; None where the model has no limit.
        leaves: ads of the index.

    Raises:
        InvalidInput: as in `Engine.generate`; `row` is the prompt's position, from 1.
    """
    if beam_width < 1:
        raise InvalidInput(f"{beam_width}; ask for at least one beam", column="beam_width")
    if filters is not None and len(filters) != len(prompts):
        raise InvalidInput(
            f"{len(filters)} filters for {len(prompts)} prompts; give one a prompt or none", column="filters"
        )
    for mask in filters or ():
        if mask is not None and mask.leaves != leaves:
            raise InvalidInput(
                f"a filter over {mask.leaves} ads, the index has {leaves}; make it from this index", column="filters"
            )
    for row, prompt in enumerate(prompts, start=1):
        if not len(prompt):
            raise InvalidInput("the prompt is empty; it needs at least one token", row=row, column="prompts")
        if longest_prompt is not None and len(prompt) > longest_prompt:
            raise InvalidInput(
                f"the prompt has {len(prompt)} tokens, the model takes {longest_prompt} before an S-ID; drop behaviors",
                row=row,
                column="prompts",
            )
        if min(prompt) < 0 or max(prompt) >= vocabulary_size:
            raise InvalidInput(
                f"token ids {min(prompt)} to {max(prompt)}, the vocabulary has 0 to {vocabulary_size - 1}; "
                "encode the prompt with the release's own vocabulary",
                row=row,
                column="prompts",
            )
    return filters if filters is not None else [None] * len(prompts)


def beams_at(index: AdIndex, leaves: NDArray[np.int64], scores: Sequence[float]) -> list[Beam]:
    """Return the ads of leaves as beams.

    Args:
        index: the ads.
        leaves: int64 [n], rows of the index.
        scores: n log-probabilities.
    """
    codes, ad_ids = index.codes[leaves].tolist(), index.ad_ids[leaves].tolist()
    return [
        Beam(sid=SemanticId(tuple(sid)), ad_id=ad_id, log_probability=score)
        for sid, ad_id, score in zip(codes, ad_ids, scores, strict=True)
    ]
