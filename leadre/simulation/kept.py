"""What arms brought, kept on disk: a simulation that was stopped goes on where it was. Ours."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from leadre.recipe import Recipe, encode_recipe
from leadre.simulation.arms import Arm, Measured
from leadre.simulation.parameters import Parameters

EDITION = 1
"""Of the simulation: raised when the same parameters would bring something else, so that nothing old is found."""


def measured_once(
    folder: Path,
    arm: Arm,
    *,
    seed: int,
    parameters: Parameters,
    base: Parameters,
    recipe: Recipe,
    measure: Callable[[], Measured],
) -> Measured:
    """Return what an arm brought in a world: from disk, else measured and kept.

    Args:
        folder: of what is kept.
        arm: which.
        seed: of the world.
        parameters: of the experiment.
        base: with which the world was trained and rehearsed.
        recipe: of its release.
        measure: runs the experiment.
    """
    made_of = [EDITION, asdict(arm), seed, parameters.to_json(), base.to_json(), encode_recipe(recipe)]
    key = hashlib.blake2b(json.dumps(made_of, sort_keys=True).encode(), digest_size=12).hexdigest()
    path = folder / f"{key}.npz"
    if not path.is_file():
        found = measure()
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        with unfinished.open("wb") as file:
            arrays: dict[str, Any] = {each.name: getattr(found, each.name) for each in fields(Measured)}
            np.savez(file, **arrays)
        unfinished.replace(path)
        return found
    with np.load(path, allow_pickle=False) as stored:
        values: dict[str, Any] = {each.name: stored[each.name] for each in fields(Measured)}
    numbers: dict[str, Any] = {name: int(value) for name, value in values.items() if not value.ndim}
    return Measured(**{**values, **numbers})
