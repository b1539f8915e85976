"""A system to kill: embedded servers, a small world, an index, and a live release whose engine is the stub."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from leadre import services
from leadre.artifacts import write_artifact
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.build import index_ads
from leadre.indexing.quantisers.residual_kmeans import fit_residual_kmeans
from leadre.prompts.vocabulary import Vocabulary
from leadre.recipe import PromptRecipe, Recipe, encode_recipe
from leadre.settings import Settings
from leadre.store.records import catalog, events
from leadre.store.records.database import connect, migrate, transaction
from leadre.store.release import records as releases
from leadre.synthetic import World, make_world
from leadre.training.learner.release_folder import RECIPE, TEXT_TOKENIZER, VOCABULARY
from leadre.training.learner.tokenizer import train_text_tokenizer

ROOT = Path(__file__).parents[2]
LEASE_S = 2.0
RECIPE_OF_TESTS = Recipe(name="tiny", prompt=PromptRecipe(budget_tokens=2000))


@dataclass(frozen=True, kw_only=True)
class System:
    """Where everything is. `environment` is that of every process."""

    settings: Settings
    world: World
    index: AdIndex
    environment: dict[str, str]

    @property
    def user_ids(self) -> list[int]:
        """All users of the world."""
        return [profile.user_id for profile in self.world.profiles]


@contextmanager
def own_system(*, seed: int, users: int, batch: int = 16) -> Iterator[System]:
    """Start both servers in a temporary folder and fill them; stop and remove them at the end.

    Args:
        seed: of the world.
        users: in it.
        batch: users a worker claims at once.
    """
    home = Path(tempfile.mkdtemp(prefix="leadre-chaos-"))
    home.chmod(0o711)  # under root the servers' account passes through it
    try:
        servers = services.up(home, durable=False)  # a killed process loses nothing either way
        settings = Settings(
            home=home,
            database_url=servers.database_url,
            redis_url=servers.redis_url,
            feature_repo=ROOT / "feature_repo",
            engine="stub",
            lease_s=LEASE_S,
            refresh_batch=batch,
        )
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("LEADRE_")}
        environment = {
            **inherited,
            "LEADRE_HOME": str(home),
            "LEADRE_DATABASE_URL": settings.database_url,
            "LEADRE_REDIS_URL": settings.redis_url,
            "LEADRE_FEATURE_REPO": str(settings.feature_repo),
            "LEADRE_ENGINE": "stub",
            "LEADRE_LEASE_S": str(LEASE_S),
            "LEADRE_REFRESH_BATCH": str(batch),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            **settings.feast_environment(),
        }
        migrate(settings.database_url)
        world, index = fill(settings, seed=seed, users=users)
        feast = [sys.executable, "-m", "feast.cli.cli", "-c", str(settings.feature_repo), "apply"]
        subprocess.run(feast, env=environment, check=True, capture_output=True)
        yield System(settings=settings, world=world, index=index, environment=environment)
    finally:
        services.down(home)
        if "LEADRE_CHAOS_KEEP" not in os.environ:
            shutil.rmtree(home)


def fill(settings: Settings, *, seed: int, users: int) -> tuple[World, AdIndex]:
    """Write a world, an index of its ads and a live release."""
    world = make_world(seed=seed, ads=96, users=users, sessions=2, slate=3, days=20, now=datetime.now(UTC))
    embeddings = np.random.default_rng(seed).normal(size=(96, 12)).astype(np.float32)
    quantiser = fit_residual_kmeans(embeddings, levels=2, codes=8, width=6, seed=seed)
    index = index_ads(world.ads, embeddings, quantiser, version="i1")
    index.save(settings.indexes / "i1")
    folder = settings.releases / "r1"
    write_stub_release(folder, index=index, recipe=RECIPE_OF_TESTS)
    recipe = encode_recipe(RECIPE_OF_TESTS)
    database = connect(settings.database_url)
    with transaction(database) as connection:
        catalog.upsert_ads(connection, world.ads)
        catalog.upsert_users(connection, world.profiles, event_at=world.now)
        catalog.upsert_content_items(connection, world.content_items)
        events.upsert_behaviors(connection, world.behaviors, arrived_at=world.now)
        releases.record_index(connection, "i1", uri=str(settings.indexes / "i1"), recipe={}, quality={})
        releases.record_release(connection, "r1", index_version="i1", uri=str(folder), recipe=recipe, metrics={})
        releases.promote(connection, "r1")
    database.dispose()
    return world, index


def write_stub_release(folder: Path, *, index: AdIndex, recipe: Recipe) -> None:
    """Write a release without a model: all that the stub engine and the prompt encoder read."""
    tokenizer = train_text_tokenizer(["a small corpus", "for prompts"], size=300)
    vocabulary = Vocabulary(text_size=tokenizer.get_vocab_size(), code_counts=index.code_counts)

    def write(unfinished: Path) -> None:
        tokenizer.save(str(unfinished / TEXT_TOKENIZER))
        (unfinished / VOCABULARY).write_text(json.dumps(vocabulary.to_json()))
        (unfinished / RECIPE).write_bytes(msgspec.toml.encode(encode_recipe(recipe)))

    write_artifact(folder, kind="release", facts={"index_version": index.version}, write=write)
