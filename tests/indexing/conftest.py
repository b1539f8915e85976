"""Ads and embeddings with a known structure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pytest

from leadre.domain.ads import Ad
from leadre.indexing.quantisers.quantiser import Floats

NOW = datetime(2025, 6, 1, tzinfo=UTC)
PRODUCTS = {
    "Automobile": ("electric car", "motor oil", "winter tyres"),
    "Food": ("green tea", "dark chocolate"),
    "Games": ("puzzle game", "racing game", "strategy game", "card game"),
}
MakeAd = Callable[..., Ad]


@pytest.fixture(scope="session")
def make_ad() -> MakeAd:
    """An ad of one of nine products; its fields can be replaced."""

    def make(ad_id: int, **fields: object) -> Ad:
        kinds = [(category, product) for category, products in PRODUCTS.items() for product in products]
        category, product = kinds[ad_id % len(kinds)]
        content: dict[str, object] = {
            "source_id": f"ad-{ad_id}",
            "name": f"{product} number {ad_id // len(kinds)}",
            "ad_type": "Goods",
            "first_category": category,
            "second_category": product,
            "attributes": (f"brand_{ad_id % 7}",),
            "advertiser_id": ad_id % 7,
            "bid": 1.0,
            "created_at": NOW,
        }
        return Ad(ad_id=ad_id, **{**content, **fields})  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def ads(make_ad: MakeAd) -> list[Ad]:
    """150 ads, ids not in order."""
    return [make_ad(int(number)) for number in np.random.default_rng(0).permutation(150) + 1000]


@pytest.fixture(scope="session")
def clusters() -> Floats:
    """500 embeddings in 12 tight clusters of 20 dimensions; row i belongs to cluster i % 12."""
    random = np.random.default_rng(1)
    centres = random.normal(size=(12, 20))
    return (centres[np.arange(500) % 12] + 0.05 * random.normal(size=(500, 20))).astype(np.float32)
