"""Score fusion inside the beam: the LLM and the collaborative signal decide together, level by level.

Ours; LEADRE §3.4 decodes by P_LLM alone. The collaborative signal is a distribution over ads, and a node of the trie is
a range of ads, so what it says of any S-ID prefix is the difference of two prefix sums: exact, however many children
are asked for. A beam is ordered by (1 - w) log P_LLM(prefix) + w log P_collaborative(prefix), at the last level the
geometric mean of the two distributions. What is below a prefix counts ads that are not live, as with the score `level`.
The histories are read from the S-IDs in the prompts: engine and callers need nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leadre.collaborative.blend import Collaborative
from leadre.collaborative.leaves import EVEN_SHARE, nearest_known
from leadre.decoding.exact.search import Int64s
from leadre.evaluation.baselines import Histories
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import Trie
from leadre.prompts.vocabulary import Vocabulary

_SMALLEST = np.finfo(np.float64).tiny
_ADS_A_TOKEN = 512  # a prompt's prefix sums weigh as much as so many tokens, for the bound on a pass


class IndexedSignal:
    """A collaborative signal over one revision of an index.

    An ad that the histories do not have, for example a new one, is as likely as the one of those they have that shares
    most of its S-ID with it.

    Args:
        collaborative: a distribution over the ads it knows.
        index: the ads that may be generated.
        vocabulary: how prompts spell S-IDs.
    """

    def __init__(self, collaborative: Collaborative, *, index: AdIndex, vocabulary: Vocabulary) -> None:
        self.collaborative, self.index, self.vocabulary = collaborative, index, vocabulary
        self.source = nearest_known(index, collaborative.items)
        """int64[leaves], the number of the known item that stands for each ad."""

    def over(self, index: AdIndex) -> IndexedSignal:
        """Return the same signal over another revision."""
        return IndexedSignal(self.collaborative, index=index, vocabulary=self.vocabulary)

    def histories(self, prompts: Sequence[Sequence[int]]) -> Histories:
        """Return the ads whose S-IDs stand in each prompt."""
        return histories_in(prompts, index=self.index, vocabulary=self.vocabulary)

    def likely(self, histories: Histories) -> NDArray[np.float64]:
        """Return the probability of each ad of the index, float64[n, ads]; none is 0."""
        return self._spread(self.collaborative.log_probabilities(histories))

    def likely_with_lean(self, histories: Histories) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Return `likely`, and how far SASRec's logarithms are above co-visitation's, float32[n, known ads]."""
        logs, lean = self.collaborative.with_lean(histories)
        return self._spread(logs), lean

    def _spread(self, logs: NDArray[np.float32]) -> NDArray[np.float64]:
        likely = np.exp(logs.astype(np.float64))[:, self.source]
        likely *= (1.0 - EVEN_SHARE) / likely.sum(axis=1, keepdims=True).clip(min=_SMALLEST)
        likely += EVEN_SHARE / max(1, len(self.index))
        return likely


class Fusion:
    """A share in the beam's score for a collaborative signal.

    Args:
        collaborative: a distribution over the ads it knows.
        weight: w, its share in the score, 0 to 1.
        index: the ads that may be generated.
        vocabulary: how prompts spell S-IDs.
    """

    def __init__(self, collaborative: Collaborative, *, weight: float, index: AdIndex, vocabulary: Vocabulary) -> None:
        self._signal = IndexedSignal(collaborative, index=index, vocabulary=vocabulary)
        self._weight = weight
        self.tokens = len(index) // _ADS_A_TOKEN

    def over(self, index: AdIndex) -> Fusion:
        """Return the same signal over another revision."""
        signal = self._signal
        return Fusion(signal.collaborative, weight=self._weight, index=index, vocabulary=signal.vocabulary)

    def read(self, prompts: Sequence[Sequence[int]], *, request_of: Int64s) -> NodeMasses:
        """Return what the signal says of every node, from the S-IDs in the prompts.

        Args:
            prompts: token ids.
            request_of: int64 [requests], the prompt of each request.
        """
        index = self._signal.index
        sums = np.zeros((len(prompts), len(index) + 1))
        np.cumsum(self._signal.likely(self._signal.histories(prompts)), axis=1, out=sums[:, 1:])
        return NodeMasses(trie=index.trie, sums=sums, prompt_of=request_of, weight=self._weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeMasses:
    """The probability below every node, for some prompts.

    Args:
        trie: whose nodes.
        sums: float64 [prompts, leaves + 1], of the leaves before each.
        prompt_of: int64 [requests], the prompt of each request.
        weight: w.
    """

    trie: Trie
    sums: NDArray[np.float64]
    prompt_of: Int64s
    weight: float

    def fuse(self, score: NDArray[np.float64], *, request: Int64s, depth: int, nodes: Int64s) -> NDArray[np.float64]:
        """Return what beams are ordered by. See `leadre.decoding.exact.search.Masses`."""
        prompt = self.prompt_of[request]
        low, high = self.trie.leaf_range(depth, nodes)
        masses = self.sums[prompt, high] - self.sums[prompt, low]
        fused: NDArray[np.float64] = (1.0 - self.weight) * score + self.weight * np.log(masses)
        return fused

    def of_leaves(self, prompt: int, leaves: Int64s) -> NDArray[np.float64]:
        """Return log p of leaves for one of the prompts, float64 [leaves]."""
        found: NDArray[np.float64] = np.log(self.sums[prompt, leaves + 1] - self.sums[prompt, leaves])
        return found


def histories_in(prompts: Sequence[Sequence[int]], *, index: AdIndex, vocabulary: Vocabulary) -> Histories:
    """Return the ads whose S-IDs stand in each prompt, in their order; codes that spell no ad are passed over."""
    sizes = [len(prompt) for prompt in prompts]
    tokens = np.concatenate([np.empty(0, np.int64), *(np.asarray(prompt, np.int64) for prompt in prompts)])
    row = np.repeat(np.arange(len(prompts)), sizes)
    levels = vocabulary.levels
    first = np.flatnonzero((tokens >= vocabulary.level_offsets[0]) & (tokens < vocabulary.size))
    first = first[first + levels <= len(tokens)]
    first = first[row[first] == row[first + levels - 1]]
    codes = tokens[first[:, None] + np.arange(levels)] - np.array(vocabulary.level_offsets)
    whole = ((codes >= 0) & (codes < np.array(vocabulary.code_counts))).all(axis=1)
    first, codes = first[whole], codes[whole]
    leaves = index.trie.find(codes.astype(np.int32))
    known = leaves >= 0
    offsets = np.searchsorted(row[first[known]], np.arange(len(prompts) + 1))
    return Histories(offsets=offsets.astype(np.int64), items=index.ad_ids[leaves[known]])
