"""The ad index: which ad has which S-ID, the trie over them, and what a retrieval list says of an ad.

LEADRE §3.2, §3.3. An artifact of flat arrays, mapped into memory. `version` names the codebooks: a model belongs to a
version. New ads get their S-IDs from the same codebooks and make a new `revision` of it, which every model of the
version can serve.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leadre.artifacts import open_artifact, write_artifact
from leadre.domain.semantic_id import SemanticId
from leadre.errors import ArtifactIncomplete, InvalidInput, UnknownAd
from leadre.indexing.trie import LiveMask, Trie
from leadre.indexing.trie.keys import keys_of

KIND = "index"
_ARRAYS = ("ad_ids", "codes", "first_categories", "second_categories", "advertiser_ids", "embeddings", "by_id")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AdIndex:
    """Ads in the order of their S-IDs: row i is leaf i of the trie.

    Args:
        version: name of the codebooks.
        revision: how often ads were added since the codebooks were fitted.
        ad_ids: int64[N].
        codes: int32[N, L], ascending; L = M + 1.
        first_categories: int32[N], positions in `category_names`.
        second_categories: int32[N], likewise.
        category_names: names of both levels, sorted; "" where an ad has none.
        advertiser_ids: int64[N].
        embeddings: z_a of Eq. 4, float32[N, width].
        trie: over `codes`.
        code_counts: codes there are at each level, used or not; the last counts the reserved disambiguation codes.
        quality: what leadre.indexing.quality says.
        by_id: int64[N], the rows in ascending order of ad ids; computed unless given.
    """

    version: str
    revision: int = 0
    ad_ids: NDArray[np.int64]
    codes: NDArray[np.int32]
    first_categories: NDArray[np.int32]
    second_categories: NDArray[np.int32]
    category_names: tuple[str, ...]
    advertiser_ids: NDArray[np.int64]
    embeddings: NDArray[np.float32]
    trie: Trie
    code_counts: tuple[int, ...]
    quality: dict[str, Any]
    by_id: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def __post_init__(self) -> None:
        if len(self.by_id) != len(self.ad_ids):
            object.__setattr__(self, "by_id", np.argsort(self.ad_ids))

    @classmethod
    def assemble(
        cls,
        *,
        version: str,
        revision: int = 0,
        ad_ids: NDArray[np.int64],
        codes: NDArray[np.int32],
        first_categories: Sequence[str],
        second_categories: Sequence[str],
        advertiser_ids: NDArray[np.int64],
        embeddings: NDArray[np.float32],
        code_counts: tuple[int, ...],
        quality: dict[str, Any],
    ) -> AdIndex:
        """Build an index from ads in any order; the arguments are as the class has them, categories by name.

        Raises:
            InvalidInput: an ad or an S-ID is there twice, a code exceeds its level, or the arguments differ in length.
        """
        check_columns(codes, code_counts, ad_ids, first_categories, second_categories, advertiser_ids, embeddings)
        order = np.argsort(keys_of(codes, max(code_counts)))
        ad_ids = ad_ids[order].astype(np.int64)
        by_id = np.argsort(ad_ids)
        refuse_repeated(ad_ids[by_id])
        names = tuple(sorted({*first_categories, *second_categories}))
        place = {name: position for position, name in enumerate(names)}
        codes = np.ascontiguousarray(codes[order], np.int32)
        return cls(
            version=version,
            revision=revision,
            ad_ids=ad_ids,
            codes=codes,
            first_categories=np.array([place[name] for name in first_categories], np.int32)[order],
            second_categories=np.array([place[name] for name in second_categories], np.int32)[order],
            category_names=names,
            advertiser_ids=advertiser_ids[order].astype(np.int64),
            embeddings=np.ascontiguousarray(embeddings[order], np.float32),
            trie=Trie.build(codes),
            code_counts=code_counts,
            quality=quality,
            by_id=by_id,
        )

    def __len__(self) -> int:
        """Return the number of ads."""
        return len(self.ad_ids)

    def rows(self, ad_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of ads, int64[n]; -1 for an unknown one."""
        if not len(self):
            return np.full(len(ad_ids), -1)
        order = np.argsort(ad_ids)  # one search ends near the next: twice as fast
        asked = ad_ids[order]
        place = np.searchsorted(self.ad_ids, asked, sorter=self.by_id)
        found = self.by_id[np.minimum(place, len(self) - 1)]
        rows = np.empty(len(asked), dtype=np.int64)
        rows[order] = np.where(self.ad_ids[found] == asked, found, -1)
        return rows

    def sid(self, ad_id: int) -> SemanticId:
        """Return the S-ID of an ad.

        Raises:
            UnknownAd: the index does not hold it.
        """
        row = int(self.rows(np.array([ad_id], np.int64))[0])
        if row < 0:
            raise UnknownAd(
                f"index {self.version} (revision {self.revision}) has no ad {ad_id}; add it with `index add`"
            ).about(ads=[ad_id])
        return self.sid_at(row)

    def sid_at(self, row: int) -> SemanticId:
        """Return the S-ID of a row."""
        return SemanticId(tuple(self.codes[row].tolist()))

    def categories_at(self, rows: NDArray[np.int64]) -> tuple[list[str], list[str]]:
        """Return the first- and second-level category names of rows."""
        names = self.category_names
        first, second = self.first_categories[rows].tolist(), self.second_categories[rows].tolist()
        return [names[position] for position in first], [names[position] for position in second]

    def live_mask(self, live_ad_ids: NDArray[np.int64]) -> LiveMask:
        """Return the mask that lets only these ads be generated; ids the index does not hold are passed over."""
        rows = self.rows(live_ad_ids)
        live = np.zeros(len(self), np.bool_)
        live[rows[rows >= 0]] = True
        return LiveMask.of(live)

    def save(self, folder: Path) -> None:
        """Write the index as an artifact of its own; `write_into` is for an artifact that holds more.

        Raises:
            FileExistsError: `folder` exists.
        """
        write_artifact(folder, kind=KIND, facts=self.facts(), write=self.write_into)

    def facts(self) -> dict[str, Any]:
        """Return what the manifest says of the index."""
        return {
            "index_version": self.version,
            "revision": self.revision,
            "ads": len(self),
            "code_counts": list(self.code_counts),
        }

    def write_into(self, folder: Path) -> None:
        """Write the index's files into an artifact being written."""
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name), allow_pickle=False)
        for name, array in self.trie.arrays().items():
            np.save(folder / f"trie.{name}.npy", array, allow_pickle=False)
        described = {"category_names": self.category_names, "quality": self.quality}
        (folder / "index.json").write_text(json.dumps(described, ensure_ascii=False, indent=1))

    @classmethod
    def load(cls, folder: Path) -> AdIndex:
        """Open an index; its arrays stay on disk until they are read.

        Raises:
            ArtifactIncomplete: no index there, or a file of it is missing or altered.
        """
        folder = folder.resolve()  # a link may move to the next revision meanwhile
        facts = open_artifact(folder, kind=KIND).facts
        described = json.loads((folder / "index.json").read_text())
        arrays = {name: _mapped(folder / f"{name}.npy") for name in _ARRAYS}
        names = [path.name for path in folder.glob("trie.*.npy")]
        trie = {name.removeprefix("trie.").removesuffix(".npy"): _mapped(folder / name) for name in names}
        return cls(
            version=facts["index_version"],
            revision=facts["revision"],
            category_names=tuple(described["category_names"]),
            trie=_trie(trie, folder),
            code_counts=tuple(facts["code_counts"]),
            quality=described["quality"],
            **arrays,
        )


