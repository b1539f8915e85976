"""Ads as a person reads them. Ours."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leadre.domain.ads import Ad
from leadre.domain.identity import outward
from leadre.store.records.catalog import read_ads

if TYPE_CHECKING:
    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class AdLabel:
    """An ad's id as its owner writes it, its name, and its second-level category (the first where it has none)."""

    ad: int | str
    name: str
    category: str


def label_of(ad: Ad) -> AdLabel:
    """Return an ad's label."""
    return AdLabel(ad=outward(ad.source_id), name=ad.name, category=ad.second_category or ad.first_category)


def ad_labels(connection: Connection, ad_ids: Collection[int]) -> dict[int, AdLabel]:
    """Return labels by 64-bit id; an ad that the catalog has lost keeps its number and has no name."""
    known = {ad.ad_id: label_of(ad) for ad in read_ads(connection, ad_ids=ad_ids)}
    return {ad_id: known.get(ad_id) or AdLabel(ad=ad_id, name="", category="") for ad_id in map(int, ad_ids)}
