"""From the catalog to the lists that users get: what may not be shown is not generated, and nothing is rebuilt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from leadre.domain.targeting import Targeting
from leadre.pipelines.refresh import LiveRetriever
from leadre.retrieval.retriever import LIVE_ADS_AGE
from leadre.store.features.client import FeatureClient
from leadre.store.records import catalog
from leadre.store.records.database import connect, transaction

pytestmark = pytest.mark.slow


@pytest.fixture
def database(system) -> Iterator[Engine]:
    engine = connect(system.settings.database_url)
    yield engine
    engine.dispose()


def test_lists_obey_pauses_budgets_schedules_and_targeting(system, database: Engine) -> None:
    features = FeatureClient(system.settings.feature_repo, system.settings.feast_environment())
    live = LiveRetriever(
        replace(system.settings, beam_width=len(system.world.ads)), database=database, features=features
    )
    first, second = (profile.user_id for profile in system.world.profiles[:2])
    now = datetime.now(UTC)

    def retrieved(step: float) -> tuple[set[int], set[int]]:
        lists = live.refresh([first, second], now=now + step * LIVE_ADS_AGE)
        mine, theirs = ({beam.ad_id for beam in found.beams} for found in lists)
        return mine, theirs

    everything, same = retrieved(0)
    assert everything == same == {ad.ad_id for ad in system.world.ads}
    paused, exhausted, ended, later, targeted = sorted(everything)[:5]
    start = now + 5 * LIVE_ADS_AGE - timedelta(seconds=1)
    (ad,) = (ad for ad in system.world.ads if ad.ad_id == targeted)
    with transaction(database) as connection:
        catalog.set_live(connection, [paused], live=False)
        catalog.set_budget_exhausted(connection, [exhausted], exhausted=True)
        catalog.set_schedule(connection, [ended], starts_at=None, ends_at=now)
        catalog.set_schedule(connection, [later], starts_at=start, ends_at=None)
        catalog.upsert_ads(connection, [replace(ad, targeting=Targeting.of({"device": ["ios"]}))])
        mine = replace(system.world.profiles[0], device="iOS")
        catalog.upsert_users(connection, [mine], event_at=now)

    off = {paused, exhausted, ended, later}
    assert retrieved(1) == (everything - off, everything - off - {targeted})
    retriever = live.current()
    # The start passes between two reads of the catalog, and is obeyed at once.
    assert retrieved(4) == (everything - off, everything - off - {targeted})
    off -= {later}
    assert retrieved(4.95) == (everything - off, everything - off - {targeted})

    with transaction(database) as connection:
        catalog.set_live(connection, [paused], live=True)
        catalog.set_budget_exhausted(connection, [exhausted], exhausted=False)
        catalog.set_schedule(connection, [ended], starts_at=None, ends_at=None)
    assert retrieved(6) == (everything, everything - {targeted})
    assert live.current() is retriever
    features.close()
