"""The Mixer as a server: `GET /v1/users/{user_id}/candidates`. LEADRE §4.4.1."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import TYPE_CHECKING, Any

import msgspec

from leadre.retrieval.cheap_lane import Visits
from leadre.serving.ad_catalog import AdCatalog
from leadre.serving.http.application import Application, Background, Guard
from leadre.serving.http.limits import MAX_LIMIT, limit_in, user_in
from leadre.serving.http.messages import Answer, Request, json_answer
from leadre.serving.http.operations import serving
from leadre.serving.http.routes import Route
from leadre.serving.mixer.branches import FixedBranch, StoredBranch, VisitsBranch
from leadre.serving.mixer.kept import Kept
from leadre.serving.mixer.mix import Mixer
from leadre.serving.mixer.plugins import Maker, Tools, branches
from leadre.serving.online_lists import OnlineLists, online_connection, project_of
from leadre.serving.redis.connection import RedisConnection
from leadre.serving.redis.wire import address_of
from leadre.serving.user_server import LIMIT
from leadre.store.features.layout import around_id, field
from leadre.store.records.database import connect, transaction
from leadre.store.records.distribution.histories import ad_histories
from leadre.store.records.request_path import popular_ads

if TYPE_CHECKING:
    from leadre.settings import Settings

COUNTED = 200_000
"""Newest clicks that the co-visitation branch counts, in less than a second (ours)."""
_ID = Struct("<q")


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An ad of the merged list, every branch that retrieved it, and what found it.

    `source` is `llm`, `covisitation` or `popular` for the branches that are built in, by the first of `branches`.
    """

    ad_id: int | str
    branches: Sequence[str]
    source: str


class Candidates(msgspec.Struct, frozen=True, kw_only=True):
    """A user's merged list, best first, and the branches that are missing from it."""

    user_id: int | str
    ads: Sequence[Candidate]
    degraded: bool
    failed_branches: Sequence[str]


def create_app(
    settings: Settings, *, guard: Guard | None = None, measuring: bool = True, operations_apart: bool = False
) -> Application:
    """Return the application with the branches that the settings name.

    Args, and what is raised: as `leadre.serving.user_server.create_app`; and ConfigError for a branch not known.
    """
    catalog = AdCatalog.over(settings.database_url)
    redis = RedisConnection(address_of(settings.redis_url))
    tools = Tools(settings=settings, redis=redis, background=[redis.keep, catalog.keep])
    mixer = Mixer(
        branches(settings.branches, built_in=BUILT_IN, tools=tools),
        shown=lambda ads: catalog.shown(ads, now_s=time.time()),
    )
    return application(
        mixer, background=tools.background, guard=guard, measuring=measuring, operations_apart=operations_apart
    )


def application(
    mixer: Mixer,
    *,
    background: Sequence[Background] = (),
    guard: Guard | None = None,
    measuring: bool = True,
    operations_apart: bool = False,
) -> Application:
    """Serve a mixer: `GET /v1/users/{user_id}/candidates?limit=`. See `create_app`."""

    async def candidates(request: Request) -> Answer:
        (user_id, source_id), limit = user_in(request.parameters["user_id"]), limit_in(request.asked("limit"))
        mix = await mixer.mix(user_id, limit=limit)
        ads = [
            Candidate(ad_id=name, branches=ad.branches, source=source)
            for name, ad, source in zip(mix.source_ids, mix.ads, mix.sources, strict=True)
        ]
        return json_answer(Candidates(user_id=source_id, ads=ads, degraded=mix.degraded, failed_branches=mix.failed))

    routes = [
        Route(
            method="GET",
            path="/v1/users/{user_id}/candidates",
            handler=candidates,
            does="Read a user's merged list.",
            queries=[LIMIT],
            gives={200: Candidates},
        )
    ]
    return serving(
        "mixer",
        routes,
        counters=mixer.counters,
        collectors=[mixer.collect],
        background=background,
        guard=guard,
        measuring=measuring,
        operations_apart=operations_apart,
    )


def _leadre(tools: Tools) -> StoredBranch:
    online, (_, *keeping) = online_connection(tools.redis, cluster=tools.settings.redis_cluster)
    tools.background.extend(keeping)
    lists = OnlineLists(online, project=project_of(tools.settings.feature_repo))
    return StoredBranch(name="leadre", ask=lists.ask, ttl_s=tools.settings.list_ttl_s)


def _popular(tools: Tools) -> FixedBranch:
    database = connect(tools.settings.database_url, application_name="leadre popular", statement_timeout_s=60)

    def load() -> list[int]:
        with transaction(database) as connection:
            return popular_ads(connection, now=datetime.now(UTC), days=7, limit=MAX_LIMIT)

    popular = Kept(load, what="the popular ads", every_s=300)
    tools.background.append(popular.keep)
    return FixedBranch(name="popular", ads=popular)


def _covisitation(tools: Tools) -> VisitsBranch:
    database = connect(tools.settings.database_url, application_name="leadre visits", statement_timeout_s=60)

    def load() -> Visits:
        now = datetime.now(UTC)
        since = now - timedelta(days=tools.settings.visits_days)
        with transaction(database) as connection:
            return Visits.count(ad_histories(connection, since=since, until=now, most=COUNTED))

    visits = Kept(load, what="which ads follow which", every_s=tools.settings.visits_every_s)
    tools.background.append(visits.keep)
    head, tail = around_id("user_id", project_of(tools.settings.feature_repo))
    name = field("ad_behavior_sequence", "ad_item_ids")

    def read(user_id: int) -> asyncio.Future[Any]:
        return tools.redis.call("HGET", head + _ID.pack(user_id) + tail, name)

    return VisitsBranch(name="covisitation", visits=visits, read=read)


BUILT_IN: dict[str, Maker] = {"leadre": _leadre, "covisitation": _covisitation, "popular": _popular}
"""The branches that need no package."""
