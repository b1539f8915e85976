"""What tests of whole simulations share: a home for their servers, and a release that is trained in seconds."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from leadre.recipe import Recipe, decode_recipe, encode_recipe
from leadre.simulation.release import RECIPE


@pytest.fixture
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="leadre-simulation-"))
    folder.chmod(0o711)  # under root the servers' account passes through it
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def tiny_recipe() -> Recipe:
    """The simulation's, for a model that has hardly learned."""
    plain = encode_recipe(RECIPE)
    plain["index"] |= {"encoder": "hashed", "epochs": 5, "codes": 16}
    plain["prompt"] |= {"budget_tokens": 512}
    plain["model"] |= {"hidden_size": 32, "layers": 1, "heads": 2, "feed_forward": 64}
    plain["sft"] |= {"epochs": [0.5, 0.1, 1.0]}
    plain["dpo"] |= {"max_pairs": 32}
    return decode_recipe(plain, source="test")
