"""A release as a plain Hugging Face folder: for transformers, vLLM and people who have no leadre.

LEADRE §3.2 (S-IDs), §3.3 (trie), §4.3 (the model). safetensors, tokenizer, a model card, and the index as Parquet.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from leadre.domain.semantic_id import code_token, sid_texts
from leadre.errors import ConfigError
from leadre.indexing.ad_index import AdIndex
from leadre.prompts.vocabulary import Vocabulary
from leadre.recipe import Recipe
from leadre.store.records.source_ids import ad_source_ids
from leadre.training.learner.release_folder import MODEL, load_recipe_of, load_vocabulary, open_release

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from leadre.artifacts import Manifest

SIDS, TRIE, CARD = "sids.parquet", "trie.parquet", "README.md"
_ROWS = 65_536
_CARD = Path(__file__).with_name("model_card.md")


def export_release(connection: Connection, release: Path, *, index: AdIndex, folder: Path) -> None:
    """Write a release and its index as a Hugging Face folder, whole or not at all.

    Args:
        connection: to the catalog, for the ads' own ids.
        release: the release's folder.
        index: the one that it was trained for.
        folder: where to; it must not exist, or be empty.

    Raises:
        ConfigError: there is something at `folder`.
        ArtifactIncomplete: no whole release there.
        Unavailable: PostgreSQL does not answer.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists; name a folder that does not")
    manifest, vocabulary = open_release(release), load_vocabulary(release)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        shutil.copytree(release / MODEL, unfinished, dirs_exist_ok=True)
        _write(unfinished / SIDS, _sids(connection, index))
        _write(unfinished / TRIE, _trie(index, vocabulary))
        card = _card(manifest, vocabulary, index=index, recipe=load_recipe_of(release))
        (unfinished / CARD).write_text(card, encoding="utf-8")
        unfinished.chmod(0o755)
        unfinished.rename(folder)  # over an empty folder, too
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _write(path: Path, tables: Iterator[pa.Table]) -> None:
    first = next(tables)
    with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def _sids(connection: Connection, index: AdIndex) -> Iterator[pa.Table]:
    """Yield one row an ad in the order of the leaves, some at a time."""
    for start in range(0, max(1, len(index)), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(index)))
        ids = index.ad_ids[rows].tolist()
        names = ad_source_ids(connection, ids)
        first, second = index.categories_at(rows)
        codes = index.codes[rows].tolist()
        yield pa.table(
            {
                "leaf": pa.array(rows, pa.int64()),
                "ad": pa.array([str(names.get(ad_id, ad_id)) for ad_id in ids], pa.string()),
                "ad_id": pa.array(ids, pa.int64()),
                "sid": pa.array(sid_texts(codes), pa.string()),
                "codes": pa.array(codes, pa.list_(pa.int32())),
                "first_category": pa.array(first, pa.string()),
                "second_category": pa.array(second, pa.string()),
            }
        )


def _trie(index: AdIndex, vocabulary: Vocabulary) -> Iterator[pa.Table]:
    """Yield the trie's nodes, a level after the other: ids rise, a parent's is smaller, and the root is 0."""
    nodes: Any = np.zeros(1, np.int64)
    parents_from, known = 0, 1
    for depth in range(index.trie.levels):
        children = index.trie.children(depth, nodes)
        low, high = index.trie.leaf_range(depth + 1, children.node)
        count = len(children.node)
        codes = children.code.tolist()
        yield pa.table(
            {
                "node": pa.array(np.arange(known, known + count), pa.int64()),
                "parent": pa.array(children.parent + parents_from, pa.int64()),
                "depth": pa.array(np.full(count, depth + 1), pa.int8()),
                "code": pa.array(codes, pa.int32()),
                "token": pa.array([code_token(depth, code) for code in codes], pa.string()),
                "token_id": pa.array(children.code + vocabulary.level_offsets[depth], pa.int32()),
                "first_leaf": pa.array(low, pa.int64()),
                "leaves": pa.array(high - low, pa.int64()),
            }
        )
        nodes, parents_from, known = children.node, known, known + count


def _card(manifest: Manifest, vocabulary: Vocabulary, *, index: AdIndex, recipe: Recipe) -> str:
    facts = {
        "release": manifest.name,
        "architecture": manifest.facts.get("architecture", ""),
        "parameters": f"{manifest.facts.get('parameters', 0):,}",
        "recipe": recipe.name,
        "base_model": recipe.model.base_model or "none: trained from scratch",
        "index": index.version,
        "ads": f"{len(index):,}",
        "levels": str(vocabulary.levels),
        "code_counts": ", ".join(map(str, vocabulary.code_counts)),
        "score": recipe.decoding.score,
        "variety": str(recipe.decoding.variety),
        "budget": str(recipe.prompt.budget_tokens),
        "offsets": ", ".join(map(str, vocabulary.level_offsets)),
    }
    text = _CARD.read_text(encoding="utf-8")
    for name, value in facts.items():
        text = text.replace(f"{{{name}}}", value)
    return text
