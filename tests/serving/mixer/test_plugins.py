from __future__ import annotations

import asyncio
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from leadre.errors import ConfigError
from leadre.serving.mixer import plugins
from leadre.serving.mixer.branches import Branch, FixedBranch
from leadre.serving.mixer.plugins import Tools, branches, named_in
from leadre.serving.redis.connection import RedisConnection
from leadre.serving.redis.wire import address_of
from leadre.settings import Settings


@pytest.fixture
def tools(tmp_path) -> Tools:
    settings = Settings(home=tmp_path, database_url="", redis_url="", feature_repo=tmp_path)
    return Tools(settings=settings, redis=RedisConnection(address_of("redis://localhost:1/0")), background=[])


def always_seven(tools: Tools) -> Branch:
    """A branch as a package would bring it."""
    return FixedBranch(name="seven", ads=lambda: [7])


def test_branches_are_named_with_their_ads_a_round() -> None:
    assert named_in("leadre:2, covisitation:1,seven") == [("leadre", 2), ("covisitation", 1), ("seven", 1)]
    for wrong in ("", "leadre:0", "leadre,leadre:2", "leadre;popular", "leadre:x"):
        with pytest.raises(ConfigError, match="LEADRE_BRANCHES"):
            named_in(wrong)


def test_a_package_brings_a_branch_by_its_entry_point(monkeypatch: pytest.MonkeyPatch, tools: Tools) -> None:
    point = EntryPoint(name="seven", value=f"{__name__}:always_seven", group=plugins.GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda _: always_seven)
    monkeypatch.setattr(plugins, "entry_points", lambda group: EntryPoints([point] if group == plugins.GROUP else []))
    built_in = {"popular": lambda _: FixedBranch(name="popular", ads=lambda: [1])}
    made = branches("seven:3,popular", built_in=built_in, tools=tools)
    assert [(branch.name, quota) for branch, quota in made] == [("seven", 3), ("popular", 1)]
    assert asyncio.run(made[0][0].retrieve(5, 1)).ads == [7]
    with pytest.raises(ConfigError, match="names 'eight'; there are popular, seven"):
        branches("eight", built_in=built_in, tools=tools)