def check_columns(
    codes: NDArray[np.int32], code_counts: tuple[int, ...], *columns: Sequence[str] | NDArray[Any]
) -> None:
    """Refuse columns of different lengths, and codes that exceed their level.

    Raises:
        InvalidInput: as it says.
    """
    lengths = [len(codes), *map(len, columns)]
    if len(set(lengths)) != 1:
        raise InvalidInput(f"the columns of an index are equally long, these are {lengths}")
    if len(code_counts) != codes.shape[1] or (len(codes) and (codes.max(axis=0) >= code_counts).any()):
        raise InvalidInput(f"codes up to {codes.max(axis=0, initial=0).tolist()} do not fit code_counts {code_counts}")


def refuse_repeated(sorted_ids: NDArray[np.int64]) -> None:
    """Refuse an ad that is there twice.

    Raises:
        InvalidInput: naming it.
    """
    repeated = np.flatnonzero(np.diff(sorted_ids) == 0)
    if repeated.size:
        ad_id = int(sorted_ids[repeated[0]])
        raise InvalidInput(f"ad {ad_id} is there twice; an ad has one S-ID", column="ad_id").about(ads=[ad_id])


def _trie(arrays: dict[str, NDArray[Any]], folder: Path) -> Trie:
    try:
        return Trie.from_arrays(arrays)
    except KeyError as missing:
        raise ArtifactIncomplete(
            f"{folder} has no trie.{missing.args[0]}.npy: another version of leadre wrote it; build the index again"
        ) from None


def _mapped(path: Path) -> NDArray[Any]:
    try:
        # a plain view: indexing a numpy.memmap is several times slower
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError) as error:
        raise ArtifactIncomplete(f"{path} cannot be read ({error}); build the index again") from None
