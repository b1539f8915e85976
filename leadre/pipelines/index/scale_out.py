"""Build the index of a huge inventory with many workers: Ray Data, on this machine's cores or on a cluster.

LEADRE §3.2. Encoding takes nearly all the time and no ad needs another one, so blocks of ads go to workers, each with
the encoder and the codebooks in memory; what is left, disambiguation and trie, one machine does in seconds. Workers run
the code of leadre.pipelines.index.build, on blocks of a size that its loops divide: both give the same index.

    catalog ─▶ blocks (Parquet) ─▶ workers: encode a sample ─▶ fit codebooks ─▶ workers: encode, assign ─▶ index
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from leadre import errors
from leadre.errors import ConfigError, InvalidInput, LeadreError
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.build import index_assigned, version_of
from leadre.indexing.quantisers.fit import fit_quantiser
from leadre.indexing.quantisers.quantiser import Quantiser, quantise
from leadre.indexing.texts.embedding_store import EmbeddingStore
from leadre.indexing.texts.encoder import Progress
from leadre.pipelines.index import blocks
from leadre.pipelines.index.build import embed, embedding_store
from leadre.pipelines.index.fit_codebooks import fit_rows
from leadre.pipelines.index.publish import QUANTISER, BuiltIndex, is_whole, publish_built
from leadre.recipe import IndexRecipe
from leadre.store.records.database import connect, transaction

BLOCK = 16_384
"""Ads a worker takes at once: a multiple of what the quantiser computes at a time, when K is a power of two."""


_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to anybody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's coming default; it warns without
    "RAY_DATA_LOG_LEVEL": "ERROR",  # progress is shown by us
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}


def index_inventory(
    *,
    database_url: str,
    indexes: Path,
    recipe: IndexRecipe,
    now: datetime,
    workers: int,
    ray_address: str | None = None,
    progress: Progress | None = None,
) -> AdIndex:
    """Build the index as `leadre.pipelines.index.build.build_index` does, with many workers.

    Args:
        database_url: the system of record; only this process reads it.
        indexes: folder of index artifacts. Blocks and embeddings lie beside it: all workers must see it.
        recipe: how ads get S-IDs.
        now: when the S-IDs became true.
        workers: processes that encode and assign, with a GPU each where the cluster has as many.
        ray_address: of a running cluster, as `ray.init` takes it; None starts Ray on this machine.
        progress: as in `build_index`.

    Raises:
        ConfigError: Ray is not installed, another such build is under way, the signal "collaborative", or as
            `build_index`.
        InvalidInput, Unavailable: as `build_index`.
    """
    if recipe.signal != "text":
        raise ConfigError(
            f"index.signal={recipe.signal!r} is fitted on one machine; build without --workers, or with signal 'text'"
        )
    database = connect(database_url, application_name="leadre index build")
    try:
        with _workplace(indexes.parent / "scale-out") as folder:
            with transaction(database) as connection:
                version = version_of(blocks.write_catalog(connection, folder, size=BLOCK), recipe)
            catalog = blocks.blocks_in(folder)
            if not catalog:
                raise InvalidInput("the catalog holds no ads; import some first: `leadre import`")
            built = None
            if not is_whole(indexes / version):
                with _ray(ray_address, workers=workers) as pool:
                    built = _build(catalog, pool, version=version, recipe=recipe, indexes=indexes, progress=progress)
            return publish_built(database, indexes / version, built=built, now=now)
    finally:
        database.dispose()


class Worker:
    """What a worker process holds: the encoder (it stays loaded), the store of its embeddings, and the codebooks.

    Args:
        recipe: how ads get S-IDs.
        indexes: folder of index artifacts.
        quantiser: file of the codebooks; None only encodes, into the store.
    """

    def __init__(self, *, recipe: IndexRecipe, indexes: Path, quantiser: Path | None) -> None:
        self._recipe, self._indexes, self._file = recipe, indexes, quantiser

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Work on one block, `batch["block"][0]`; write its codes beside it.

        Returns:
            How many ads it has; or the error of ours there was, of which Ray would pass on the text alone.
        """
        try:
            ads, kind, problem = self._work(Path(str(batch["block"][0]))), "", ""
        except LeadreError as error:
            ads, kind, problem = 0, type(error).__name__, str(error)
        return {"ads": np.array([ads]), "kind": np.array([kind]), "problem": np.array([problem])}

    @cached_property
    def _store(self) -> EmbeddingStore:
        return embedding_store(self._indexes, self._recipe)

    @cached_property
    def _quantiser(self) -> Quantiser | None:
        return None if self._file is None else Quantiser.load(self._file)

    def _work(self, block: Path) -> int:
        embeddings = embed(blocks.descriptions(block), self._recipe, store=self._store, progress=None)
        if self._quantiser is not None:
            hidden = self._quantiser.hidden(embeddings)
            codes, quantised = quantise(hidden, self._quantiser.codebooks)
            blocks.write_codes(block, codes=codes, quantised=quantised, hidden=hidden)
        return len(embeddings)


