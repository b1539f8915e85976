"""Embeddings on disk: what an encoder encoded once is not encoded again. LEADRE §3.2, Eq. 1.

A folder for each encoder, pooling and instruction, and in it shards: safetensors files of keys (128-bit hashes of the
texts, not the texts) and embeddings, with checksums. A shard appears whole or not at all and never changes, so a kill
at any point loses only what was not yet added, and several processes may add at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from leadre.errors import ArtifactIncomplete, InvalidInput

FORMAT = "1"
_UNFINISHED = ".part"
_SHARD = ".safetensors"

Keys = NDArray[np.uint64]


class EmbeddingStore:
    """The embeddings of one encoder. Keys are in memory, 16 bytes a text; vectors are read shard by shard."""

    def __init__(self, folder: Path) -> None:
        """Open or create the store in a folder of its own; files that a killed process left half-written are removed.

        Raises:
            ArtifactIncomplete: a shard is damaged; the message says which.
        """
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(f"*{_UNFINISHED}"):
            _remove_unless_written(path)
        self._shards: list[Path] = []
        self._keys: list[Keys] = []
        self._runs: list[
            tuple[Keys, NDArray[np.int64]]
        ] = []  # sorted keys and their places, each half its elder at most
        self._width = 0
        for path in sorted(folder.glob(f"*{_SHARD}")):
            keys, width = _read_keys(path)
            self._take(path, keys, width)

    @classmethod
    def of(cls, root: Path, *, encoder: str, pooling: str, instruction: str) -> EmbeddingStore:
        """Open the store of an encoder below `root`.

        A local path counts as another encoder when a file of its folder changes; a Hugging Face name does not: delete
        the folder (about.json in it says which encoder it is of) where the model behind a name has changed.
        """
        weights = weights_of(encoder)
        about = {
            "format": FORMAT,
            "encoder": encoder,
            "pooling": pooling,
            "instruction": instruction,
            "weights": weights,
        }
        text = json.dumps(about, indent=1, sort_keys=True)
        name = "".join(letter if letter.isalnum() else "-" for letter in Path(encoder).name[-40:])
        folder = root / f"{name}-{_digest(text.encode())[:16]}"
        store = cls(folder)
        if not (folder / "about.json").exists():
            (folder / "about.json").write_text(text)  # for people; nothing reads it
        return store

    def __len__(self) -> int:
        """Return how many embeddings there are; one that two processes added counts twice."""
        return sum(map(len, self._keys))

    def find(self, texts: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Look texts up.

        Returns:
            known: bool[N].
            embeddings: float32[N, d], rows of unknown texts unset; d is 0 in an empty store.

        Raises:
            ArtifactIncomplete: a shard is damaged or gone; the message says which.
        """
        places = self._places(_keys_of(texts))
        embeddings = np.empty((len(texts), self._width), np.float32)
        bounds = np.cumsum([0, *map(len, self._keys)])
        order = np.argsort(places, kind="stable")
        starts = np.searchsorted(places[order], bounds)
        for shard, path in enumerate(self._shards):
            rows = order[starts[shard] : starts[shard + 1]]
            if len(rows):
                embeddings[rows] = _read_embeddings(path)[places[rows] - bounds[shard]]
        return places >= 0, embeddings

    def add(self, texts: Sequence[str], embeddings: NDArray[np.float32]) -> None:
        """Write one more shard.

        Args:
            texts: those embedded.
            embeddings: float32[N, d].

        Raises:
            InvalidInput: a number of rows or a width that does not fit, or a value that is not finite; nothing is
                stored.
        """
        if embeddings.ndim != 2 or len(embeddings) != len(texts) or embeddings.shape[1] == 0:
            raise InvalidInput(f"embeddings of shape {embeddings.shape} do not fit {len(texts)} texts")
        if not len(texts):
            return
        if self._width not in (0, embeddings.shape[1]):
            raise InvalidInput(
                f"{self._folder} holds embeddings of width {self._width}, not {embeddings.shape[1]}: the encoder is "
                f"not the one that filled it; delete the folder to begin anew"
            )
        finite = np.isfinite(embeddings).all(axis=1)
        if not finite.all():
            raise InvalidInput("the embedding is not finite", row=int(np.argmin(finite)) + 1, column="embedding")
        keys = _keys_of(texts)
        values = np.ascontiguousarray(embeddings, np.float32)
        content = save(
            {"keys": keys, "embeddings": values},
            {"format": FORMAT, "keys": _digest(keys.tobytes()), "embeddings": _digest(values.tobytes())},
        )
        path = self._folder / f"{_digest(keys.tobytes())}{_SHARD}"  # the same texts make the same file
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=_UNFINISHED, delete=False) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # who opens the store meanwhile leaves it alone
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        if path not in self._shards:
            self._take(path, keys, values.shape[1])

    def _take(self, path: Path, keys: Keys, width: int) -> None:
        if self._width not in (0, width):
            raise ArtifactIncomplete(
                f"{path} holds embeddings of width {width}, its neighbours of width {self._width}; delete the folder"
            )
        self._shards.append(path)
        self._keys.append(keys)
        self._width = width

    def _places(self, wanted: Keys) -> NDArray[np.int64]:
        """Return where each key stands in all shards laid end to end, -1 where it is in none."""
        self._sort_new()
        places = np.full(len(wanted), -1, np.int64)
        for keys, order in self._runs:
            left = np.flatnonzero(places < 0)
            at = np.searchsorted(keys[:, 0], wanted[left, 0])
            while len(left):  # more than once only where first halves are equal
                inside = at < len(keys)
                left, at = left[inside], at[inside]
                alike = keys[at, 0] == wanted[left, 0]
                left, at = left[alike], at[alike]
                hit = keys[at, 1] == wanted[left, 1]
                places[left[hit]] = order[at[hit]]
                left, at = left[~hit], at[~hit] + 1
        return places

    def _sort_new(self) -> None:
        """Sort the keys added since the last look-up; a run joins its elder when it has half its size.

        So a long job that adds and looks up in turns sorts each key a few times, not all keys every time.
        """
        done = sum(len(keys) for keys, _ in self._runs)
        if done == len(self):
            return
        bounds = np.cumsum([0, *map(len, self._keys)])
        first = int(np.searchsorted(bounds, done))
        keys, places = np.concatenate(self._keys[first:]), np.arange(done, len(self))
        while self._runs and len(keys) * 2 >= len(self._runs[-1][0]):
            elder_keys, elder_places = self._runs.pop()
            keys, places = np.concatenate([elder_keys, keys]), np.concatenate([elder_places, places])
        order = np.lexsort((keys[:, 1], keys[:, 0]))
        self._runs.append((keys[order], places[order]))


