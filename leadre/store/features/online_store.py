"""The online store: Feast's Redis store with atomic writes. LEADRE §4.4.1's user feature database, online.

Feast's own reads the stored times, then writes: two writers can take a row back, and a key is not kept alive by a write
of an equal time. Here a row is set by one script (set_rows.lua). Layout and reading are Feast's: any stock SDK with
`type: redis` reads the values.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from feast import FeatureStore, FeatureView, RepoConfig, utils
from feast.infra.online_stores.helpers import _redis_key, compute_versioned_name
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from leadre.errors import ConfigError
from leadre.store.features.layout import field, timestamp_field, timestamp_value
from leadre.store.features.online_rows import Row, set_rows, set_rows_async

_TYPE = "leadre.store.features.online_store.LeadreRedisOnlineStore"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Data = list[tuple[EntityKey, dict[str, Value], datetime, datetime | None]]
"""What Feast hands over: entity, features by name, event time, creation time."""


class LeadreRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    """As `RedisOnlineStoreConfig`."""

    type: Literal[_TYPE] = _TYPE  # type: ignore[valid-type]

    skip_dedup: Literal[False] = False
    """Not here: the comparison costs no round trip, and without it an older row would replace a newer one."""

    key_ttl_join_keys: tuple[str, ...] = ("user_id",)
    """Entities whose keys expire after `key_ttl_seconds` without a write (ours). Ads are not among them: one that
    nobody changes for months is still shown."""


class LeadreRedisOnlineStore(RedisOnlineStore):
    """Writes a row only over an older one, in one step, and renews the key's time to live either way."""

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: Data, progress: Callable[[int], Any] | None
    ) -> None:
        """Write a batch; of rows with one key and time the first counts, as in Feast, but see `updated_in_place`."""
        store, rows = config.online_store, _rows(config, table, data)
        ttl_s = key_ttl_s(store, table.join_keys)
        set_rows(self._get_client(store), rows, ttl_s=ttl_s, replace_equal=updated_in_place(table))
        if progress:
            progress(len(data))

    async def online_write_batch_async(
        self, config: RepoConfig, table: FeatureView, data: Data, progress: Callable[[int], Any] | None
    ) -> None:
        """As `online_write_batch`."""
        store, rows = config.online_store, _rows(config, table, data)
        client, ttl_s = await self._get_client_async(store), key_ttl_s(store, table.join_keys)
        await set_rows_async(client, rows, ttl_s=ttl_s, replace_equal=updated_in_place(table))
        if progress:
            progress(len(data))


def updated_in_place(table: FeatureView) -> bool:
    """Return whether rows of the view's source are updated without a new event time, as the view's tags say.

    Then the row that was read last counts, of equal times: an ad that was paused is as old as before.
    """
    return table.tags.get("rows") == "updated in place"


def online_client(store: FeatureStore) -> Any:
    """Return the store's own client of Redis, connected when first used.

    Raises:
        ConfigError: feature_store.yaml names another online store.
    """
    online = store._get_provider().online_store
    if not isinstance(online, RedisOnlineStore):
        raise ConfigError(f"the online store is {type(online).__name__}; lists are kept in Redis: type {_TYPE}")
    return online._get_client(store.config.online_store)


def _rows(config: RepoConfig, table: FeatureView, data: Data) -> list[Row]:
    view = compute_versioned_name(table, config.registry.enable_online_feature_view_versioning)
    project, version = config.project, config.entity_key_serialization_version
    rows: list[Row] = []
    for entity, values, event_time, _ in data:
        time_us = (utils.make_tzaware(event_time) - _EPOCH) // timedelta(microseconds=1)
        fields = [timestamp_field(view), timestamp_value(time_us * 1000)]
        for name, value in values.items():
            fields += [field(view, name), value.SerializeToString()]
        rows.append((_redis_key(project, entity, entity_key_serialization_version=version), fields))
    return rows


def key_ttl_s(store: RedisOnlineStoreConfig, join_keys: Collection[str]) -> int:
    """Return the seconds from a write at which keys of an entity expire; 0 where they do not."""
    expiring = getattr(store, "key_ttl_join_keys", join_keys)  # with Feast's own store all do
    return (store.key_ttl_seconds or 0) if set(join_keys) <= set(expiring) else 0
