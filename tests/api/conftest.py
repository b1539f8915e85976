"""A live release over a small world, whose lists are stored, and the API over it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import leadre
from leadre.api import Live
from leadre.settings import Settings
from tests.live_world import LiveWorld, make_live_world, serve_everybody


@pytest.fixture
def world(applied: Settings) -> LiveWorld:
    made = make_live_world(applied)
    serve_everybody(made)
    return made


@pytest.fixture
def live(world: LiveWorld) -> Iterator[Live]:
    with leadre.load(settings=world.settings) as opened:
        yield opened
