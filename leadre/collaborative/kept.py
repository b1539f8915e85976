"""SASRecs on disk: what was trained once on the same histories, recipe, seed and start is not trained again.

Ours. One pipeline wants up to three: for the index's codebooks and for a release's signal, which are one and the same
where recipe and seed are (both start from the texts), and for the baseline, which has ids alone and so is another, but
the same in every evaluation. An artifact each, named by what it was trained on; SHA-256 of the weights is compared.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from leadre.artifacts import open_artifact, write_artifact
from leadre.collaborative.sasrec import SasRec
from leadre.collaborative.sasrec_network import SasRecNetwork
from leadre.errors import ArtifactIncomplete
from leadre.evaluation.baselines import Histories, Popularity
from leadre.evaluation.ranking import ABSENT
from leadre.recipe import SasRecRecipe

logger = logging.getLogger(__name__)
Progress = Callable[[str, int, int | None], None]

KIND = "sasrec"
METHOD = "1"
"""Changes with what a training does, so that nothing is taken for the same that another version trained."""
MOST = 12
"""So many are kept, those used last (ours): a day's pipeline needs two."""
_WEIGHTS = "network.safetensors"


def fit_once(
    kept: Path | None,
    train: Histories,
    *,
    targets: NDArray[np.int64],
    recipe: SasRecRecipe,
    seed: int,
    texts: NDArray[np.float32] | None = None,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> SasRec:
    """Return what `SasRec.fit` returns, from disk where it was trained before; of two who ask at once, one trains.

    Args:
        kept: folder of all of them; None trains, and keeps nothing.
        train: one row a user; rows without items change nothing.
        targets: as in `SasRec.fit`.
        recipe: sizes and rates.
        seed: of weights, order and dropout.
        texts: as in `SasRec.fit`; None: ids alone.
        device: as in `SasRec.fit`.
        progress: called after each epoch, not at all where nothing is trained.
    """
    rows = np.flatnonzero((np.diff(train.offsets) > 0) | (targets != ABSENT))
    if len(rows) < len(train):
        train, targets = train.take(rows), targets[rows]

    def fit() -> SasRec:
        return SasRec.fit(
            train, targets=targets, recipe=recipe, seed=seed, texts=texts, device=device, progress=progress
        )

    if kept is None:
        return fit()
    folder = kept / _name(train, targets, recipe=recipe, seed=seed, texts=texts)
    with _alone(folder):
        if (found := _read(folder, train, recipe, device=device)) is not None:
            return found
        made = fit()
        weights = {name: weight.cpu().contiguous() for name, weight in made.network.state_dict().items()}
        write_artifact(
            folder,
            kind=KIND,
            facts={
                "recipe": msgspec.to_builtins(recipe),
                "seed": seed,
                "from": "ids" if texts is None else "texts",
                "epochs": made.epochs,
            },
            write=lambda unfinished: save_file(weights, unfinished / _WEIGHTS),
            replace=True,
        )
    _keep_the_newest(kept)
    return made


def _name(
    train: Histories,
    targets: NDArray[np.int64],
    *,
    recipe: SasRecRecipe,
    seed: int,
    texts: NDArray[np.float32] | None,
) -> str:
    about = json.dumps([METHOD, msgspec.to_builtins(recipe), seed, None if texts is None else texts.shape])
    name = blake2b(about.encode(), digest_size=16)
    arrays = (train.offsets, train.items, targets)
    for array in arrays if texts is None else (*arrays, texts):
        name.update(np.ascontiguousarray(array).data)
    return name.hexdigest()


def _read(folder: Path, train: Histories, recipe: SasRecRecipe, *, device: torch.device | None) -> SasRec | None:
    if not folder.exists():
        return None
    try:
        epochs = int(open_artifact(folder, kind=KIND).facts["epochs"])
    except ArtifactIncomplete as error:
        logger.warning("kept_sasrec_damaged", extra={"problem": str(error)})  # it is trained again
        return None
    items = np.unique(train.items)
    network = SasRecNetwork(len(items), recipe)
    network.load_state_dict(load_file(folder / _WEIGHTS))
    os.utime(folder)  # used now
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = SasRec(items, network.to(device), Popularity.fit(train))
    found.epochs = epochs
    return found


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process trains the same one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _keep_the_newest(kept: Path) -> None:
    folders = [path for path in kept.iterdir() if path.is_dir() and not path.name.startswith(".")]
    for old in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True)[MOST:]:
        shutil.rmtree(old, ignore_errors=True)
        old.with_suffix(".lock").unlink(missing_ok=True)
