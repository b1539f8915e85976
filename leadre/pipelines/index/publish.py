"""Publish an index: its files and its records, both or neither. LEADRE §3.2, §4.4.1.

Each revision of an index is an artifact of its own, `<version>-r<revision>`; `<version>` is a symbolic link to the
newest one. Who opens `<version>` gets a whole revision, before the link moves or after.

Whoever changes an index holds PostgreSQL's advisory lock on it. Rows are written first and committed last, and the link
moves in between: a failure before leaves nothing, and one at the commit leaves ads in the index without rows, which
the next addition finds in the catalog and records.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from leadre.artifacts import open_artifact, write_artifact
from leadre.errors import ArtifactIncomplete, ReleaseMismatch
from leadre.indexing.ad_index import KIND, AdIndex
from leadre.indexing.quantisers.quantiser import Quantiser
from leadre.recipe import IndexRecipe
from leadre.store.records.database import transaction
from leadre.store.records.indexes import lock_index, recorded_ads, recorded_size
from leadre.store.release.records import record_index, record_sids

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy import Engine as Database

QUANTISER, RECIPE = "quantiser.safetensors", "recipe.json"
_KEPT_REVISIONS = 2  # the newest one, and the one that somebody may be opening while it is replaced


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltIndex:
    """An index with what is needed to add ads to it."""

    index: AdIndex
    quantiser: Quantiser
    recipe: IndexRecipe

    def grown(self, index: AdIndex) -> BuiltIndex:
        """Return its next revision."""
        return replace(self, index=index)


def open_index(folder: Path) -> BuiltIndex:
    """Open an index with what is needed to add ads to it.

    Raises:
        ArtifactIncomplete: no index there, or a file of it is missing or altered.
        ReleaseMismatch: it is another version than the folder's name says.
    """
    revision = folder.resolve()  # all three from one revision
    version = open_artifact(revision, kind=KIND).facts["index_version"]
    if version != folder.name:
        raise ReleaseMismatch(f"{folder} holds index {version}; put {folder.name} there, or build the index again")
    recipe = msgspec.convert(json.loads((revision / RECIPE).read_text()), IndexRecipe)
    return BuiltIndex(index=AdIndex.load(revision), quantiser=Quantiser.load(revision / QUANTISER), recipe=recipe)


def is_whole(folder: Path) -> bool:
    """Return whether an index is there and none of its files is missing or cut."""
    try:
        open_artifact(folder.resolve(), kind=KIND)
    except ArtifactIncomplete:
        return False
    return True


def publish_built(database: Database, folder: Path, *, built: BuiltIndex | None, now: datetime) -> AdIndex:
    """Publish a new index unless it is there, and record of it what is not recorded.

    Args:
        database: the system of record.
        folder: the index's, named as its version.
        built: None where the index is there.
        now: when its S-IDs became true.

    Raises:
        InvalidInput: an ad is recorded with another S-ID in this version.
        Unavailable: the database does not answer.
    """
    with transaction(database) as connection:
        lock_index(connection, folder.name)
        is_new = built is not None and not is_whole(folder)  # another process may have built it meanwhile
        one = built if built is not None and is_new else open_index(folder)
        missing = np.setdiff1d(one.index.ad_ids, recorded_ads(connection, folder.name), assume_unique=True)
        _record(connection, folder, one, ad_ids=missing, now=now)
        if is_new:
            _write(folder, one)
    return AdIndex.load(folder)


def publish_grown(
    connection: Connection, folder: Path, grown: BuiltIndex, *, ad_ids: NDArray[np.int64], now: datetime
) -> None:
    """Record ads of an index, and publish it if it is a new revision. Commit right after.

    Args:
        connection: in a transaction that holds the index's lock.
        folder: the index's, named as its version.
        grown: the present revision or the next one.
        ad_ids: ads of it that are not recorded, int64[n].
        now: when their S-IDs became true.

    Raises:
        ArtifactIncomplete: the folder holds an older revision than the recorded one.
    """
    present = AdIndex.load(folder)
    if (known := recorded_size(connection, folder.name)) > len(present):
        raise ArtifactIncomplete(
            f"{folder} holds {len(present):,} ads but {known:,} are recorded: it is an older copy, which would give "
            "S-IDs away a second time; restore its newest revision, or build a new index"
        )
    _record(connection, folder, grown, ad_ids=ad_ids, now=now)
    if grown.index.revision != present.revision:
        _write(folder, grown)


def _record(connection: Connection, folder: Path, one: BuiltIndex, *, ad_ids: NDArray[np.int64], now: datetime) -> None:
    index, recipe = one.index, msgspec.to_builtins(one.recipe)
    rows = index.rows(ad_ids)
    first_categories, second_categories = index.categories_at(rows)
    record_index(connection, index.version, uri=str(folder), recipe=recipe, quality=index.quality)
    record_sids(
        connection,
        index.version,
        ad_ids=ad_ids,
        sids=[str(index.sid_at(row)) for row in rows.tolist()],
        codes=index.codes[rows],
        embeddings=index.embeddings[rows],
        first_categories=first_categories,
        second_categories=second_categories,
        advertiser_ids=index.advertiser_ids[rows],
        event_at=now,
    )


def _write(folder: Path, one: BuiltIndex) -> None:
    """Write the revision, then move the link onto it in one step, then remove revisions nobody opens any more.

    The caller holds the index's lock: what stands here unfinished is of a process that was killed.
    """
    index, indexes = one.index, folder.parent
    for unfinished in indexes.glob(f".{index.version}-r*"):
        shutil.rmtree(unfinished)

    def write(into: Path) -> None:
        index.write_into(into)
        one.quantiser.save(into / QUANTISER)
        (into / RECIPE).write_bytes(msgspec.json.format(msgspec.json.encode(one.recipe)))

    revision = indexes / f"{index.version}-r{index.revision}"
    facts: dict[str, Any] = index.facts()
    write_artifact(revision, kind=KIND, facts=facts, write=write, replace=True)
    link = indexes / f".{index.version}.link"
    link.unlink(missing_ok=True)
    link.symlink_to(revision.name)
    link.replace(folder)  # atomic
    for number in range(index.revision - _KEPT_REVISIONS, -1, -1):
        old = indexes / f"{index.version}-r{number}"
        if not old.exists():
            break
        shutil.rmtree(old)
