"""The ranker: how much the signal weighs for whom, and what else speaks for an ad; fitted on lists of validation users.

Ours. An ad's score is s ((1 - w) log P_LLM + w log P_signal + b . (features of the ad)), and w = sigmoid(a . (features
of the user)): one weight a user in place of one for all. With a and b at 0 it is the order of the fusion in the beam.
The scale s makes differences of scores the log-odds by which validation users chose; features that speak for an ad are
counted from the best there can be, so no score is above 0. It knows no eCPM: what business alignment moved, it sees in
log P_LLM.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from leadre.decoding.combined.features import AD_FEATURES, USER_FEATURES, Candidates, Floats, Int64s
from leadre.errors import ArtifactIncomplete
from leadre.evaluation.ranking import ABSENT, gains

FILE = "ranker.json"
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e3)
"""Weights of the squares of a and b beside the mean loss that are tried; the last leaves one weight for all."""
FOLDS = 5
_CUTOFF = 10
_FEWEST = 20
"""With fewer users whose ad is among their candidates, nothing is fitted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranker:
    """A score for candidates.

    Args:
        bias: log-odds of the signal's weight where every user feature is 0.
        user: float64[len(USER_FEATURES)], what they add to the log-odds.
        ad: float64[len(AD_FEATURES)], what they add to the score.
        scale: s, above 0; it changes no order.
        penalty: of its fit; None where nothing was fitted.
    """

    bias: float
    user: Floats
    ad: Floats
    scale: float = 1.0
    penalty: float | None = None

    @classmethod
    def of_weight(cls, weight: float) -> Ranker:
        """Return the ranker with one weight for all, 0 (the LLM alone) to 1 (the signal alone), and no features."""
        with np.errstate(divide="ignore"):
            bias = float(np.log(weight) - np.log1p(-weight))
        return cls(bias=bias, user=np.zeros(len(USER_FEATURES)), ad=np.zeros(len(AD_FEATURES)))

    def weights(self, user: Floats) -> Floats:
        """Return w of each user, float64[n], from their features [n, len(USER_FEATURES)]."""
        return _sigmoid(self.bias + user @ self.user)

    def scores(self, candidates: Candidates) -> Floats:
        """Return the score of each candidate, float64[n], none above 0."""
        weight = self.weights(candidates.user)[candidates.request]
        fused = (1.0 - weight) * candidates.by_llm + weight * candidates.by_signal
        scores: Floats = self.scale * (fused + candidates.ad @ self.ad - np.maximum(self.ad, 0.0).sum())
        return scores

    @classmethod
    def fit(cls, candidates: Candidates, wanted: Int64s, *, seed: int) -> Ranker:
        """Return the ranker that finds the wanted ads likeliest; cross-validation over users sets the penalty.

        Args:
            candidates: of n requests of different users.
            wanted: int64[n], the leaf of the ad that followed; -1 where the index has none.
            seed: of the folds.
        """
        right = candidates.leaf == wanted[candidates.request]
        hit = np.unique(candidates.request[right])
        if len(hit) < _FEWEST:
            return cls.of_weight(0.5)
        fold_of = np.full(len(wanted), -1)
        fold_of[hit] = np.random.default_rng(seed).permutation(len(hit)) % FOLDS
        fold = fold_of[candidates.request]
        reached = []
        for penalty in PENALTIES:
            total = 0.0
            for held_out in range(FOLDS):
                ranker = _fitted(candidates, right, (fold >= 0) & (fold != held_out), penalty=penalty)
                total += ranker._gain(candidates, right, fold == held_out)
            reached.append(total)
        best = max(range(len(PENALTIES)), key=lambda at: (reached[at], PENALTIES[at]))
        return _fitted(candidates, right, fold >= 0, penalty=PENALTIES[best])

    def _gain(self, candidates: Candidates, right: NDArray[np.bool_], chosen: NDArray[np.bool_]) -> float:
        """Return the sum of NDCG@10 over the requests of some candidates, each with one right ad."""
        scores, request = self.scores(candidates), candidates.request
        own = np.zeros(len(candidates.user))
        own[request[right]] = scores[right]
        above = np.bincount(request[chosen & (scores > own[request])], minlength=len(own))
        return float(gains(np.where(np.isin(np.arange(len(own)), request[chosen]), above, ABSENT), _CUTOFF).sum())

    def to_json(self) -> dict[str, Any]:
        """Return the plain form: coefficients by the names of their features."""
        return {
            "bias": self.bias,
            "user": dict(zip(USER_FEATURES, self.user.tolist(), strict=True)),
            "ad": dict(zip(AD_FEATURES, self.ad.tolist(), strict=True)),
            "scale": self.scale,
            "penalty": self.penalty,
        }

    @classmethod
    def load(cls, folder: Path) -> Ranker | None:
        """Return a release's ranker, whose `ranker.json` holds `to_json()`; None where there is none.

        Raises:
            ArtifactIncomplete: it speaks of other features than this version knows.
        """
        if not (folder / FILE).exists():
            return None
        about = json.loads((folder / FILE).read_text())
        if (*about["user"], *about["ad"]) != (*USER_FEATURES, *AD_FEATURES):
            raise ArtifactIncomplete(
                f"{folder / FILE} has the features {[*about['user'], *about['ad']]}, this version of leadre reads "
                f"{[*USER_FEATURES, *AD_FEATURES]}; train the release again, or serve it with the version that made it"
            )
        return cls(
            bias=float(about["bias"]),
            user=np.array(list(about["user"].values()), np.float64),
            ad=np.array(list(about["ad"].values()), np.float64),
            scale=float(about["scale"]),
            penalty=about["penalty"],
        )


