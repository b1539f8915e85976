"""Import of a synthetic world: what the demo and the tests run on. leadre.synthetic says what it is."""

from __future__ import annotations

from leadre.store.importers.load import ImportCounts, Progress, load
from leadre.synthetic import World


def import_world(world: World, *, database_url: str, progress: Progress | None = None) -> ImportCounts:
    """Write a world, as of its present. Its profiles are true since its first ad or behavior.

    Args:
        world: what to write.
        database_url: the system of record, migrated.
        progress: see `load`.

    Raises:
        InvalidInput: the database holds other data under the world's ids; nothing was written.
        Unavailable: PostgreSQL does not answer.
    """
    times = [ad.created_at for ad in world.ads]
    times += [behavior.occurred_at for behavior in world.behaviors]
    return load(
        database_url,
        ads=world.ads,
        profiles=world.profiles,
        content_items=world.content_items,
        behaviors=world.behaviors,
        impressions=world.impressions,
        profiles_at=min(times, default=world.now),
        arrived_at=world.now,
        progress=progress,
    )