class _Pool:
    """Workers on Ray Data."""

    def __init__(self, ray: Any, *, workers: int) -> None:
        there = ray.cluster_resources()
        self._ray, self._workers = ray, workers
        self._cpus = max(1, int(there.get("CPU", 1)) // workers)
        self._gpus = 1 if there.get("GPU", 0) >= workers else 0

    def run(self, what: str, work: Sequence[Path], *, progress: Progress | None, **held: Any) -> None:
        """Let workers that hold these arguments of `Worker` take all blocks."""
        data = self._ray.data.from_items([{"block": str(block)} for block in work], override_num_blocks=len(work))
        counts = data.map_batches(
            Worker,
            fn_constructor_kwargs=held,
            batch_size=1,
            compute=self._ray.data.ActorPoolStrategy(size=min(self._workers, len(work))),
            num_cpus=self._cpus,
            num_gpus=self._gpus,
        )
        done, total = 0, blocks.count(work)
        for row in counts.iter_rows():
            if row["kind"]:
                raise getattr(errors, row["kind"])(row["problem"])
            done += int(row["ads"])
            if progress is not None:
                progress(what, done, total)


def _build(
    catalog: Sequence[Path],
    pool: _Pool,
    *,
    version: str,
    recipe: IndexRecipe,
    indexes: Path,
    progress: Progress | None,
) -> BuiltIndex:
    rows = fit_rows(ads := blocks.count(catalog), seed=recipe.seed)
    sample = catalog if len(rows) == ads else blocks.select(catalog, rows)
    pool.run("encode ads", sample, progress=progress, recipe=recipe, indexes=indexes, quantiser=None)
    texts = [text for block in sample for text in blocks.descriptions(block)]
    embeddings = embed(texts, recipe, store=embedding_store(indexes, recipe), progress=None)  # the workers stored them
    quantiser = fit_quantiser(embeddings, recipe, progress=progress)
    del texts, embeddings
    codebooks = catalog[0].with_name(QUANTISER)
    quantiser.save(codebooks)
    pool.run("assign codes", catalog, progress=progress, recipe=recipe, indexes=indexes, quantiser=codebooks)
    index = index_assigned(
        **blocks.read_assigned(catalog),
        codebooks=quantiser.codebooks,
        version=version,
        assignment=recipe.assignment,
    )
    return BuiltIndex(index=index, quantiser=quantiser, recipe=recipe)


@contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """Give an empty folder to one process at a time, and remove it at the end; what a killed one left goes first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another build works in {folder}; wait for its end") from None
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


@contextmanager
def _ray(address: str | None, *, workers: int) -> Iterator[_Pool]:
    """Give workers on a cluster or on this machine. Ray is stopped here if it was started here."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError:
        raise ConfigError(
            "several workers need Ray, which is not installed: pip install 'leadre[scale]', or leave --workers out"
        ) from None
    started = not ray.is_initialized()
    if started and address is not None:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    elif started:
        cpus = max(workers, os.cpu_count() or 1)
        ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False  # ours are shown
        yield _Pool(ray, workers=workers)
    finally:
        if started:
            ray.shutdown()