def _sigmoid(odds: Floats) -> Floats:
    weight: Floats = 1.0 / (1.0 + np.exp(-np.clip(odds, -700.0, 700.0)))
    return weight


def _fitted(candidates: Candidates, right: NDArray[np.bool_], chosen: NDArray[np.bool_], *, penalty: float) -> Ranker:
    """Return the ranker with the smallest mean -log softmax of the right ads, plus the penalty times |a|^2 + |b|^2."""
    request = candidates.request[chosen]
    starts = np.flatnonzero(np.diff(request, prepend=-1))
    sizes = np.diff(starts, append=len(request))
    user = np.column_stack([np.ones(len(request)), candidates.user[request]])
    ad, y = candidates.ad[chosen], right[chosen].astype(np.float64)
    by_llm, by_signal = candidates.by_llm[chosen], candidates.by_signal[chosen]
    users = user.shape[1]

    def loss(parameters: Floats) -> tuple[float, Floats]:
        of_user, of_ad, scale = parameters[:users], parameters[users:-1], np.exp(parameters[-1])
        weight = _sigmoid(user @ of_user)
        scores = by_llm + weight * (by_signal - by_llm) + ad @ of_ad
        z = scale * scores
        z = z - np.repeat(np.maximum.reduceat(z, starts), sizes)
        p = np.exp(z)
        total = np.add.reduceat(p, starts)
        step = (p / np.repeat(total, sizes) - y) / len(starts)
        value = (np.log(total).sum() - z @ y) / len(starts)
        slope = np.concatenate(
            [
                (step * scale * (by_signal - by_llm) * weight * (1.0 - weight)) @ user,
                scale * (step @ ad),
                [scale * (step @ scores)],
            ]
        )
        shrunk = parameters.copy()
        shrunk[[0, -1]] = 0.0
        return float(value + penalty * (shrunk @ shrunk)), slope + 2.0 * penalty * shrunk

    found = minimize(loss, np.zeros(users + ad.shape[1] + 1), jac=True, method="L-BFGS-B").x
    scale = float(np.exp(found[-1]))
    return Ranker(bias=float(found[0]), user=found[1:users], ad=found[users:-1], scale=scale, penalty=penalty)
