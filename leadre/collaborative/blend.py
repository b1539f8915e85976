"""SASRec and co-visitation as one distribution over ads, the collaborative signal of a release.

Ours; the paper has none. Each is a distribution over the ads of the training histories; their logarithms are averaged,
with the share that ranks the validation ads best. The two err differently: one counts pairs and knows them exactly,
the other generalises from the order of whole histories.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from scipy import sparse

from leadre.collaborative.kept import fit_once
from leadre.collaborative.sasrec import SasRec
from leadre.collaborative.sasrec_network import SasRecNetwork
from leadre.evaluation.baselines import CoVisitation, Histories, Popularity, Seen, places
from leadre.evaluation.ranking import ABSENT, gains
from leadre.recipe import CollaborativeRecipe, SasRecRecipe

Progress = Callable[[str, int, int | None], None]

SHARES = tuple(step / 10 for step in range(11))
"""Shares of co-visitation that are tried."""
SHARE_USERS = 5_000
"""A seeded sample of at most so many users decides on the share (ours)."""
_CUTOFF = 10
VISITS = 1.0  # so much speaks for popular ads beside what was counted: no probability is 0
_ROWS_AT_ONCE = 256
_LEAST_ECPM = 0.01
_WEIGHTS, _ABOUT = "collaborative.safetensors", "collaborative.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collaborative:
    """What users' histories say of the next ad.

    Args:
        sasrec: trained on the histories.
        co_visitation: counted on the same ones.
        popular: how often each of `items` was clicked, float64[items].
        share: of co-visitation in the mean of the logarithms, 0 to 1.
        seen: whether an ad of the own history may come again.
        tilt: float64[items], what business alignment adds to each of `items`' logarithms; None: nothing.
    """

    sasrec: SasRec
    co_visitation: CoVisitation
    popular: NDArray[np.float64]
    share: float
    seen: Seen
    tilt: NDArray[np.float64] | None = None

    @classmethod
    def fit(
        cls,
        train: Histories,
        *,
        targets: NDArray[np.int64],
        recipe: CollaborativeRecipe,
        seed: int,
        texts: NDArray[np.float32] | None = None,
        kept: Path | None = None,
        progress: Progress | None = None,
    ) -> Collaborative:
        """Train SASRec, count pairs, and choose the share.

        Args:
            train: one row a user.
            targets: int64[len(train)], the ad that followed each row, `ABSENT` where none is held out.
            recipe: sizes and rates.
            seed: of the training and the sample.
            texts: as in `SasRec.fit`.
            kept: folder of SASRecs that need not be trained again (`leadre.collaborative.kept`); None: none is kept.
            progress: called after each epoch.
        """
        sasrec = fit_once(kept, train, targets=targets, recipe=recipe.sasrec, seed=seed, texts=texts, progress=progress)
        _, popular = np.unique(train.items, return_counts=True)
        blend = cls(
            sasrec=sasrec,
            co_visitation=CoVisitation.fit(train),
            popular=popular.astype(np.float64),
            share=0.5,
            seen=train.seen,
        )
        held_out = np.flatnonzero(targets != ABSENT)
        held_out = np.sort(np.random.default_rng(seed).permutation(held_out)[:SHARE_USERS])
        return replace(blend, share=blend.best_share(train.take(held_out), targets[held_out]))

    @property
    def items(self) -> NDArray[np.int64]:
        """The ads it knows, int64[items], ascending."""
        return self.sasrec.items

    def log_probabilities(self, histories: Histories) -> NDArray[np.float32]:
        """Return log p of each of `items` for each row, float32[n, items]; -inf for what may not come again."""
        return self.with_lean(histories)[0]

    def with_lean(self, histories: Histories) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return `log_probabilities`, and how far SASRec's logarithms are above co-visitation's, float32[n, items]."""
        sasrec, visited = self._both(histories)
        scores = (1.0 - self.share) * sasrec + self.share * visited
        if self.tilt is not None:
            scores += self.tilt.astype(np.float32)
        return _normalised(scores, self._had(histories)), sasrec - visited

    def aligned(self, ecpm: Mapping[int, float], *, power: float) -> Collaborative:
        """Return the signal with every probability multiplied by the ad's eCPM to a power, and normalised.

        This is the distribution that alignment with the reward log eCPM at the temperature 1 / `power` leads to
        (Rafailov et al., "Direct preference optimization", Eq. 4), which a table of probabilities can have at once.

        Args:
            ecpm: of ads, by id; one that is not there, or below `_LEAST_ECPM` of their mean, counts as that.
            power: at least 0.
        """
        worth = np.array([ecpm.get(ad, 0.0) for ad in self.items.tolist()])
        mean = float(worth.mean())
        if mean <= 0.0:
            return self
        return replace(self, tilt=power * np.log(np.maximum(worth / mean, _LEAST_ECPM)))

    def top(self, histories: Histories, k: int, *, seen: Seen) -> NDArray[np.int64]:  # noqa: ARG002 - the baselines' signature; it knows
        """Return the k best items for each row: int64[n, k], padded with `ABSENT`."""
        found = np.full((len(histories), k), ABSENT, np.int64)
        width = min(k, len(self.items))
        for start, part in histories.parts(_ROWS_AT_ONCE):
            best = torch.topk(torch.from_numpy(self.log_probabilities(part)), width, dim=1)
            ids = self.items[best.indices.numpy()]
            found[start : start + len(part), :width] = np.where(np.isneginf(best.values.numpy()), ABSENT, ids)
        return found

    def best_share(self, histories: Histories, following: NDArray[np.int64]) -> float:
        """Return the share of `SHARES` with the highest NDCG@10, the smallest among equals.

        Args:
            histories: n rows.
            following: int64[n], the ad after each.
        """
        reached = np.zeros(len(SHARES))
        place, known = places(following, self.items)
        for start, part in histories.parts(_ROWS_AT_ONCE):
            rows = np.arange(len(part))
            right, knows = place[start : start + len(part)], known[start : start + len(part)]
            sasrec, visited = self._both(part)
            had = self._had(part)
            for number, share in enumerate(SHARES):
                scores = (1.0 - share) * sasrec + share * visited
                scores[had] = -np.inf
                own = scores[rows, right]
                ranks = np.where(knows & ~np.isneginf(own), (scores > own[:, None]).sum(axis=1), ABSENT)
                reached[number] += gains(ranks, _CUTOFF).sum()
        return SHARES[int(reached.argmax())]

    def _both(self, histories: Histories) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return log p by SASRec and by co-visitation, float32[n, items] each."""
        counts = self.co_visitation.scores(histories, seen="keep").toarray()
        counts += self.popular * (VISITS / self.popular.sum())
        visited = np.log(counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)
        return self.sasrec.log_probabilities(histories, seen="keep"), visited

    def _had(self, histories: Histories) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return rows and item numbers that may not come again."""
        if self.seen == "keep":
            return np.empty(0, np.int64), np.empty(0, np.int64)
        place, known = places(histories.items, self.items)
        return histories.rows[known], place[known]

    def write_into(self, folder: Path, *, weight: float) -> None:
        """Write two files, `collaborative.json` and `collaborative.safetensors`, into a release being written.

        Args:
            folder: the release's.
            weight: share of the signal in the fused score.
        """
        pairs = self.co_visitation.pairs
        arrays = {
            "items": self.items,
            "popular": self.popular,
            "pairs.data": pairs.data,
            "pairs.indices": pairs.indices.astype(np.int64),
            "pairs.indptr": pairs.indptr.astype(np.int64),
        }
        if self.tilt is not None:
            arrays["tilt"] = self.tilt
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        tensors |= {f"sasrec.{name}": weight for name, weight in self.sasrec.network.state_dict().items()}
        save_file(tensors, folder / _WEIGHTS)
        about = {
            "weight": weight,
            "share": self.share,
            "seen": self.seen,
            "epochs": self.sasrec.epochs,
            "sasrec": msgspec.to_builtins(self.sasrec.network.recipe),
        }
        (folder / _ABOUT).write_text(json.dumps(about, indent=1))

    @classmethod
    def load(cls, folder: Path) -> tuple[Collaborative, float] | None:
        """Return what `write_into` wrote, the signal and its share in the fused score; None where there is none."""
        if not (folder / _ABOUT).exists():
            return None
        about = json.loads((folder / _ABOUT).read_text())
        tensors = load_file(folder / _WEIGHTS)
        arrays = {name: tensor.numpy() for name, tensor in tensors.items() if not name.startswith("sasrec.")}
        items, popular = arrays["items"], arrays["popular"]
        network = SasRecNetwork(len(items), msgspec.convert(about["sasrec"], SasRecRecipe))
        network.load_state_dict(
            {name.removeprefix("sasrec."): tensor for name, tensor in tensors.items() if name.startswith("sasrec.")}
        )
        pairs = sparse.csr_array(
            (arrays["pairs.data"], arrays["pairs.indices"], arrays["pairs.indptr"]), shape=(len(items), len(items))
        )
        ranked = Popularity(items[np.lexsort((items, -popular))])
        sasrec = SasRec(items, network.eval(), ranked)
        sasrec.epochs = about.get("epochs", 0)  # releases of before cross-fitting do not say
        signal = cls(
            sasrec=sasrec,
            co_visitation=CoVisitation(items, pairs, ranked),
            popular=popular,
            share=about["share"],
            seen=about["seen"],
            tilt=arrays.get("tilt"),
        )
        return signal, float(about["weight"])


def _normalised(
    scores: NDArray[np.float32], left_out: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> NDArray[np.float32]:
    scores[left_out] = -np.inf
    highest = scores.max(axis=1, keepdims=True)
    normed: NDArray[np.float32] = scores - np.where(
        np.isneginf(highest), 0.0, highest
    )  # of a user who has had all, -inf
    normed -= np.log(np.exp(normed).sum(axis=1, keepdims=True).clip(min=np.finfo(np.float32).tiny))
    return normed
