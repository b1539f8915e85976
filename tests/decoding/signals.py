"""A small collaborative signal, for what decodes beside the LLM."""

from __future__ import annotations

import numpy as np
import torch

from leadre.collaborative.blend import Collaborative
from leadre.collaborative.sasrec import SasRec
from leadre.collaborative.sasrec_network import SasRecNetwork
from leadre.evaluation.baselines import CoVisitation, Histories, Popularity, Seen
from leadre.recipe import SasRecRecipe

TINY = SasRecRecipe(width=8, layers=1, heads=2, positions=9)


def signal_of(ad_ids: np.ndarray, *, seen: Seen = "keep", seed: int = 3) -> Collaborative:
    """A signal over some ads, its weights large enough to be decided."""
    random = np.random.default_rng(seed)
    train = Histories.of([random.permutation(ad_ids)[: 4 + row] for row in range(5)] + [np.sort(ad_ids)])
    items, counts = np.unique(train.items, return_counts=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = SasRecNetwork(len(items), TINY).eval()
        torch.nn.init.normal_(network.items.weight, std=0.5)
    return Collaborative(
        sasrec=SasRec(items, network, Popularity.fit(train)),
        co_visitation=CoVisitation.fit(train),
        popular=counts.astype(np.float64),
        share=0.3,
        seen=seen,
    )
