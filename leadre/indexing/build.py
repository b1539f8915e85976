"""From ads, embeddings and codebooks to an index, and new ads into an index. LEADRE §3.2, §3.3."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Literal, TypedDict

import msgspec
import numpy as np
from numpy.typing import NDArray

from leadre.domain.ads import Ad
from leadre.errors import InvalidInput
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.assign import disambiguate, first_free, reserved_slots
from leadre.indexing.grow import grow
from leadre.indexing.quality import index_quality
from leadre.indexing.quantisers.balance import balance
from leadre.indexing.quantisers.quantiser import Codes, Floats, Quantiser, quantise
from leadre.indexing.texts.description import describe
from leadre.indexing.trie import Trie
from leadre.recipe import IndexRecipe

Assignment = Literal["nearest", "balanced"]


def version_of(ads: Iterable[Ad], recipe: IndexRecipe, *, histories: bytes = b"") -> str:
    """Return the name of the index that these ads and this recipe give: the same ones, in any order, the same name.

    Args:
        ads: all of them.
        recipe: how they get S-IDs.
        histories: a digest of the histories that the codebooks rest on, with `signal` "collaborative".
    """
    total = count = 0  # a sum of hashes depends on no order, and takes no memory
    for ad in ads:
        one = msgspec.json.encode((ad.ad_id, describe(ad), ad.advertiser_id))
        total += int.from_bytes(hashlib.blake2b(one, digest_size=32).digest())
        count += 1
    return hashlib.blake2b(msgspec.json.encode((recipe, count, str(total))) + histories, digest_size=6).hexdigest()


def index_ads(
    ads: Sequence[Ad],
    embeddings: Floats,
    quantiser: Quantiser,
    *,
    version: str,
    assignment: Assignment = "nearest",
    hidden: Floats | None = None,
) -> AdIndex:
    """Give every ad its S-ID.

    Args:
        ads: with different ids.
        embeddings: x_a in the order of the ads, float32[N, d].
        quantiser: fitted, usually on these ads.
        version: the index's name.
        hidden: what is quantised, float32[N, width], where more is known of the ads than their texts say.
        assignment: "nearest" code at every level, or "balanced": see `leadre.indexing.quantisers.balance`.

    Raises:
        InvalidInput: an ad twice, or a bad embedding.
        NoFreeCode: too many ads with the same codes.
    """
    hidden = quantiser.hidden(embeddings) if hidden is None else hidden
    codes, quantised = quantise(hidden, quantiser.codebooks)
    return index_assigned(
        codes,
        quantised,
        hidden=hidden,
        codebooks=quantiser.codebooks,
        version=version,
        assignment=assignment,
        **_columns(ads, embeddings),
    )


def index_assigned(
    codes: Codes,
    quantised: Floats,
    *,
    hidden: Floats,
    codebooks: Floats,
    version: str,
    assignment: Assignment = "nearest",
    ad_ids: NDArray[np.int64],
    first_categories: list[str],
    second_categories: list[str],
    advertiser_ids: NDArray[np.int64],
) -> AdIndex:
    """Give every ad its S-ID, its nearest codes being known: what is left of `index_ads` when others have assigned.

    Args:
        codes: the nearest ones, int32[N, M].
        quantised: z_a, float32[N, width].
        hidden: what was quantised, float32[N, width].
        codebooks: the quantiser's.
        version: as in `index_ads`.
        assignment: as in `index_ads`.
        ad_ids: int64[N], different.
        first_categories: N names.
        second_categories: N names.
        advertiser_ids: int64[N].

    Raises:
        InvalidInput: an ad twice.
        NoFreeCode: too many ads with the same codes.
    """
    if assignment == "balanced":
        codes = balance(codes, hidden, codebooks)
        quantised = _vectors(codes, codebooks)
    sids = disambiguate(codes, ad_ids)
    levels, size, _ = codebooks.shape
    number = {name: position for position, name in enumerate(dict.fromkeys(first_categories))}
    categories = np.array([number[name] for name in first_categories], np.int32)
    return AdIndex.assemble(
        version=version,
        ad_ids=ad_ids,
        codes=sids,
        first_categories=first_categories,
        second_categories=second_categories,
        advertiser_ids=advertiser_ids,
        embeddings=quantised,
        code_counts=(size,) * levels + (reserved_slots(sids),),
        quality=index_quality(codes, size=size, categories=categories, hidden=hidden, codebooks=codebooks),
    )


def add_ads(
    index: AdIndex,
    ads: Sequence[Ad],
    *,
    embeddings: Floats,
    quantiser: Quantiser,
    assignment: Assignment = "nearest",
) -> AdIndex:
    """Return the index's next revision, with new ads in it. No S-ID of the ads it holds changes.

    What it costs grows with the new ads, but for one pass over each column: see `leadre.indexing.grow`, which says also
    which figures of the quality are brought up to date.

    Args:
        index: the newest revision.
        ads: none of them in the index.
        embeddings: x_a of the new ads, float32[N, d], from the encoder the index was built with.
        quantiser: the index's own.
        assignment: as in `index_ads`; the ads indexed before keep their codes, and new ones do not join them.

    Raises:
        InvalidInput: an ad the index holds, or a bad embedding.
        NoFreeCode: no disambiguation code is left for some ads; it names them, and the others can be added.
    """
    columns = _columns(ads, embeddings)
    ad_ids = np.sort(columns["ad_ids"])  # looked up in order: neighbours share their way through memory
    if (known := ad_ids[index.rows(ad_ids) >= 0]).size:  # before codes run out for its double
        problem = f"ad {known[0]} is in index {index.version} already; add only new ads"
        raise InvalidInput(problem, column="ad_id").about(ads=[known[0]])
    hidden = quantiser.hidden(embeddings)
    codes, quantised = quantise(hidden, quantiser.codebooks)
    if assignment == "balanced":
        codes = balance(codes, hidden, quantiser.codebooks, taken=_taken(index.trie, codes))
        quantised = _vectors(codes, quantiser.codebooks)
    following = first_free(index.trie, codes)
    sids = disambiguate(codes, columns["ad_ids"], following=following, slots=index.code_counts[-1])
    return grow(index, codes=sids, embeddings=quantised, **columns)


class _Columns(TypedDict):
    ad_ids: NDArray[np.int64]
    first_categories: list[str]
    second_categories: list[str]
    advertiser_ids: NDArray[np.int64]


def _columns(ads: Sequence[Ad], embeddings: Floats) -> _Columns:
    if len(ads) != len(embeddings):
        raise InvalidInput(f"{len(embeddings)} embeddings for {len(ads)} ads; encode every ad once")
    return {
        "ad_ids": np.array([ad.ad_id for ad in ads], np.int64),
        "first_categories": [ad.first_category for ad in ads],
        "second_categories": [ad.second_category for ad in ads],
        "advertiser_ids": np.array([ad.advertiser_id for ad in ads], np.int64),
    }


def _vectors(codes: Codes, codebooks: Floats) -> Floats:
    """Return z_a of codes that are not the nearest ones: the sums of their vectors (Eq. 4)."""
    vectors: Floats = np.zeros((len(codes), codebooks.shape[2]), np.float32)
    for level, codebook in enumerate(codebooks):
        vectors += codebook[codes[:, level]]
    return vectors


def _taken(trie: Trie, codes: Codes) -> Codes:
    """Return the M codes of the trie's ads that have the same first M - 1 codes as one of these."""
    prefixes = np.unique(codes[:, :-1], axis=0)
    nodes = trie.find(prefixes)
    prefixes, nodes = prefixes[nodes >= 0], nodes[nodes >= 0]
    below = trie.children(prefixes.shape[1], nodes)
    return np.concatenate([prefixes[below.parent], below.code[:, None].astype(np.int32)], axis=1)
