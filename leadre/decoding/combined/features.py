"""What the ranker reads: candidates of both lists, each scored by both, and what is known of them and of who asks.

Ours; LEADRE §3.4 has the LLM's list alone. Features lie between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leadre.collaborative.blend import Collaborative
from leadre.decoding.engine import Engine
from leadre.decoding.exact.fusion import IndexedSignal
from leadre.domain.retrieval import Beam
from leadre.evaluation.baselines import Histories, places
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask

Floats = NDArray[np.float64]
Int64s = NDArray[np.int64]

USER_FEATURES = ("history", "signal_doubt", "llm_doubt")
"""Of who asks: how many ads the prompt holds (on a log scale, full at `_LONG`); the entropy of the signal, and that of
the LLM among its own best ads, each as a share of the largest there can be."""
AD_FEATURES = ("popular", "unknown", "sasrec", "follows", "like_last", "like_any")
"""Of a candidate: clicks in the training histories (log scale); none of them has it; how much likelier it is by SASRec
than by co-visitation (log scale, .5: as likely, 0 and 1 at `_LEAN`); how often users who had the prompt's newest ad had
it later, nearer ones counting more (log scale; 0: never); the share of its S-ID's codes that it has in common with the
newest ad, and with the ad of the prompt that shares most."""
_LONG = 50
_LEAN = 10.0  # nats
_SMALLEST = np.finfo(np.float64).tiny


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Ads of both lists of some requests, grouped by request, in the order of leaves.

    Args:
        request: int64[n], ascending.
        leaf: int64[n], rows of the index.
        by_llm: float64[n], log P_LLM.
        by_signal: float64[n], log P by the collaborative signal.
        user: float64[requests, len(USER_FEATURES)].
        ad: float64[n, len(AD_FEATURES)].
    """

    request: Int64s
    leaf: Int64s
    by_llm: Floats
    by_signal: Floats
    user: Floats
    ad: Floats

    @classmethod
    def joined(cls, parts: Sequence[Candidates]) -> Candidates:
        """Return candidates of several calls, the requests numbered on."""
        first = np.cumsum([0, *(len(part.user) for part in parts)])
        return cls(
            request=np.concatenate([part.request + at for part, at in zip(parts, first, strict=False)]),
            **{
                name: np.concatenate([getattr(part, name) for part in parts])
                for name in ("leaf", "by_llm", "by_signal", "user", "ad")
            },
        )


def gather(
    engine: Engine,
    signal: IndexedSignal,
    prompts: Sequence[Sequence[int]],
    *,
    each: int,
    filters: Sequence[LiveMask | None],
) -> Candidates:
    """Return the `each` best ads of the LLM and of the signal for every request, scored by both.

    The LLM is asked twice in one call: once freely, once for the signal's ads alone. A prompt is read once for both.

    Args:
        engine: the LLM alone, over the signal's index.
        signal: over the index.
        prompts: checked; one a request.
        each: ads of either list.
        filters: one a request.
    """
    index = signal.index
    distinct = {tuple(prompt): None for prompt in prompts}
    number = {prompt: at for at, prompt in enumerate(distinct)}
    prompt_of = np.array([number[tuple(prompt)] for prompt in prompts], np.int64)
    histories = signal.histories(list(distinct))
    likely, lean = signal.likely_with_lean(histories)
    tops = [_best(likely[at], mask, count=each) for at, mask in zip(prompt_of.tolist(), filters, strict=True)]
    found = engine.generate(
        [*prompts, *prompts], beam_width=each, filters=[*filters, *(_only(top, len(index)) for top in tops)]
    )
    doubt, leaves, scores = [], [], []
    for free, asked in zip(found[: len(prompts)], found[len(prompts) :], strict=True):
        doubt.append(_entropy(np.array([beam.log_probability for beam in free])))
        both = [*free, *asked]
        leaf, first = np.unique(_rows(index, both), return_index=True)
        leaves.append(leaf)
        scores.append(np.array([both[at].log_probability for at in first.tolist()], np.float64))
    request = np.repeat(np.arange(len(prompts)), [len(leaf) for leaf in leaves])
    leaf = np.concatenate([np.empty(0, np.int64), *leaves])
    leans = lean[prompt_of[request], signal.source[leaf]]
    return Candidates(
        request=request,
        leaf=leaf,
        by_llm=np.concatenate([np.empty(0), *scores]),
        by_signal=np.log(likely[prompt_of[request], leaf]),
        user=np.column_stack([_of_prompts(histories, likely)[prompt_of], np.array(doubt, np.float64)]),
        ad=_of_ads(signal, histories, row=prompt_of[request], leaf=leaf, lean=leans),
    )


