"""An engine without a model: seeded scores, for wiring tests and for trying the services on a bare machine.

It obeys the contract of `leadre.decoding.engine.Engine`; its ads mean nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leadre.decoding.engine import Score, beams_at, check_request, check_revision
from leadre.decoding.exact.search import segmented_top
from leadre.domain.retrieval import Beam
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask


class StubEngine:
    """Scores an ad by a hash of the seed, the prompt and the ad's S-ID.

    The scores are log-probabilities (over all S-IDs that the codes can spell they sum to at most 1), do not depend on
    the filter, and are the same in every process.

    Args:
        index: the ads.
        vocabulary_size: token ids are below it.
        seed: another seed ranks the ads anew.
        longest_prompt: tokens that a prompt may have; None for no limit.
    """

    def __init__(
        self, index: AdIndex, *, vocabulary_size: int, seed: int = 0, longest_prompt: int | None = None
    ) -> None:
        self._index, self._vocabulary_size, self._longest_prompt = index, vocabulary_size, longest_prompt
        self._seed = seed
        self._key = seed.to_bytes(8, "little", signed=True)
        self._ads = np.zeros(len(index.ad_ids), dtype=np.uint64)
        for level in range(index.trie.levels):
            self._ads = _mix(self._ads ^ index.codes[:, level].astype(np.uint64))
        self._log_spellings = sum(math.log(count) for count in index.code_counts)

    @property
    def index_version(self) -> str:
        """The index whose S-IDs this engine generates."""
        return self._index.version

    @property
    def score(self) -> Score:
        """Always "raw": a score does not depend on the filter."""
        return "raw"

    def over(self, index: AdIndex) -> StubEngine:
        """Return this engine over another revision of its index. See `leadre.decoding.engine.Engine.over`.

        Raises:
            ReleaseMismatch: `index` is another version.
        """
        check_revision(index, index_version=self.index_version)
        return StubEngine(
            index, vocabulary_size=self._vocabulary_size, seed=self._seed, longest_prompt=self._longest_prompt
        )

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        beam_width: int,
        filters: Sequence[LiveMask | None] | None = None,
    ) -> list[list[Beam]]:
        """Return the best ads of each prompt, best first. See `leadre.decoding.engine.Engine.generate`.

        Raises:
            InvalidInput: a request outside the contract.
        """
        masks = check_request(
            prompts,
            beam_width=beam_width,
            filters=filters,
            vocabulary_size=self._vocabulary_size,
            longest_prompt=self._longest_prompt,
            leaves=self._index.trie.leaves,
        )
        return [self._best(prompt, mask, beam_width) for prompt, mask in zip(prompts, masks, strict=True)]

    def _best(self, prompt: Sequence[int], mask: LiveMask | None, beam_width: int) -> list[Beam]:
        digest = hashlib.blake2b(np.asarray(prompt, dtype="<i8").tobytes(), key=self._key, digest_size=8).digest()
        bits = _mix(self._ads ^ np.uint64(int.from_bytes(digest, "little")))
        uniform = ((bits >> np.uint64(11)).astype(np.float64) + 1) * 2.0**-53  # (0, 1]
        leaves = np.arange(len(self._ads))
        if mask is not None:
            leaves = leaves[mask.count(leaves, leaves + 1) > 0]
        scores = np.log(uniform[leaves]) - self._log_spellings
        best = segmented_top(scores, np.zeros_like(leaves), segments=1, width=beam_width)
        return beams_at(self._index, leaves[best], scores[best].tolist())


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit integers (SplitMix64's finaliser)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = values ^ (values >> np.uint64(31))
    return mixed
