"""The User Server: gives out stored retrieval lists, and takes in behaviors. It never runs the LLM.

LEADRE §4.4.1, the latency-sensitive module: list_desk.py and behavior_desk.py do the work, this joins them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client.core import Metric
from redis import Redis

from leadre.domain.behavior import Behavior
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.serving.ad_catalog import AdCatalog
from leadre.serving.behavior_desk import BehaviorDesk
from leadre.serving.behavior_stream import MAX_ENTRIES
from leadre.serving.contracts import Accepted, ManyLists, UserAds, UsersWanted
from leadre.serving.http.application import Application, Background, Guard
from leadre.serving.http.limits import DEFAULT_LIMIT, MAX_LIMIT
from leadre.serving.http.messages import Problem
from leadre.serving.http.operations import serving
from leadre.serving.http.routes import Query, Route
from leadre.serving.list_desk import ListDesk
from leadre.serving.metrics import published
from leadre.serving.online_lists import OnlineLists, online_connection, project_of
from leadre.serving.redis.connection import RedisConnection
from leadre.serving.redis.wire import address_of
from leadre.serving.reported import NewBehaviors
from leadre.store.records.database import connect
from leadre.store.records.request_path import Arrivals, store_now

if TYPE_CHECKING:
    from leadre.settings import Settings

LIMIT = Query(
    name="limit",
    schema={"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    means="ads at most",
)
WAIT = Query(name="wait", schema={"type": "string", "enum": ["stored"]}, means="answer once PostgreSQL has them")


def create_app(
    settings: Settings, *, guard: Guard | None = None, measuring: bool = True, operations_apart: bool = False
) -> Application:
    """Return the application over the online store, the stream of behaviors and PostgreSQL.

    Args:
        settings: where they are.
        guard: asked before every request, but for those of who watches the process.
        measuring: whether requests are counted and timed.
        operations_apart: whether `/metrics` is on the port of operations alone.

    Raises:
        ConfigError: a URL is not one that can be used, or the feature repository names no project.
    """
    database = connect(
        settings.database_url, application_name="leadre user-server", statement_timeout_s=2, lock_timeout_s=1
    )
    queue = RefreshQueue.connect(settings.redis_url, timeout_s=0.5)

    def store(behaviors: Sequence[Behavior], arrived_at: datetime) -> Arrivals:
        return store_now(database, behaviors, arrived_at=arrived_at)

    def mark(arrivals: Arrivals) -> None:
        if arrivals.stale:
            queue.mark([user.user_id for user in arrivals.stale], groups=[user.group for user in arrivals.stale])

    connection = RedisConnection(address_of(settings.redis_url))
    online, keeping = online_connection(connection, cluster=settings.redis_cluster)
    catalog = AdCatalog.over(settings.database_url)
    lists = ListDesk(
        ask=OnlineLists(online, project=project_of(settings.feature_repo)).ask,
        catalog=catalog,
        list_ttl_s=settings.list_ttl_s,
    )
    desk = BehaviorDesk(redis=connection, store=store, mark=mark, max_entries=MAX_ENTRIES, counters=lists.counters)
    gauges_from = Redis.from_url(settings.redis_url, socket_timeout=0.5, socket_connect_timeout=0.5)
    return application(
        lists,
        desk,
        background=[*keeping, catalog.keep],
        gauges=partial(published, gauges_from),
        guard=guard,
        measuring=measuring,
        operations_apart=operations_apart,
    )


def application(
    lists: ListDesk,
    desk: BehaviorDesk,
    *,
    background: Sequence[Background] = (),
    gauges: Callable[[], Iterable[Metric]] = tuple,
    guard: Guard | None = None,
    measuring: bool = True,
    operations_apart: bool = False,
) -> Application:
    """Serve lists and take in behaviors. See `create_app` and `leadre.serving.http.operations.serving`."""
    routes = [
        Route(
            method="GET",
            path="/v1/users/{user_id}/ads",
            handler=lists.ads,
            does="Read a user's list.",
            queries=[LIMIT],
            gives={200: UserAds},
        ),
        Route(
            method="POST",
            path="/v1/users/{user_id}/behaviors",
            handler=desk.report,
            does="Report what a user did.",
            queries=[WAIT],
            takes=NewBehaviors,
            gives={202: Accepted, 503: Problem},
        ),
        Route(
            method="POST",
            path="/v1/lists",
            handler=lists.lists,
            does="Read many users' lists.",
            takes=UsersWanted,
            gives={200: ManyLists},
            max_body_bytes=512 * 1024,  # 500 ids of 256 characters, percent and more
        ),
    ]
    return serving(
        "user-server",
        routes,
        counters=lists.counters,
        collectors=[lists.collect],
        background=background,
        gauges=gauges,
        ready=lists.ready,
        guard=guard,
        measuring=measuring,
        operations_apart=operations_apart,
    )
