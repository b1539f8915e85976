"""A two-tower retriever: users and ads as vectors, trained on logged clicks, searched with FAISS. A rival of LEADRE.

Ours; LEADRE §2 names two-tower models among traditional retrieval. It reads both domains, as the LLM does: a rival that
knew less would be a straw man.
"""

from __future__ import annotations

from collections.abc import Sequence

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from leadre.domain.behavior import Domain
from leadre.domain.users import Context, Profile
from leadre.simulation.observed import Observed

WIDTH = 48
NEWEST = 6
"""Ads, and content items, of a user that are read: the newest (ours)."""
_EPOCHS = 30
_BATCH = 256
_UNKNOWN = 0.1  # share of ads whose id is hidden while training, so that new ads have a vector by their facts
_SPENDING = ("low", "medium", "high")

Ints = NDArray[np.int64]


class TwoTower:
    """The trained towers over the ads that may be shown."""

    def __init__(self, towers: _Towers, observed: Observed) -> None:
        self._towers = towers.eval()
        known = torch.from_numpy(observed.launched)
        with torch.no_grad():
            self.ad_vectors: NDArray[np.float32] = towers.ads(known).numpy()
        self._live = np.flatnonzero(observed.live)
        self._index = faiss.IndexFlatIP(WIDTH)
        self._index.add(np.ascontiguousarray(self.ad_vectors[self._live]))

    @classmethod
    def train(cls, contexts: Sequence[Context], clicked: Ints, *, observed: Observed, seed: int) -> TwoTower:
        """Learn which ad is clicked next, by cross entropy over all launched ads.

        Args:
            contexts: before each click.
            clicked: int64[n], the ads.
            observed: the world; new ads are known by category, advertiser and product alone.
            seed: of the weights and of the order.
        """
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            towers = _Towers(observed)
        inputs, targets = _inputs(contexts, observed), torch.from_numpy(clicked)
        launched = torch.from_numpy(observed.launched)
        optimizer = torch.optim.AdamW(towers.parameters(), lr=4e-3, weight_decay=0.02)
        for _ in range(_EPOCHS):
            for rows in torch.randperm(len(clicked), generator=generator).split(_BATCH):  # type: ignore[no-untyped-call]
                known = launched & (torch.rand(len(launched), generator=generator) >= _UNKNOWN)
                scores = towers.users(*(part[rows] for part in inputs)) @ towers.ads(known).T
                scores = scores.masked_fill(~launched, -torch.inf)
                loss = nn.functional.cross_entropy(scores, targets[rows])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        return cls(towers, observed)

    def over(self, observed: Observed) -> TwoTower:
        """Return the same towers over another inventory."""
        return TwoTower(self._towers, observed)

    def users(self, contexts: Sequence[Context], observed: Observed) -> NDArray[np.float32]:
        """Return the users' vectors, float32[n, WIDTH]."""
        with torch.no_grad():
            vectors: NDArray[np.float32] = self._towers.users(*_inputs(contexts, observed)).numpy()
        return vectors

    def retrieve(self, vectors: NDArray[np.float32], k: int) -> Ints:
        """Return the `k` best live ads of each user vector, int64[n, k]."""
        _, found = self._index.search(np.ascontiguousarray(vectors), min(k, len(self._live)))
        ads: Ints = self._live[found]
        return ads


class _Towers(nn.Module):
    def __init__(self, observed: Observed) -> None:
        super().__init__()
        facts = np.stack([observed.first_category, observed.second_category, observed.advertiser, observed.product])
        self._facts = torch.from_numpy(facts)
        self.ad_ids = nn.Embedding(len(observed.ads), WIDTH)
        self.of_facts = nn.ModuleList(nn.Embedding(int(column.max()) + 1, WIDTH) for column in facts)
        self.content = nn.Embedding(len(observed.content_items) + 1, WIDTH, padding_idx=0)
        self.read_ads = nn.Embedding(len(observed.ads) + 1, WIDTH, padding_idx=0)
        self.profile = nn.Linear(4, WIDTH)
        self.mix = nn.Sequential(nn.Linear(5 * WIDTH, 2 * WIDTH), nn.ReLU(), nn.Linear(2 * WIDTH, WIDTH))
        for part in self.modules():
            if isinstance(part, nn.Embedding):
                nn.init.normal_(part.weight, std=0.1)

    def ads(self, known: torch.Tensor) -> torch.Tensor:
        """Return the vectors of all ads, [A, WIDTH]; of an ad that is not `known` its id counts for nothing."""
        vectors = self.ad_ids.weight * known[:, None]
        for column, embedding in zip(self._facts, self.of_facts, strict=True):
            vectors = vectors + embedding(column)
        return vectors

    def users(self, profiles: torch.Tensor, ads: torch.Tensor, content: torch.Tensor) -> torch.Tensor:
        """Return user vectors, [n, WIDTH], of profiles [n, 4] and newest ads and content, newest first, [n, NEWEST]."""
        parts = [self.profile(profiles)]
        for items, embedding in ((ads, self.read_ads), (content, self.content)):
            vectors = embedding(items)
            count = (items > 0).sum(dim=1, keepdim=True).clamp(min=1)
            parts += [vectors[:, 0], vectors.sum(dim=1) / count]
        mixed: torch.Tensor = self.mix(torch.cat(parts, dim=1))
        return mixed


def _inputs(contexts: Sequence[Context], observed: Observed) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    profiles = np.array([_profile(context.profile) for context in contexts], np.float32).reshape(-1, 4)
    newest = np.zeros((2, len(contexts), NEWEST), np.int64)
    for row, context in enumerate(contexts):
        places = [0, 0]
        for known in reversed(context.behaviors):
            side = int(known.behavior.domain is Domain.CONTENT)
            if places[side] < NEWEST:
                newest[side, row, places[side]] = known.behavior.item_id + 1
                places[side] += 1
            elif min(places) == NEWEST:
                break
    # an ad that was not launched when the towers were trained is not read: its embedding is noise
    newest[0][~np.append(True, observed.launched)[newest[0]]] = 0
    return torch.from_numpy(profiles), torch.from_numpy(newest[0]), torch.from_numpy(newest[1])


def _profile(profile: Profile) -> tuple[float, float, float, float]:
    spending = _SPENDING.index(profile.consumption_level) if profile.consumption_level in _SPENDING else 1
    return ((profile.age or 40) - 40) / 15, float(profile.sex == "male"), float(profile.sex == "female"), spending - 1.0