def weights_of(encoder: str) -> str:
    """Return what tells a local model from another one under the same path: a hash of its files' sizes and times.

    Empty for a Hugging Face name.
    """
    folder = Path(encoder)
    if not encoder or not folder.is_dir():
        return ""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    facts = [(path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return _digest(json.dumps([str(folder.resolve()), facts]).encode())


def _keys_of(texts: Sequence[str]) -> Keys:
    """Return the texts' hashes, uint64[N, 2]."""
    hashes = b"".join(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts)
    return np.frombuffer(hashes, np.uint64).reshape(-1, 2)


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()


def _read_keys(path: Path) -> tuple[Keys, int]:
    try:
        with safe_open(path, "numpy") as file:
            keys: Keys = file.get_tensor("keys")
            shape = file.get_slice("embeddings").get_shape()
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _damaged(path) from error
    rows_fit = keys.dtype == np.uint64 and keys.shape == (shape[0], 2) and len(shape) == 2
    if metadata.get("format") != FORMAT or not rows_fit or metadata.get("keys") != _digest(keys.tobytes()):
        raise _damaged(path)
    return keys, int(shape[1])


def _read_embeddings(path: Path) -> NDArray[np.float32]:
    try:
        with safe_open(path, "numpy") as file:
            embeddings: NDArray[np.float32] = file.get_tensor("embeddings")
            expected = (file.metadata() or {}).get("embeddings")
    except (SafetensorError, OSError) as error:
        raise _damaged(path) from error
    if expected != _digest(embeddings.tobytes()):
        raise _damaged(path)
    return embeddings


def _damaged(path: Path) -> ArtifactIncomplete:
    return ArtifactIncomplete(f"{path} is damaged; delete it, and its texts are encoded again")


def _remove_unless_written(path: Path) -> None:
    """Remove a temporary file that nobody writes any more."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except (BlockingIOError, FileNotFoundError):
        pass
