"""A world's own release: trained on its history by the product's own training, and kept. LEADRE §4.3.

In a PostgreSQL of the simulation's own, so that nothing made up comes near real data.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leadre.decoding.load import load_engine
from leadre.domain.targeting import EVERYBODY
from leadre.indexing.ad_index import AdIndex
from leadre.pipelines.index.build import add_new_ads, build_index
from leadre.pipelines.learning.train import train
from leadre.pipelines.summarize import summarize
from leadre.recipe import Recipe, decode_recipe, encode_recipe, load_recipe
from leadre.retrieval.inventory import Inventory
from leadre.retrieval.loaded_release import LoadedRelease
from leadre.simulation.observed import Observed
from leadre.simulation.remembering import Remembering
from leadre.store.importers.load import load
from leadre.store.records.database import scratch_database
from leadre.store.records.inventory.rows import InventoryRows
from leadre.training.learner.release_folder import load_prompt_encoder, seen_of

Progress = Callable[[str, int, int | None], None]
_NOTE = "world.json"

RECIPE = decode_recipe(
    {
        "name": "simulation",
        "index": {"encoder": "minilm", "levels": 3, "codes": 32, "width": 8, "epochs": 120},
        "prompt": {"template": "one_pass", "budget_tokens": 256},
        "model": {
            "architecture": "qwen2",
            "hidden_size": 96,
            "layers": 2,
            "heads": 4,
            "feed_forward": 288,
            "text_vocabulary": 1500,
            "code_start": "codebooks",
        },
        "sft": {
            "epochs": [6.0, 0.25, 6.0],
            "learning_rate": 3e-3,
            "minimum_learning_rate": 2e-4,
            "weight_decay": 0.05,
            "batch_size": 16,
            "device_batch_size": 16,
            "level_loss": True,
        },
        "dpo": {"beta": 1.0, "learning_rate": 2e-4, "batch_size": 32, "max_pairs": 800},
        "decoding": {"score": "level", "beam_width": 20},
        "evaluation": {"split": "global_time", "test_share": 0.05},
    },
    source="leadre.simulation",
)
"""How a world's release is trained: recipes/demo.toml, smaller, and the LLM alone as in the paper: no collaborative
signal, no variety. Almost nothing is held out: the experiment itself is the evaluation. Every number is ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldRelease:
    """The releases of a world, before and after DPO, over the index that knows its new ads too."""

    index: AdIndex
    folder: Path
    sft_folder: Path

    def loaded(self, *, dpo: bool) -> LoadedRelease:
        """Read one of the releases into memory."""
        folder = self.folder if dpo else self.sft_folder
        return LoadedRelease(
            release=folder.name,
            engine=Remembering(load_engine(folder, index=self.index)),
            encoder=load_prompt_encoder(folder),
            index=self.index,
            recipe=load_recipe(folder / "recipe.toml"),
            seen=seen_of(folder),
        )


def release_of(
    observed: Observed,
    *,
    home: Path,
    database_url: Callable[[], str],
    recipe: Recipe = RECIPE,
    progress: Progress | None = None,
) -> WorldRelease:
    """Return the release of a world, trained on what is before `observed.learn_until` unless it is kept already.

    Args:
        observed: the world.
        home: the simulation's folder; a world's folder in it is whole or absent.
        database_url: says where PostgreSQL is, when it is needed.
        recipe: everything about the training.
        progress: called as training goes on.

    Raises:
        ConfigError, Unavailable, InvalidInput: as `build_index` and `train`.
    """
    key = _key(observed, recipe)
    folder, name = home / "worlds" / key, f"simulation-{key}"
    if not (folder / _NOTE).exists():
        shutil.rmtree(folder, ignore_errors=True)
        with scratch_database(database_url(), f"simulation_{key}") as url:
            version = _train(observed, url=url, folder=folder, name=name, recipe=recipe, progress=progress)
        (folder / _NOTE).write_text(json.dumps({"simulation": True, "index": version}))
    version = json.loads((folder / _NOTE).read_text())["index"]
    releases = folder / "releases"
    return WorldRelease(
        index=AdIndex.load(folder / "indexes" / version), folder=releases / name, sft_folder=releases / f"{name}-sft"
    )


def _train(observed: Observed, *, url: str, folder: Path, name: str, recipe: Recipe, progress: Progress | None) -> str:
    known = [ad for ad, launched in zip(observed.ads, observed.launched, strict=True) if launched]
    until = observed.learn_until
    begin = min(ad.created_at for ad in known)
    everything = {
        "profiles": observed.profiles,
        "content_items": observed.content_items,
        "behaviors": [each for each in observed.behaviors if each.occurred_at < until],
        "impressions": [each for each in observed.impressions if each.occurred_at < until],
    }
    load(url, ads=known, profiles_at=begin, arrived_at=until, **everything)  # type: ignore[arg-type]
    summarize(url, now=until)
    index = build_index(database_url=url, indexes=folder / "indexes", recipe=recipe.index, now=until, progress=progress)
    train(
        database_url=url,
        releases=folder / "releases",
        index=index,
        recipe=recipe,
        now=until,
        name=name,
        progress=progress,
    )
    nobody = dict.fromkeys(everything, ())
    load(url, ads=observed.ads, profiles_at=begin, arrived_at=observed.now, **nobody)  # type: ignore[arg-type]
    add_new_ads(
        database_url=url, indexes=folder / "indexes", version=index.version, now=observed.now, progress=progress
    )
    return index.version


def inventory_of(index: AdIndex, live: NDArray[np.bool_]) -> Inventory:
    """Return which ads may be shown, bool[A], as the catalog would say it."""
    inventory = Inventory(index)
    ads = len(live)
    bounds = np.iinfo(np.int64)
    inventory.apply(
        InventoryRows(
            ad_ids=np.arange(ads),
            on=live,
            starts_us=np.full(ads, bounds.min),
            ends_us=np.full(ads, bounds.max),
            targetings=(EVERYBODY,),
            targeting=np.zeros(ads, np.int32),
            cursor=0,
            whole=True,
        )
    )
    return inventory


def _key(observed: Observed, recipe: Recipe) -> str:
    mark = hashlib.blake2b(json.dumps(encode_recipe(recipe), sort_keys=True).encode(), digest_size=8)
    for ad, launched in zip(observed.ads, observed.launched.tolist(), strict=True):
        mark.update(f"{ad.name}|{ad.bid!r}|{launched}".encode())
    for each in observed.behaviors:
        mark.update(f"{each.user_id}|{each.item_id}|{each.action}|{each.occurred_at.timestamp()!r}".encode())
    mark.update(f"{observed.learn_until.isoformat()}|{len(observed.impressions)}".encode())
    return mark.hexdigest()
