"""New ads join the live index while it serves: the model stays, a batch under way ends as it began."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from leadre.domain.ads import Ad
from leadre.pipelines import refresh
from leadre.pipelines.index.build import add_new_ads, build_index
from leadre.pipelines.refresh import LiveRetriever
from leadre.recipe import IndexRecipe
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.retrieval.retriever import LIVE_ADS_AGE
from leadre.store.features.client import FeatureClient
from leadre.store.records import catalog
from leadre.store.records.database import connect, transaction
from leadre.store.release import records as releases

pytestmark = pytest.mark.slow

RECIPE = IndexRecipe(encoder="hashed", quantiser="residual_kmeans", levels=2, codes=8, width=6)
NEW_IDS = (7001, 7002, 7003)


class Counted:
    """An engine that counts loads and moves, and calls `during` in the middle of a batch."""

    loads = moves = 0
    during = staticmethod(lambda: None)

    def __init__(self, engine) -> None:
        self._engine = engine

    def over(self, index) -> Counted:
        Counted.moves += 1
        return Counted(self._engine.over(index))

    def generate(self, *arguments, **named):
        during, Counted.during = Counted.during, staticmethod(lambda: None)
        during()
        return self._engine.generate(*arguments, **named)


@pytest.fixture
def database(settings) -> Iterator[Engine]:
    made = connect(settings.database_url)
    yield made
    made.dispose()


@pytest.fixture
def growing(system, database: Engine):
    """The system with an index that can grow and a release of it, "g1", live."""
    index = build_index(
        database_url=system.settings.database_url,
        indexes=system.settings.indexes,
        recipe=RECIPE,
        now=datetime.now(UTC),
    )
    made = replace(system, index=index)
    with transaction(database) as connection:
        made.add_release(connection, "g1")
        releases.promote(connection, "g1")
    return made


@pytest.fixture
def live(growing, database: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveRetriever]:
    load_engine = refresh.engine_of_release

    def load(*arguments, **named) -> Counted:
        Counted.loads += 1
        return Counted(load_engine(*arguments, **named))

    Counted.loads = Counted.moves = 0
    monkeypatch.setattr(refresh, "engine_of_release", load)
    features = FeatureClient(growing.settings.feature_repo, growing.settings.feast_environment())
    yield LiveRetriever(growing.settings, database=database, features=features)
    features.close()


def import_new_ads(system, database: Engine) -> None:
    old = system.world.ads[:3]
    with transaction(database) as connection:
        catalog.upsert_ads(connection, [renamed(ad, ad_id) for ad, ad_id in zip(old, NEW_IDS, strict=True)])


def renamed(ad: Ad, ad_id: int) -> Ad:
    return replace(ad, ad_id=ad_id, source_id=str(ad_id), name=f"brand new {ad.name}")


def pause_old_ads(database: Engine) -> None:
    with transaction(database) as connection:
        connection.execute(text("UPDATE ads SET live = ad_id >= 7000"))


def add(system):
    return add_new_ads(
        database_url=system.settings.database_url,
        indexes=system.settings.indexes,
        version=system.index.version,
        now=datetime.now(UTC),
    )


def test_new_ads_join_without_loading_the_model_and_a_batch_under_way_is_not_touched(
    growing, live: LiveRetriever, database: Engine
) -> None:
    now = datetime.now(UTC)
    users = [profile.user_id for profile in growing.world.profiles[:4]]
    before = live.refresh(users, now=now)
    first = live.current()
    assert live.current() is first

    def in_the_middle() -> None:
        import_new_ads(growing, database)
        pause_old_ads(database)
        assert add(growing).ads == 3

    Counted.during = staticmethod(in_the_middle)
    under_way = live.refresh(users, now=now + LIVE_ADS_AGE)
    assert [one.beams for one in under_way] == [one.beams for one in before]

    after = live.refresh(users, now=now + LIVE_ADS_AGE)
    assert {beam.ad_id for one in after for beam in one.beams} == set(NEW_IDS)
    assert {len(one.beams) for one in after} == {3}
    assert (Counted.loads, Counted.moves) == (1, 1)
    assert live.current().encoder is first.encoder
    assert (first.index.revision, live.current().index.revision) == (0, 1)  # the old one is whole for who has it

    with transaction(database) as connection:
        growing.add_release(connection, "g2")
        releases.promote(connection, "g2")
    assert live.current().release == "g2"
    assert (Counted.loads, Counted.moves) == (2, 1)


def test_an_ad_that_is_removed_is_never_generated_after_the_swap(
    growing, live: LiveRetriever, database: Engine
) -> None:
    now = datetime.now(UTC)
    users = [profile.user_id for profile in growing.world.profiles[:3]]
    gone, paused = live.refresh(users, now=now)[0].beams[0].ad_id, live.refresh(users, now=now)[0].beams[1].ad_id
    import_new_ads(growing, database)
    with transaction(database) as connection:
        connection.execute(text("DELETE FROM ads WHERE ad_id = :gone"), {"gone": gone})
        catalog.set_live(connection, [paused], live=False)
    add(growing)
    lists = live.refresh(users, now=now)  # within the age of what was read before: the swap reads anew
    assert live.current().index.revision == 1
    assert not {gone, paused} & {beam.ad_id for one in lists for beam in one.beams}
    assert {len(one.beams) for one in lists} == {growing.settings.beam_width}


def test_a_running_worker_indexes_an_imported_ad_and_retrieves_it(
    growing, start, database: Engine, tmp_path: Path
) -> None:
    queue = RefreshQueue.connect(growing.settings.redis_url)
    features = FeatureClient(growing.settings.feature_repo, growing.settings.feast_environment())
    user = growing.world.profiles[0].user_id
    worker = ("worker", "--pool=threads", "-c", "1", "-Q", "retrieval,indexing", "-l", "INFO", "--without-gossip")
    queue.mark([user])
    start("workers.app", *worker, "--without-mingle", "--without-heartbeat")

    def ads_of_the_list() -> set[int]:
        found = features.retrieval_lists([user])[0]
        return set() if found is None else set(found.ad_ids)

    wait_until(lambda: len(ads_of_the_list()) == growing.settings.beam_width, tmp_path)
    import_new_ads(growing, database)
    pause_old_ads(database)
    start("workers.app", "call", "workers.indexing.index_new_ads").wait(60)  # what beat does every 20 s

    def marked_user_has_new_ads() -> bool:
        queue.mark([user])
        time.sleep(0.2)
        return ads_of_the_list() == set(NEW_IDS)

    wait_until(marked_user_has_new_ads, tmp_path)
    features.close()
    log = (tmp_path / "process-0.log").read_text()
    assert log.count('"event": "release_loaded"') == 1
    assert log.count('"event": "index_swapped"') == 1
    assert '"event": "ads_indexed"' in log


def wait_until(reached, logs: Path) -> None:
    end = time.monotonic() + 120
    while not reached():
        if time.monotonic() > end:
            pytest.fail("\n".join(path.read_text()[-3000:] for path in sorted(logs.glob("process-*.log"))))
        time.sleep(0.05)


def test_while_a_revision_is_made_ready_batches_go_on_with_the_one_before(
    growing, live: LiveRetriever, database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, make_ready = threading.Event(), refresh._make_ready

    def slowly(*arguments, **named):
        go.wait(60)
        return make_ready(*arguments, **named)

    monkeypatch.setattr(refresh, "_make_ready", slowly)
    monkeypatch.setattr(refresh, "PATIENCE_S", 0.01)
    first = live.current()
    import_new_ads(growing, database)
    add(growing)
    assert live.current() is first
    assert live.current() is first
    go.set()
    monkeypatch.setattr(refresh, "PATIENCE_S", 60)
    assert live.current().index.revision == 1
    assert Counted.loads == 1
