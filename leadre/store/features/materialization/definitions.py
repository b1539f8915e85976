"""What Feast's registry says of materialization: which views there are, and up to when each is in the online store.

LEADRE §4.4.1. `feast materialize-incremental` goes on from what is registered here.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from feast import FeatureStore, FeatureView
from feast.feature_view import FeatureViewState
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.infra.online_stores.redis import RedisOnlineStoreConfig

from leadre.errors import ConfigError
from leadre.names import not_there
from leadre.store.features.layout import FEATURE, VIEW
from leadre.store.features.materialization.view import View
from leadre.store.features.online_store import key_ttl_s, updated_in_place
from leadre.store.features.retrieval_log import FENCE

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
SKEW = timedelta(minutes=1)
"""How far the clocks of two workers may differ (ours)."""


def find_views(store: FeatureStore, names: Collection[str] = ()) -> list[View]:
    """Return the views that are served online, by name.

    Args:
        store: an applied feature store.
        names: only these; all, if none is given.

    Raises:
        ConfigError: an unknown name, an online store that is not Redis, or a feature of a type that is not supported.
    """
    if not isinstance(store.config.online_store, RedisOnlineStoreConfig):
        raise ConfigError(
            f"the online store is of type {store.config.online_store.type!r}; leadre materializes to Redis only: "
            "use `feast materialize-incremental`"
        )
    known = {view.name: view for view in _registered(store) if view.online}
    if unknown := sorted(set(names) - set(known)):
        raise not_there("online view", unknown[0], known)
    return [_view(store, known[name]) for name in sorted(names or known)]


def cut_future(store: FeatureStore, *, now: datetime) -> list[str]:
    """Cut intervals of materializations that end well after `now` back to it, and say so: one line a view.

    Such an end comes from a clock or a zone gone wrong, and would keep `feast materialize-incremental` from taking
    anything until that time, without a word.
    """
    said = []
    for view in _registered(store):
        ends = max((end for _, end in view.materialization_intervals), default=now)
        if ends > now + SKEW:
            _set_interval(store, view, until=now)
            said.append(f"{view.name}: an earlier materialization claimed the time up to {ends.isoformat()}; cut back")
    return said


def register(store: FeatureStore, names: Collection[str], *, until: datetime) -> None:
    """Note that views are in the online store up to an instant."""
    for view in _registered(store):
        if view.name in names:
            _set_interval(store, view, until=until)


def _registered(store: FeatureStore) -> list[FeatureView]:
    found: list[FeatureView] = store.registry.list_feature_views(store.project, allow_cache=False)
    return sorted(found, key=lambda view: str(view.name))


def _set_interval(store: FeatureStore, view: FeatureView, *, until: datetime) -> None:
    # One interval for all: a list that grows by one with every run would be read with every look at the registry.
    start = min((start for start, _ in view.materialization_intervals), default=BEGINNING)
    view.materialization_intervals = [(min(start, until), until)]
    view.state = FeatureViewState.AVAILABLE_ONLINE
    store.registry.apply_feature_view(view, store.project)


def _view(store: FeatureStore, view: FeatureView) -> View:
    source = view.batch_source
    assert source is not None  # noqa: S101 - Feast applies no view without one
    return View(
        name=compute_versioned_name(view, store.config.registry.enable_online_feature_view_versioning),
        project=store.project,
        source=source.get_table_query_string(),
        join_key=view.join_keys[0],
        event_at=source.timestamp_field,
        created_at=source.created_timestamp_column or None,
        features=tuple((field.name, str(field.dtype)) for field in view.features),
        fence=FENCE.format(record=f'"{FEATURE}"') if view.name == VIEW else None,
        in_place=updated_in_place(view),
        ttl_s=key_ttl_s(store.config.online_store, view.join_keys),
    )
