"""§3.2's feature mapping rule, word for word, with its example."""

from __future__ import annotations

from datetime import UTC, datetime

from leadre.domain.ads import Ad
from leadre.indexing.texts.description import describe


def test_the_papers_id3_ad_is_described_as_printed() -> None:
    ad = Ad(
        ad_id=3,
        source_id="id3",
        name="SAIC Volkswagen-New Energy-ID.3",
        ad_type="Automobile Products",
        first_category="Automobile",
        second_category="SAIC Volkswagen-New Energy",
        attributes=("automobile brand_Volkswagen", "automobile series_Volkswagen ID.3"),
        advertiser_id=1,
        bid=1.0,
        created_at=datetime(2025, 1, 1, tzinfo=UTC),
    )
    assert describe(ad) == (
        "The name of the ad is SAIC Volkswagen-New Energy-ID.3; The product type is Automobile Products; "
        "The first-level category is Automobile; The second-level category is SAIC Volkswagen-New Energy; "
        "The attributes include: automobile brand_Volkswagen, automobile series_Volkswagen ID.3."
    )
