"""The engine of a decoder and an index: requests in, ads out, in passes of bounded memory.

LEADRE §3.4, §4.4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from leadre.decoding.engine import Score, beams_at, check_request, check_revision
from leadre.decoding.exact.fusion import Fusion
from leadre.decoding.exact.search import Decoder, Frontier, Int64s, Masses, search
from leadre.decoding.steps import Step
from leadre.domain.retrieval import Beam
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask, Trie


class BeamSearchEngine:
    """Decodes prompts together; a prompt asked for several times, under different filters, is read once.

    Args:
        decoder: runs the LLM.
        index: the ads.
        tokens_per_pass: requests are decoded together, shortest first, up to this many tokens, a beam counted as four:
            a bound on memory, and beyond some thousands no longer a gain in speed.
        fusion: another source that has a say in what the beams are; None: the LLM alone.
    """

    def __init__(
        self, decoder: Decoder, *, index: AdIndex, tokens_per_pass: int = 8192, fusion: Fusion | None = None
    ) -> None:
        self._decoder, self._index, self._tokens_per_pass = decoder, index, tokens_per_pass
        self._fusion = fusion

    @property
    def index_version(self) -> str:
        """The index whose S-IDs this engine generates."""
        return self._index.version

    @property
    def score(self) -> Score:
        """What its log-probabilities are normalised over."""
        return self._decoder.score

    def over(self, index: AdIndex) -> BeamSearchEngine:
        """Return this engine over another revision of its index. See `leadre.decoding.engine.Engine.over`.

        Raises:
            ReleaseMismatch: `index` is another version.
        """
        check_revision(index, index_version=self.index_version)
        return BeamSearchEngine(
            self._decoder,
            index=index,
            tokens_per_pass=self._tokens_per_pass,
            fusion=self._fusion.over(index) if self._fusion else None,
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
            BrokenModel: the model gives NaN.
        """
        masks = check_request(
            prompts,
            beam_width=beam_width,
            filters=filters,
            vocabulary_size=self._decoder.vocabulary_size,
            longest_prompt=self._decoder.longest_prompt,
            leaves=self._index.trie.leaves,
        )
        answer: list[list[Beam]] = [[] for _ in prompts]
        trie = self._index.trie
        requests: dict[tuple[int, ...], list[int]] = {}  # by prompt: the requests that some ad is live for
        for request, (prompt, mask) in enumerate(zip(prompts, masks, strict=True)):
            if trie.leaves and (mask is None or mask.live_leaves):
                requests.setdefault(tuple(prompt), []).append(request)
        least = self._fusion.tokens if self._fusion else 0
        costs = {prompt: max(len(prompt), 4 * beam_width * len(asked), least) for prompt, asked in requests.items()}
        for read in _passes(costs, limit=self._tokens_per_pass):
            together = [request for prompt in read for request in requests[prompt]]
            prompt_of = np.repeat(np.arange(len(read)), [len(requests[prompt]) for prompt in read])
            found = search(
                self._decoder.read(read),
                trie,
                filters=[masks[request] for request in together],
                prompt_of=prompt_of,
                beam_width=beam_width,
                score=self.score,
                masses=self._fusion.read(read, request_of=prompt_of) if self._fusion else None,
            )
            for request, beams in zip(together, self._beams(found, requests=len(together)), strict=True):
                answer[request] = beams
        return answer

    def steps(
        self, prompt: Sequence[int], *, beam_width: int, mask: LiveMask | None = None, towards: int | None = None
    ) -> list[Step]:
        """Return the levels of one request's search. See `leadre.decoding.steps.Stepwise.steps`.

        Raises:
            InvalidInput: a request outside the contract.
            BrokenModel: the model gives NaN.
        """
        trie, noted = self._index.trie, list[Step]()
        check_request(
            [prompt],
            beam_width=beam_width,
            filters=[mask],
            vocabulary_size=self._decoder.vocabulary_size,
            longest_prompt=self._decoder.longest_prompt,
            leaves=trie.leaves,
        )
        if not trie.leaves or (mask is not None and not mask.live_leaves):
            return noted
        only = np.zeros(1, np.int64)
        masses: Masses | None = self._fusion.read([prompt], request_of=only) if self._fusion else None
        if towards is not None:
            masses, beam_width = _Towards(trie, towards), 1
        search(
            self._decoder.read([prompt]),
            trie,
            filters=[mask],
            prompt_of=only,
            beam_width=beam_width,
            score=self.score,
            masses=masses,
            note=noted.append,
        )
        return noted

    def _beams(self, found: Frontier, *, requests: int) -> list[list[Beam]]:
        """Name the ads of leaves, grouped by request."""
        beams = beams_at(self._index, found.node, found.rank.tolist())
        ends = np.searchsorted(found.request, np.arange(requests + 1)).tolist()
        return [beams[low:high] for low, high in pairwise(ends)]


class _Towards:
    """Puts the path to one leaf before all else, so that a single beam walks it."""

    def __init__(self, trie: Trie, leaf: int) -> None:
        self._trie, self._leaf = trie, leaf

    def fuse(self, score: NDArray[np.float64], *, request: Int64s, depth: int, nodes: Int64s) -> NDArray[np.float64]:  # noqa: ARG002 - `Masses`
        low, high = self._trie.leaf_range(depth, nodes)
        return np.where((low <= self._leaf) & (self._leaf < high), 0.0, -np.inf)


def _passes(costs: dict[tuple[int, ...], int], *, limit: int) -> list[list[tuple[int, ...]]]:
    """Group prompts of similar cost, so that each group, padded to its dearest one, stays within the limit."""
    passes: list[list[tuple[int, ...]]] = []
    for prompt in sorted(costs, key=lambda prompt: costs[prompt]):
        if passes and (len(passes[-1]) + 1) * costs[prompt] <= limit:
            passes[-1].append(prompt)
        else:
            passes.append([prompt])
    return passes
