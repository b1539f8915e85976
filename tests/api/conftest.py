"""A live release over a small world, whose lists are stored, and the API over it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import leadre
from leadre.api import Live
from leadre.pipelines.refresh import refresh_users
from leadre.settings import Settings
from tests.live_world import LiveWorld, make_live_world


@pytest.fixture
def world(applied: Settings) -> LiveWorld:
    made = make_live_world(applied)
    refresh_users(applied, made.user_ids, now=made.world.now)
    return made


@pytest.fixture
def live(world: LiveWorld) -> Iterator[Live]:
    with leadre.load(settings=world.settings) as opened:
        yield opened
