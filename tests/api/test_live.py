"""`leadre.load`: what a notebook gets is what the worker, the commands and the feature store give."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

import leadre
from leadre.api import Live
from leadre.cli import cli
from leadre.errors import ConfigError, InvalidInput, UnknownAd
from leadre.explain import ListExplanation, Why
from leadre.store.records.database import connect, transaction
from leadre.store.records.tables import retrieval_log
from tests.live_world import LiveWorld, add_release


def test_it_retrieves_what_the_worker_stored_and_stores_nothing(live: Live, world: LiveWorld) -> None:
    now, users = world.world.now, world.user_ids
    stored = live._features.retrieval_lists(users)
    before = rows_of_the_log(world)
    found = live.retrieve(users, now=now)
    for one, row in zip(found, stored, strict=True):
        assert row is not None
        assert [ad.ad.ad for ad in one.ads] == list(row.ad_ids)
    assert rows_of_the_log(world) == before
    assert list(found[0].to_frame()["rank"]) == list(range(1, 21))


def rows_of_the_log(world: LiveWorld) -> int:
    database = connect(world.settings.database_url)
    with transaction(database) as connection:
        rows = len(connection.execute(retrieval_log.select()).all())
    database.dispose()
    return rows


def test_a_context_made_by_hand_is_answered_like_a_users(live: Live, world: LiveWorld) -> None:
    now = world.world.now
    context = live.context(3, now=now)
    by_name, by_hand = live.retrieve([3, context], now=now, beam_width=5)
    assert by_hand == by_name
    forgot = replace(context, behaviors=())
    assert live.retrieve(forgot, now=now, beam_width=5)[0].ads != by_name.ads
    assert live.prompt(forgot, now=now).text() != live.prompt(3, now=now).text()


def test_it_explains_a_list_and_an_ad(live: Live, world: LiveWorld) -> None:
    now = world.world.now
    (found,) = live.retrieve(4, now=now, beam_width=6)
    told = live.explain(4, now=now, beam_width=6)
    assert isinstance(told, ListExplanation)
    assert [one.ad for one in told.retrieved] == [one.ad for one in found.ads]
    reason = live.explain(4, found.ads[2].ad.ad, now=now, beam_width=6)
    assert isinstance(reason, Why)
    assert reason.rank == 3


def test_features_are_those_of_the_feature_store(live: Live, world: LiveWorld) -> None:
    now = world.world.now
    listed = [one.ad.ad for one in live.retrieve(2, now=now)[0].ads]
    other = next(ad.ad_id for ad in world.world.ads if ad.ad_id not in listed)
    frame = live.features(2, [listed[3], other], now=now)
    assert frame["ad_id"].tolist() == [listed[3], other]
    assert frame["hit"].tolist() == [1, 0]
    assert frame["rank"].tolist() == [4, 0]
    assert frame["prefix_mass_1"][0] > 0
    assert frame["max_cosine"][0] == pytest.approx(1, abs=1e-2)
    assert np.isfinite(frame["probability"].to_numpy()).all()


def test_catalog_look_ups(live: Live, world: LiveWorld) -> None:
    ad = world.world.ads[5]
    assert live.ads[ad.source_id].name == ad.name
    assert live.ads.sid(ad.source_id) == world.index.sid(ad.ad_id)
    assert (len(live.ads), len(live.users)) == (96, 12)
    assert live.users[7].user_id == 7
    assert len(live.users.recent(3, now=world.world.now)) == 3
    with pytest.raises(UnknownAd, match="'nothing' is not in the catalog"):
        live.ads["nothing"]
    with pytest.raises(InvalidInput, match="'nobody' is not in the catalog"):
        live.users["nobody"]
    for ask in (live.retrieve, live.explain, live.context):
        with pytest.raises(InvalidInput, match="'nobody' is not in the catalog"):
            ask("nobody")


def test_the_command_decodes_what_the_api_retrieves(
    live: Live, world: LiveWorld, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        if name.startswith("LEADRE_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("LEADRE_DATABASE_URL", world.settings.database_url)
    now = world.world.now
    done = CliRunner().invoke(cli, ["decode", "3", "5", "--beam-width", "4", "--now", now.isoformat(), "--json"])
    assert done.exit_code == 0, done.output
    expected = live.retrieve([3, 5], now=now, beam_width=4)
    assert [(of["user"], [ad["ad"] for ad in of["ads"]]) for of in json.loads(done.stdout)] == [
        (one.user, [ad.ad.ad for ad in one.ads]) for one in expected
    ]


def test_a_release_is_taken_by_name_and_stays_the_same(world: LiveWorld) -> None:
    database = connect(world.settings.database_url)
    with transaction(database) as connection:
        add_release(connection, world.settings, world=world.world, index=world.index, name="r2", seed=6)
    database.dispose()
    now = world.world.now
    with leadre.load(settings=world.settings) as one, leadre.load("r2", settings=world.settings) as two:
        assert (one.release, two.release) == ("r1", "r2")
        assert one.retrieve(1, now=now)[0].ads != two.retrieve(1, now=now)[0].ads
    with pytest.raises(ConfigError, match="no release 'r1x'; did you mean 'r1'"):
        leadre.load("r1x", settings=world.settings)


def test_an_engine_without_steps_retrieves_and_says_what_explains(world: LiveWorld) -> None:
    with leadre.load(settings=world.settings, engine="stub") as live:
        assert live.retrieve(1, now=world.world.now)[0].ads
        with pytest.raises(ConfigError, match=r"StubEngine does not tell the steps .* LEADRE_ENGINE=auto"):
            live.explain(1, now=world.world.now)
