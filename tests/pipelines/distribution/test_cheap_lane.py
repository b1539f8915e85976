"""The cheap lane on real servers: a list at once, stored and fenced, over the newest revision of the index."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from sqlalchemy import Engine

from leadre.domain.ads import Ad
from leadre.domain.behavior import Action, Behavior, Domain
from leadre.errors import ConfigError
from leadre.indexing.ad_index import AdIndex
from leadre.pipelines.distribution.cheap_lane import CheapLane
from leadre.settings import Settings
from leadre.store.features.client import FeatureClient
from leadre.store.records import catalog, events
from leadre.store.records.database import connect, transaction
from leadre.store.release.records import promote, record_index, record_release

NOW = datetime.now(UTC).replace(microsecond=0)
USERS, ADS = 40, 12


@pytest.fixture
def database(applied: Settings) -> Iterator[Engine]:
    """Twelve ads, and forty users who clicked three ads in a row, number n from ad n on."""
    engine = connect(applied.database_url)
    with transaction(engine) as connection:
        catalog.upsert_ads(connection, [ad(number) for number in range(ADS)])
        clicks = [
            Behavior(
                user_id=user,
                domain=Domain.AD,
                action=Action.CLICK,
                item_id=(user + step) % ADS,
                occurred_at=NOW - timedelta(hours=4 - step),
            )
            for user in range(USERS)
            for step in range(3)
        ]
        events.append_behaviors(connection, clicks, arrived_at=NOW)
    yield engine
    engine.dispose()


@pytest.fixture
def features(applied: Settings) -> Iterator[FeatureClient]:
    client = FeatureClient(applied.feature_repo, applied.feast_environment())
    yield client
    client.close()


def ad(number: int) -> Ad:
    return Ad(
        ad_id=number,
        source_id=str(number),
        name=f"ad {number}",
        ad_type="",
        first_category="",
        second_category="",
        attributes=(),
        advertiser_id=1,
        bid=1.0,
        created_at=NOW - timedelta(days=1),
    )


def index_of(count: int, *, revision: int) -> AdIndex:
    number = np.arange(count)
    return AdIndex.assemble(
        version="i",
        revision=revision,
        ad_ids=number.astype(np.int64),
        codes=np.stack([number % 4, number // 4], axis=1).astype(np.int32),
        first_categories=[""] * count,
        second_categories=[""] * count,
        advertiser_ids=np.ones(count, np.int64),
        embeddings=np.ones((count, 2), np.float32),
        code_counts=(4, 4),
        quality={},
    )


def publish(settings: Settings, index: AdIndex) -> None:
    folder = settings.home / f"revision-{index.revision}"
    index.save(folder)
    settings.indexes.mkdir(parents=True, exist_ok=True)
    link = settings.indexes / index.version
    link.unlink(missing_ok=True)
    link.symlink_to(folder)


def promoted(database: Engine, release: str) -> None:
    with transaction(database) as connection:
        record_release(connection, release, index_version="i", uri="", recipe={}, metrics={})
        promote(connection, release)


def test_users_get_lists_of_the_live_release_without_its_model(
    applied: Settings, database: Engine, features: FeatureClient
) -> None:
    narrow = replace(applied, beam_width=4, visits_every_s=0.0)
    lane = CheapLane(narrow, database=database, features=features)
    with pytest.raises(ConfigError, match="no release is live"):
        lane.refresh([1], now=NOW)
    with transaction(database) as connection:
        record_index(connection, "i", uri="i", recipe={}, quality={})
    publish(applied, index_of(8, revision=0))
    promoted(database, "first")
    assert lane.refresh([], now=NOW) == []

    one, unknown = lane.refresh([1, 10**9], now=NOW)
    assert one.beams[0].ad_id in {4, 5}  # what others clicked after 1, 2 and 3
    assert (one.source, one.release, one.behavior_sequence) == ("covisitation", "first", 3)
    assert (unknown.source, unknown.behavior_sequence, len(unknown.beams)) == ("popular", 0, 4)
    stored = features.retrieval_lists([1])[0]
    assert stored is not None
    assert (stored.source, stored.behavior_sequence) == ("covisitation", 3)
    assert stored.ad_ids == tuple(beam.ad_id for beam in one.beams)
    with transaction(database) as connection:
        assert 1 not in [user.user_id for user in events.stale_page(connection, now=NOW, limit=100)]
        catalog.set_live(connection, list(range(6)), live=False)
    publish(applied, index_of(ADS, revision=1))
    promoted(database, "second")

    (later,) = lane.refresh([1], now=NOW + timedelta(minutes=1))
    assert (later.release, later.release_epoch > one.release_epoch) == ("second", True)
    assert {beam.ad_id for beam in later.beams} & set(range(8, ADS))  # in the new revision alone
    assert not {beam.ad_id for beam in later.beams} & set(range(6))  # paused meanwhile
