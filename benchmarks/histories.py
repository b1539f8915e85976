"""Made-up purchase histories, for the training benchmark: as long as a real log's, of ads that mean nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from leadre.collaborative.blend import Collaborative
from leadre.collaborative.sasrec import SasRec
from leadre.collaborative.sasrec_network import SasRecNetwork
from leadre.domain.ads import Ad
from leadre.domain.behavior import Action, Domain
from leadre.domain.semantic_id import SemanticId
from leadre.evaluation.baselines import CoVisitation, Histories, Popularity
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import Trie
from leadre.recipe import PromptRecipe, Recipe, SasRecRecipe
from leadre.training.data.contexts import ACTIONS, DOMAINS, ContextBuilder
from leadre.training.data.examples import TrainingData

FEWEST = 5
HELD_OUT = 2
"""A user's last ads, which are not trained on."""
DISAMBIGUATION_CODES = 4
CATEGORIES = 226
_STARTED = datetime(2020, 1, 1, tzinfo=UTC)
_YEARS_S = 3 * 365 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class _Behaviors:
    users: NDArray[np.int64]
    offsets: NDArray[np.int64]
    item_ids: NDArray[np.int64]
    domains: NDArray[np.uint8]
    actions: NDArray[np.uint8]
    occurred_at_s: NDArray[np.float64]
    ordinals: NDArray[np.int64]


def made_up_data(recipe: Recipe, *, users: int, ads: int, seed: int) -> dict[str, TrainingData]:
    """Return the same histories in both templates, "one_pass" and "paper"; the catalog holds the ads in them.

    Lengths are those of Amazon Beauty: at least 5 ads, half of them up to 6, 9 in the mean, 5 % over 21, 1 % over 43.
    S-IDs are those of `made_up_index`.

    Args:
        recipe: of S-IDs and prompts; its template is not used.
        users: so many histories.
        ads: so many ads.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list("abdeiklmnorstu"), rng.integers(3, 9))) for _ in range(3000)]
    categories = [" ".join(rng.choice(words, rng.integers(1, 3))) for _ in range(CATEGORIES)]
    lengths = FEWEST + np.minimum(rng.lognormal(np.log(1.35), 1.5, users), 200).astype(np.int64)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    total = int(offsets[-1])
    times = rng.uniform(0, _YEARS_S, total)
    behaviors = _Behaviors(
        users=np.arange(users),
        offsets=offsets,
        item_ids=rng.integers(1, ads + 1, total),
        domains=np.full(total, DOMAINS.index(Domain.AD), np.uint8),
        actions=np.full(total, ACTIONS.index(Action.CLICK), np.uint8),
        occurred_at_s=_STARTED.timestamp() + times[np.lexsort((times, np.repeat(np.arange(users), lengths)))],
        ordinals=np.zeros(total, np.int64),
    )
    index = made_up_index(recipe, ads=ads, seed=seed)
    seen = np.unique(behaviors.item_ids)
    catalog = [_ad(ad, categories, words, rng) for ad in seen.tolist()]
    sids = {ad: index.sid_at(row) for ad, row in zip(seen.tolist(), index.rows(seen).tolist(), strict=True)}
    return {
        template: _data(catalog, sids, behaviors, _with_template(recipe.prompt, template), seed=seed)
        for template in ("one_pass", "paper")
    }


def made_up_index(recipe: Recipe, *, ads: int, seed: int) -> AdIndex:
    """Return an index of the ads 1 to `ads` whose codes mean nothing; only its S-IDs are of use."""
    rng = np.random.default_rng(seed)
    counts = (recipe.index.codes,) * recipe.index.levels + (DISAMBIGUATION_CODES,)
    bound = int(np.prod(counts, dtype=np.int64))
    keys = np.unique(rng.integers(0, bound, 2 * ads + 64))  # more than needed: some come twice
    keys = np.sort(rng.permutation(keys)[:ads])
    codes = np.stack(np.unravel_index(keys, counts), axis=1).astype(np.int32)
    nothing = np.zeros(ads, np.int32)
    return AdIndex(
        version="made up",
        ad_ids=rng.permutation(ads) + 1,
        codes=codes,
        first_categories=nothing,
        second_categories=nothing,
        category_names=("",),
        advertiser_ids=nothing.astype(np.int64),
        embeddings=np.zeros((ads, 1), np.float32),
        trie=Trie.build(codes),
        code_counts=counts,
        quality={},
    )


def made_up_signal(histories: Histories, *, ads: int, seed: int) -> Collaborative:
    """Return a signal that knows the ads 1 to `ads`: pairs of the histories, and a SASRec that never learned."""
    items = np.arange(1, ads + 1)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = SasRecNetwork(ads, SasRecRecipe()).eval().requires_grad_(requires_grad=False)
    counted = CoVisitation.fit(histories)
    pairs = counted.pairs.tocoo()
    places = counted.items[pairs.row] - 1, counted.items[pairs.col] - 1
    popular = Popularity.fit(histories)
    return Collaborative(
        sasrec=SasRec(items, network, popular),
        co_visitation=CoVisitation(items, sparse.coo_array((pairs.data, places), shape=(ads, ads)).tocsr(), popular),
        popular=1.0 + np.bincount(histories.items - 1, minlength=ads),
        share=0.3,
        seen="leave_out",
    )


def _ad(ad_id: int, categories: list[str], words: list[str], rng: np.random.Generator) -> Ad:
    return Ad(
        ad_id=ad_id,
        source_id=str(ad_id),
        name=" ".join(rng.choice(words, 11)),
        ad_type="product",
        first_category=categories[int(rng.integers(len(categories)))],
        second_category="",
        attributes=(),
        advertiser_id=0,
        bid=1.0,
        created_at=_STARTED,
    )


def _with_template(recipe: PromptRecipe, template: str) -> PromptRecipe:
    return type(recipe)(**{name: getattr(recipe, name) for name in recipe.__struct_fields__} | {"template": template})


def _data(
    catalog: list[Ad], sids: dict[int, SemanticId], behaviors: _Behaviors, recipe: PromptRecipe, *, seed: int
) -> TrainingData:
    contexts = ContextBuilder(
        behaviors,
        {},
        ({ad.ad_id: ad.name for ad in catalog}, {}),
        ({ad.ad_id: ad.first_category for ad in catalog}, {}),
        recipe=recipe,
    )
    sequences = [contexts.behaviors(user) for user in range(len(behaviors.users))]
    return TrainingData(
        ads=catalog,
        sequences=sequences,
        targets=[range(len(sequence) - HELD_OUT) for sequence in sequences],
        contexts=contexts,
        sid_of=sids.get,
        recipe=recipe,
        seed=seed,
    )
