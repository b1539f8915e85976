"""What the teacher says of each code of each target, kept sparse: the codes that exist there, in a mapped file.

Ours; LEADRE §3.3 (which codes may follow a prefix). The codes below a node are the same whoever stands there, so they
are kept once a node, and a row is its node's number and half-precision logarithms: two bytes a code.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leadre.artifacts import open_artifact, write_artifact
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie.ranges import spread

Int64s = NDArray[np.int64]
KIND = "teacher"
_ARRAYS = ("codes", "code_starts", "node_of", "starts", "logs")


class TeacherRows:
    """One row for each code of each target: levels of the first target, then of the second.

    A row is a distribution over the codes that follow the target's own prefix in the index.

    Args:
        codes: the codes below each node, node after node.
        code_starts: int64[nodes + 1], where each node's begin.
        node_of: int32[rows], the node of each.
        starts: int64[rows + 1], where each row's logarithms begin.
        logs: float16, natural logarithms of probabilities; those of a row add up to 1.
        levels: codes of an S-ID.
    """

    def __init__(
        self,
        *,
        codes: NDArray[np.int32],
        code_starts: Int64s,
        node_of: NDArray[np.int32],
        starts: Int64s,
        logs: NDArray[np.float16],
        levels: int,
    ) -> None:
        self.codes, self.code_starts, self.node_of = codes, code_starts, node_of
        self.starts, self.logs, self.levels = starts, logs, levels

    def __len__(self) -> int:
        return len(self.node_of)

    def read(self, rows: Int64s) -> tuple[Int64s, Int64s, NDArray[np.float32]]:
        """Return some rows' entries.

        Args:
            rows: int64[n].

        Returns:
            The position in `rows`, the code, and the log-probability of each entry: int64[m], int64[m], float32[m].
        """
        which, entry = spread(self.starts[rows], self.starts[rows + 1])
        node = self.node_of[rows].astype(np.int64)
        code = entry + (self.code_starts[node] - self.starts[rows])[which]
        return which, self.codes[code].astype(np.int64), self.logs[entry].astype(np.float32)

    @classmethod
    def write(cls, folder: Path, leaves: Int64s, *, index: AdIndex, fill: Callable[[TeacherRows], None]) -> None:
        """Write the rows of some targets as an artifact.

        Args:
            folder: its place.
            leaves: int64[targets], each target's leaf.
            index: with the trie.
            fill: writes `logs` of all rows.
        """

        def write(unfinished: Path) -> None:
            arrays = _laid_out(leaves, index=index)
            total = int(arrays["starts"][-1])
            logs = np.lib.format.open_memmap(
                unfinished / "logs.npy", mode="w+", dtype=np.float16, shape=(total,)
            )
            fill(cls(**arrays, logs=logs, levels=index.trie.levels))
            logs.flush()
            for name, array in arrays.items():
                np.save(unfinished / f"{name}.npy", array)

        facts = {"levels": index.trie.levels, "targets": len(leaves)}
        write_artifact(folder, kind=KIND, facts=facts, write=write)

    @classmethod
    def load(cls, folder: Path) -> TeacherRows:
        """Map what `write` wrote: a process reads what its samples need.

        Raises:
            ArtifactIncomplete: no whole artifact there.
        """
        levels = open_artifact(folder, kind=KIND).facts["levels"]
        arrays: dict[str, Any] = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
        return cls(**arrays, levels=levels)


def _laid_out(leaves: Int64s, *, index: AdIndex) -> dict[str, Any]:
    """Return all arrays but the logarithms."""
    trie = index.trie
    paths = trie.codes_of(leaves)
    codes, sizes, node_of, nodes = [], [], np.empty((len(leaves), trie.levels), np.int32), 0
    for level in range(trie.levels):
        parents, number = np.unique(trie.find(paths[:, :level]), return_inverse=True)
        children = trie.children(level, parents)
        codes.append(children.code.astype(np.int32))
        sizes.append(np.bincount(children.parent, minlength=len(parents)))
        node_of[:, level] = nodes + number
        nodes += len(parents)
    size = np.concatenate(sizes)
    of_row = node_of.ravel()
    return {
        "codes": np.concatenate(codes),
        "code_starts": np.append(0, np.cumsum(size)),
        "node_of": of_row,
        "starts": np.append(0, np.cumsum(size[of_row])),
    }
