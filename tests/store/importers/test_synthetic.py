from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, func, select

from leadre.pipelines.summarize import summarize
from leadre.store.importers.load import ImportCounts
from leadre.store.importers.synthetic import import_world
from leadre.store.records.catalog import profiles, read_ads
from leadre.store.records.events import read_sequences
from leadre.store.records.tables import impressions, users
from leadre.synthetic import make_world


def test_a_world_comes_back_and_again_changes_nothing(database_url: str, connection: Connection) -> None:
    world = make_world(ads=97, users=11, sessions=3)
    counts = ImportCounts(
        ads=97,
        users=11,
        content_items=len(world.content_items),
        behaviors=len(world.behaviors),
        impressions=len(world.impressions),
    )
    for _ in range(2):
        assert import_world(world, database_url=database_url) == counts
    assert read_ads(connection) == sorted(world.ads, key=lambda ad: ad.ad_id)
    ids = [profile.user_id for profile in world.profiles]
    assert profiles(connection, ids) == {profile.user_id: profile for profile in world.profiles}
    assert len(read_sequences(connection, which="all").item_ids) == len(set(world.behaviors))
    assert connection.scalar(select(func.count()).select_from(impressions)) == len(set(world.impressions))
    first: datetime = connection.scalars(select(users.c.event_at).distinct()).one()
    assert first <= min(behavior.occurred_at for behavior in world.behaviors)
    assert summarize(database_url, now=world.now).interest_summaries == 11
