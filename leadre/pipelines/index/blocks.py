"""The catalog as Parquet blocks: what workers read, and what they write.

LEADRE §3.2, for leadre.pipelines.index.scale_out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from leadre.domain.ads import Ad
from leadre.indexing.texts.description import describe
from leadre.store.records.indexes import ad_blocks

if TYPE_CHECKING:
    from sqlalchemy import Connection


class Assigned(TypedDict):
    """All blocks together, in the order of the ads: the arguments of `leadre.indexing.build.index_assigned`."""

    codes: NDArray[np.int32]
    quantised: NDArray[np.float32]
    hidden: NDArray[np.float32]
    ad_ids: NDArray[np.int64]
    first_categories: list[str]
    second_categories: list[str]
    advertiser_ids: NDArray[np.int64]


def write_catalog(connection: Connection, folder: Path, *, size: int) -> Iterator[Ad]:
    """Write the catalog by ascending `ad_id` as blocks of `size` ads, and yield each ad that was written."""
    for number, ads in enumerate(ad_blocks(connection, size=size)):
        columns = {
            "ad_id": pa.array([ad.ad_id for ad in ads], pa.int64()),
            "description": pa.array([describe(ad) for ad in ads], pa.string()),
            "first_category": pa.array([ad.first_category for ad in ads], pa.string()),
            "second_category": pa.array([ad.second_category for ad in ads], pa.string()),
            "advertiser_id": pa.array([ad.advertiser_id for ad in ads], pa.int64()),
        }
        _write(folder / f"ads-{number:06d}.parquet", columns)
        yield from ads


def blocks_in(folder: Path) -> list[Path]:
    """Return the catalog's blocks, in the order of the ads."""
    return sorted(folder.glob("ads-*.parquet"))


def count(blocks: Sequence[Path]) -> int:
    """Return how many ads blocks hold."""
    return sum(pq.read_metadata(block).num_rows for block in blocks)


def select(blocks: Sequence[Path], rows: NDArray[np.int64]) -> list[Path]:
    """Write the descriptions of some ads as further blocks.

    Args:
        blocks: of the catalog.
        rows: ads by their place in all blocks, ascending, int64[n].
    """
    selected, start = [], 0
    for block in blocks:
        end = start + count([block])
        here = rows[np.searchsorted(rows, start) : np.searchsorted(rows, end)] - start
        if len(here):
            descriptions = pq.read_table(block, columns=["description"]).take(pa.array(here))
            selected.append(block.with_name(f"sample-{block.name}"))
            _write(selected[-1], {"description": descriptions["description"].combine_chunks()})
        start = end
    return selected


def descriptions(block: Path) -> list[str]:
    """Return the descriptions of a block's ads."""
    texts: list[str] = pq.read_table(block, columns=["description"])["description"].to_pylist()
    return texts


def write_codes(
    block: Path, *, codes: NDArray[np.int32], quantised: NDArray[np.float32], hidden: NDArray[np.float32]
) -> None:
    """Write what a worker made of a block beside it, [n, M], [n, width] and [n, width]."""
    matrices = {"codes": codes, "quantised": quantised, "hidden": hidden}
    rows = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])
        for name, matrix in matrices.items()
    }
    _write(_codes_of(block), rows)


def read_assigned(blocks: Sequence[Path]) -> Assigned:
    """Return the ads of all blocks with their codes."""
    ads = pa.concat_tables([pq.read_table(block) for block in blocks])
    found = pa.concat_tables([pq.read_table(_codes_of(block)) for block in blocks])
    return {
        "codes": _matrix(found["codes"]),
        "quantised": _matrix(found["quantised"]),
        "hidden": _matrix(found["hidden"]),
        "ad_ids": ads["ad_id"].to_numpy(),
        "first_categories": ads["first_category"].to_pylist(),
        "second_categories": ads["second_category"].to_pylist(),
        "advertiser_ids": ads["advertiser_id"].to_numpy(),
    }


def _codes_of(block: Path) -> Path:
    return block.with_name(block.name.replace("ads-", "codes-"))


def _matrix(column: pa.ChunkedArray) -> NDArray[Any]:
    matrix: NDArray[Any] = column.combine_chunks().flatten().to_numpy().reshape(len(column), -1)
    return matrix


def _write(path: Path, columns: dict[str, pa.Array]) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")  # a worker that dies leaves no half of a block
    pq.write_table(pa.table(columns), part)
    part.replace(path)
