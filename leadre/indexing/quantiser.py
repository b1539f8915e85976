"""A fitted quantiser, frozen: embeddings in, codes and quantised embeddings out. New ads get their S-IDs from it.

LEADRE §3.2, Eq. 2-4. Both ways of fitting (leadre.indexing.rqvae and leadre.indexing.residual_kmeans) end in the same
thing: an encoder, linear layers with ReLU between them, and M codebooks. So it is a few arrays and needs NumPy alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from leadre.errors import ArtifactIncomplete, InvalidInput

Floats = NDArray[np.float32]
Codes = NDArray[np.int32]
_CHUNK = 16_384


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Quantiser:
    """An encoder and its codebooks.

    Args:
        layers: (weight [out, in], bias [out]) of each linear layer, float32; ReLU stands between two.
        codebooks: float32[M, K, width].
    """

    layers: tuple[tuple[Floats, Floats], ...]
    codebooks: Floats

    @property
    def inputs(self) -> int:
        """Width of the embeddings it takes."""
        return int(self.layers[0][0].shape[1])

    def assign(self, embeddings: Floats) -> tuple[Codes, Floats]:
        """Return the codes (int32[N, M]) and the quantised embeddings z_a (float32[N, width]) of ads.

        Args:
            embeddings: x_a, float32[N, d].

        Raises:
            InvalidInput: another width, or a value that is not finite.
        """
        check_embeddings(embeddings)
        if embeddings.shape[1] != self.inputs:
            raise InvalidInput(
                f"embeddings are {embeddings.shape[1]} wide, the quantiser was fitted on {self.inputs}: "
                "encode with the encoder the index was built with"
            )
        codes = np.empty((len(embeddings), len(self.codebooks)), np.int32)
        quantised = np.empty((len(embeddings), self.codebooks.shape[2]), np.float32)
        for start in range(0, len(embeddings), _CHUNK):
            part = slice(start, start + _CHUNK)
            codes[part], quantised[part] = quantise(self._hidden(embeddings[part]), self.codebooks)
        return codes, quantised

    def _hidden(self, embeddings: Floats) -> Floats:
        hidden = embeddings
        for number, (weight, bias) in enumerate(self.layers):
            hidden = hidden @ weight.T + bias
            if number < len(self.layers) - 1:
                hidden = np.maximum(hidden, 0)
        return hidden

    def save(self, path: Path) -> None:
        """Write the quantiser as a safetensors file."""
        arrays = {"codebooks": self.codebooks}
        for number, (weight, bias) in enumerate(self.layers):
            arrays[f"layers.{number}.weight"], arrays[f"layers.{number}.bias"] = weight, bias
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, str(path))

    @classmethod
    def load(cls, path: Path) -> Quantiser:
        """Read what `save` wrote.

        Raises:
            ArtifactIncomplete: no such file, or a damaged one.
        """
        try:
            arrays = load_file(str(path))
            layers = tuple(
                (arrays[f"layers.{number}.weight"], arrays[f"layers.{number}.bias"])
                for number in range(len(arrays) // 2)
            )
            return cls(layers=layers, codebooks=arrays["codebooks"])
        except (OSError, SafetensorError, KeyError) as error:
            raise ArtifactIncomplete(f"{path} holds no quantiser ({error}); build the index again") from None


def quantise(hidden: Floats, codebooks: Floats) -> tuple[Codes, Floats]:
    """Quantise level by level: the nearest code, then what it leaves over (Eq. 2-4).

    Args:
        hidden: encoder outputs, float32[N, width].
        codebooks: float32[M, K, width].

    Returns:
        Codes, int32[N, M], and the sums of their vectors, float32[N, width]. Of equally near codes the first is taken.
    """
    codes = np.empty((len(hidden), len(codebooks)), np.int32)
    residual = hidden.copy()
    for level, codebook in enumerate(codebooks):
        # |r - e|^2 without |r|^2, which is the same for every code
        distances = (codebook**2).sum(axis=1) - 2 * residual @ codebook.T
        codes[:, level] = distances.argmin(axis=1)
        residual -= codebook[codes[:, level]]
    return codes, hidden - residual


def check_embeddings(embeddings: Floats) -> None:
    """Refuse what is no matrix of finite numbers.

    Raises:
        InvalidInput: naming the first bad row.
    """
    if embeddings.ndim != 2:
        raise InvalidInput(f"embeddings are [N, d], these have shape {embeddings.shape}")
    finite = np.isfinite(embeddings).all(axis=1)
    if not finite.all():
        raise InvalidInput(
            "the embedding has values that are not finite; encode the ad again", row=int(finite.argmin()) + 1
        )
