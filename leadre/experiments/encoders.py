"""Compare encoders on the catalog: do an ad's nearest neighbours share its category?

LEADRE §5.2.4, Table 3.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from leadre.domain.ads import Ad
from leadre.errors import ConfigError, InvalidInput
from leadre.indexing.texts.description import describe
from leadre.indexing.texts.embedding_store import EmbeddingStore
from leadre.indexing.texts.encoder import HASHED, Progress, encode
from leadre.indexing.texts.neighbours import CUTOFFS, category_accuracy, sample_per_category
from leadre.store.records.catalog import read_ads
from leadre.store.records.database import connect, transaction

Level = Literal["first", "second"]

TFIDF = "tfidf"
TFIDF_WIDTH = 256
ENCODERS = ("minilm", TFIDF, HASHED)

PAPER: Mapping[str, tuple[float, float, float, float]] = {
    "Hunyuan Embedding": (0.9803, 0.9646, 0.8661, 0.6567),
    "E5-large-instruct": (0.9721, 0.9648, 0.8742, 0.6638),
    "bge-m3": (0.9500, 0.9107, 0.7876, 0.5964),
    "Bert-Chinese": (0.9724, 0.9265, 0.7412, 0.5020),
    "Electra_Chinese": (0.9460, 0.8598, 0.6309, 0.4362),
    "Sentence-Bert/L12": (0.9540, 0.9011, 0.7015, 0.4844),
    "Sentence-Bert/L6": (0.8197, 0.7265, 0.5361, 0.3797),
    "XLNet Chinese": (0.8031, 0.6332, 0.3827, 0.2614),
    "CLIP-32": (0.8032, 0.6791, 0.4590, 0.2987),
    "CLIP-16": (0.8157, 0.6740, 0.4520, 0.3033),
    "T5": (0.6710, 0.5122, 0.3390, 0.2389),
}
"""Table 3 as printed, as shares: Top-1, 10, 50, 100; 100 Chinese ads from each of 48 categories."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Table 3 on one catalog. `accuracy[encoder][K]`; `chance` is that of a random other ad of the sample."""

    level: Level
    categories: int
    ads: int
    hidden: bool
    accuracy: dict[str, dict[int, float]]
    chance: float


def compare_encoders(
    encoders: Sequence[str] = ENCODERS,
    *,
    database_url: str,
    embeddings: Path,
    per_category: int = 100,
    min_ads: int = 100,
    level: Level = "second",
    hide_categories: bool = False,
    instruction: str = "",
    seed: int,
    progress: Progress | None = None,
) -> Comparison:
    """Measure encoders on a sample of the catalog's ads, live or not.

    Args:
        encoders: as `encode` takes them, or "tfidf": TF-IDF of words and pairs of words, and its first 256 singular
            vectors, fitted on the whole catalog. It exists only here: an index cannot use it, for it is not frozen when
            new ads bring new words.
        database_url: the system of record.
        embeddings: root folder of embedding stores; what was encoded once is not encoded again.
        per_category: ads sampled from each category (paper: 100).
        min_ads: a category with fewer ads is left out.
        level: first-level categories, or second-level ones (each below its first-level category).
        hide_categories: leave both categories out of the descriptions. The paper's descriptions name them.
        instruction: put before every description (models only).
        seed: of the sample.
        progress: called with what is being done, how much is done, and how much there is.

    Raises:
        InvalidInput: fewer than two categories with enough ads, an ad without a name, or too small a sample for
            Top-100.
        ConfigError: an encoder cannot be loaded.
        Unavailable: the database does not answer.
    """
    if not encoders:
        raise ConfigError(f"no encoder to compare; name some, for example {', '.join(ENCODERS)}")
    database = connect(database_url, application_name="leadre index encoders")
    try:
        with transaction(database) as connection:
            ads = read_ads(connection)
    finally:
        database.dispose()
    if not ads:
        raise InvalidInput("the catalog holds no ads; import some first: `leadre import`")
    sampled, names = _sample(ads, level=level, per_category=per_category, min_ads=min_ads, seed=seed)
    described = [_describe(ad, hide_categories=hide_categories) for ad in ads]
    texts = [described[row] for row in sampled.tolist()]
    accuracy = {}
    for encoder in dict.fromkeys(encoders):
        if encoder == TFIDF:
            vectors = _tfidf(described, seed=seed)[sampled]
        else:
            store = None
            if encoder != HASHED:
                store = EmbeddingStore.of(embeddings, encoder=encoder, pooling="auto", instruction=instruction)
            vectors = encode(texts, encoder=encoder, instruction=instruction, store=store, progress=progress)
        accuracy[encoder] = category_accuracy(vectors, names, per_category=per_category, cutoffs=CUTOFFS, seed=seed)
    sizes = np.array(list(Counter(names).values()))
    return Comparison(
        level=level,
        categories=len(sizes),
        ads=len(names),
        hidden=hide_categories,
        accuracy=accuracy,
        chance=float((sizes * (sizes - 1)).sum() / (len(names) * (len(names) - 1))),
    )


def _sample(
    ads: Sequence[Ad], *, level: Level, per_category: int, min_ads: int, seed: int
) -> tuple[NDArray[np.int64], list[str]]:
    """Return the sampled ads' rows, and their categories."""
    names = [_category(ad, level) for ad in ads]
    sizes = Counter(name for name in names if name)
    large = {name for name, size in sizes.items() if size >= min_ads}
    if len(large) < 2:
        raise InvalidInput(
            f"{len(large)} {level}-level categories have {min_ads} ads or more, at least 2 are needed; the largest has "
            f"{max(sizes.values(), default=0)}: lower --min-ads, or take the other --level"
        )
    names = [name if name in large else "" for name in names]
    rows = sample_per_category(names, per_category=per_category, seed=seed)
    if len(rows) <= max(CUTOFFS):
        raise InvalidInput(
            f"the sample has {len(rows)} ads, Top-{max(CUTOFFS)} needs more than {max(CUTOFFS)}: raise --per-category, "
            f"or lower --min-ads so that more categories take part"
        )
    return rows, [names[row] for row in rows.tolist()]


def _category(ad: Ad, level: Level) -> str:
    if level == "first":
        return ad.first_category
    return f"{ad.first_category} > {ad.second_category}" if ad.second_category else ""


def _describe(ad: Ad, *, hide_categories: bool) -> str:
    return describe(replace(ad, first_category="", second_category="") if hide_categories else ad)


def _tfidf(texts: Sequence[str], *, seed: int) -> NDArray[np.float32]:
    """Return float32[N, at most 256], rows of length 1 (a text without words: 0)."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    counts = TfidfVectorizer(ngram_range=(1, 2), min_df=2 if len(texts) > 1_000 else 1, sublinear_tf=True)
    weighted = counts.fit_transform(texts)
    width = min(TFIDF_WIDTH, min(weighted.shape) - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # it divides by a variance of 0 when all texts are equal
        reduced = TruncatedSVD(width, random_state=seed).fit_transform(weighted)
    vectors: NDArray[np.float32] = normalize(reduced).astype(np.float32)
    return vectors
