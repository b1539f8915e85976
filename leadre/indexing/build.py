"""From ads, embeddings and codebooks to an index, and new ads into an index. LEADRE §3.2, §3.3."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from leadre.domain.ads import Ad
from leadre.errors import InvalidInput
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.assign import disambiguate, reserved_slots
from leadre.indexing.description import describe
from leadre.indexing.quality import index_quality
from leadre.indexing.quantiser import Quantiser
from leadre.recipe import IndexRecipe


def version_of(ads: Sequence[Ad], recipe: IndexRecipe) -> str:
    """Return the name of the index that these ads and this recipe give: the same ones, in any order, the same name."""
    inputs = sorted((ad.ad_id, describe(ad), ad.advertiser_id) for ad in ads)
    return hashlib.blake2b(msgspec.json.encode((recipe, inputs)), digest_size=6).hexdigest()


def index_ads(ads: Sequence[Ad], embeddings: NDArray[np.float32], quantiser: Quantiser, *, version: str) -> AdIndex:
    """Give every ad its S-ID.

    Args:
        ads: with different ids.
        embeddings: x_a in the order of the ads, float32[N, d].
        quantiser: fitted, usually on these ads.
        version: the index's name.

    Raises:
        InvalidInput: an ad twice, a bad embedding, or too many ads with the same codes.
    """
    codes, quantised = quantiser.assign(embeddings)
    ad_ids = np.array([ad.ad_id for ad in ads], np.int64)
    sids = disambiguate(codes, ad_ids)
    levels, size, _ = quantiser.codebooks.shape
    return _assemble(
        ads,
        sids,
        quantised,
        version=version,
        revision=0,
        code_counts=(size,) * levels + (reserved_slots(sids),),
    )


def add_ads(index: AdIndex, ads: Sequence[Ad], *, embeddings: NDArray[np.float32], quantiser: Quantiser) -> AdIndex:
    """Return the index's next revision, with new ads in it. No S-ID of the ads it holds changes.

    Args:
        index: the newest revision.
        ads: none of them in the index.
        embeddings: x_a of the new ads, float32[N, d], from the encoder the index was built with.
        quantiser: the index's own.

    Raises:
        InvalidInput: an ad the index holds, a bad embedding, or no disambiguation code left for an ad.
    """
    ad_ids = np.array([ad.ad_id for ad in ads], np.int64)
    if (known := ad_ids[index.rows(ad_ids) >= 0]).size:
        raise InvalidInput(f"ad {known[0]} is in index {index.version} already; add only new ads", column="ad_id")
    codes, quantised = quantiser.assign(embeddings)
    sids = disambiguate(codes, ad_ids, taken=index.codes, slots=index.code_counts[-1])
    return _assemble(
        ads,
        sids,
        quantised,
        version=index.version,
        revision=index.revision + 1,
        code_counts=index.code_counts,
        beside=index,
    )


def _assemble(
    ads: Sequence[Ad],
    sids: NDArray[np.int32],
    quantised: NDArray[np.float32],
    *,
    version: str,
    revision: int,
    code_counts: tuple[int, ...],
    beside: AdIndex | None = None,
) -> AdIndex:
    ad_ids = np.array([ad.ad_id for ad in ads], np.int64)
    advertiser_ids = np.array([ad.advertiser_id for ad in ads], np.int64)
    first, second = [ad.first_category for ad in ads], [ad.second_category for ad in ads]
    if beside is not None:
        old_first, old_second = beside.categories_at(np.arange(len(beside)))
        first, second = old_first + first, old_second + second
        ad_ids = np.concatenate([beside.ad_ids, ad_ids])
        advertiser_ids = np.concatenate([beside.advertiser_ids, advertiser_ids])
        sids = np.concatenate([beside.codes, sids])
        quantised = np.concatenate([beside.embeddings, quantised])
    _, categories = np.unique(np.array(first), return_inverse=True)
    return AdIndex.assemble(
        version=version,
        revision=revision,
        ad_ids=ad_ids,
        codes=sids,
        first_categories=first,
        second_categories=second,
        advertiser_ids=advertiser_ids,
        embeddings=quantised,
        code_counts=code_counts,
        quality=index_quality(sids[:, :-1], size=code_counts[0], categories=categories.astype(np.int32)),
    )