def _best(likely: Floats, mask: LiveMask | None, *, count: int) -> Int64s:
    """Return the `count` likeliest live leaves, ascending; of equally likely ones the first."""
    live = np.arange(len(likely)) if mask is None else np.flatnonzero(_bits(mask))
    if len(live) <= count:
        return live
    of_live = likely[live]
    least = np.partition(of_live, -count)[-count]
    above, even = np.flatnonzero(of_live > least), np.flatnonzero(of_live == least)
    best: Int64s = live[np.sort(np.concatenate([above, even[: count - len(above)]]))]
    return best


def _bits(mask: LiveMask) -> NDArray[np.uint8]:
    return np.unpackbits(mask.words.astype("<u8").view(np.uint8), bitorder="little")[: mask.leaves]


def _only(leaves: Int64s, ads: int) -> LiveMask:
    live = np.zeros(ads, np.bool_)
    live[leaves] = True
    return LiveMask.of(live)


def _rows(index: AdIndex, beams: Sequence[Beam]) -> Int64s:
    return index.rows(np.array([beam.ad_id for beam in beams], np.int64))


def _entropy(log_probabilities: Floats) -> float:
    """Return the entropy of a list whose probabilities are made to sum to 1, as a share of the largest."""
    if len(log_probabilities) < 2:
        return 0.0
    shares = np.exp(log_probabilities - np.logaddexp.reduce(log_probabilities))
    return float(-(shares * np.log(shares.clip(min=_SMALLEST))).sum() / np.log(len(shares)))


def _of_prompts(histories: Histories, likely: Floats) -> Floats:
    """Return the first two features of who asks, float64[rows, 2]."""
    sizes = np.diff(histories.offsets)
    entropy = -(likely * np.log(likely)).sum(axis=1) / np.log(max(likely.shape[1], 2))
    return np.stack([np.minimum(np.log1p(sizes) / np.log1p(_LONG), 1.0), entropy], axis=1)


def _of_ads(
    signal: IndexedSignal, histories: Histories, *, row: Int64s, leaf: Int64s, lean: NDArray[np.float32]
) -> Floats:
    """Return the features of leaves, each for a row of the histories, float64[n, len(AD_FEATURES)]."""
    index, collaborative = signal.index, signal.collaborative
    number, known = places(index.ad_ids[leaf], collaborative.items)
    popular = np.where(known, np.log1p(collaborative.popular[number]), 0.0) / np.log1p(collaborative.popular.max())
    newest = _newest(histories)[row]
    follows = _pairs(collaborative, newest, number, known & (newest >= 0))
    had, offsets = index.rows(histories.items), histories.offsets
    like = np.zeros((len(leaf), 2))
    for part in np.split(np.arange(len(row)), np.flatnonzero(np.diff(row)) + 1):  # runs of one row
        if len(part) and offsets[row[part[0]]] < offsets[row[part[0]] + 1]:
            own = had[offsets[row[part[0]]] : offsets[row[part[0]] + 1]]
            same = index.codes[leaf[part], None] == index.codes[own]
            shared = np.cumprod(same, axis=2).sum(axis=2) / index.codes.shape[1]
            like[part, 0], like[part, 1] = shared[:, -1], shared.max(axis=1)
    sasrec = np.clip(lean / (2.0 * _LEAN) + 0.5, 0.0, 1.0)
    return np.column_stack([popular, ~known, sasrec, follows, like])


def _newest(histories: Histories) -> Int64s:
    """Return the newest ad of each row, int64[rows]; -1 of an empty one."""
    newest = np.full(len(histories), -1)
    filled = np.diff(histories.offsets) > 0
    newest[filled] = histories.items[histories.offsets[1:][filled] - 1]
    return newest


def _pairs(collaborative: Collaborative, newest: Int64s, number: Int64s, known: NDArray[np.bool_]) -> Floats:
    """Return how much speaks for items after the newest ads, 0 to 1, float64[n]; 0 where one is not known."""
    pairs = collaborative.co_visitation.pairs
    asked, there = places(newest, collaborative.items)
    known = known & there
    found = np.zeros(len(number))
    if known.any():
        found[known] = np.log1p(pairs[asked[known], number[known]]) / np.log1p(max(1.0, pairs.max()))
    return found
