"""The Mixer: one list out of several retrieval branches, LEADRE's beside the others.

LEADRE §4.4.1, §5.3 (LEADRE is one more retrieval branch; which branches brought an ad is kept for the consumption
ratio). It fails open: a branch that raises or is late is left out, and the answer says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import msgspec

from leadre.errors import InvalidInput, Unavailable
from leadre.serving.ad_catalog import AdCatalog
from leadre.serving.branches import FixedBranch, Kept, StoredBranch
from leadre.serving.http.application import Application, Background, Guard
from leadre.serving.http.limits import MAX_LIMIT, limit_in, user_in
from leadre.serving.http.messages import Answer, Request, json_answer
from leadre.serving.http.operations import serving
from leadre.serving.http.routes import Route
from leadre.serving.online_lists import OnlineLists, project_of
from leadre.serving.redis.connection import RedisConnection
from leadre.serving.redis.wire import address_of
from leadre.serving.user_server import LIMIT
from leadre.store.records.catalog import live_ad_ids
from leadre.store.records.database import connect, transaction
from leadre.store.records.request_path import popular_ads

if TYPE_CHECKING:
    from leadre.settings import Settings

logger = logging.getLogger(__name__)

_SPARE = 2
"""Branches are asked for this many times the limit, because some ads will be dead or come twice (ours)."""


class Branch(Protocol):
    """A way of retrieving ads."""

    @property
    def name(self) -> str:
        """What metrics and answers call it."""
        ...

    async def retrieve(self, user_id: int, k: int) -> Sequence[int]:
        """Return at most `k` ad ids, best first. It may raise anything and may be cancelled."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedAd:
    """An ad and every branch that retrieved it, in the order of the branches."""

    ad_id: int
    branches: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """The merged list, best first.

    Args:
        ads: different live ads.
        source_ids: parallel to `ads`: how the owner names them.
        failed: the branches that are missing from it.
        degraded: whether anything is: a branch, or the catalog that says which ads may be shown.
    """

    ads: tuple[MixedAd, ...] = ()
    source_ids: tuple[int | str, ...] = ()
    failed: tuple[str, ...] = ()
    degraded: bool = False


def merge(
    retrieved: Mapping[str, Sequence[int]],
    *,
    quotas: Mapping[str, int],
    live: Callable[[int], bool],
    limit: int,
) -> tuple[MixedAd, ...]:
    """Merge lists in rounds: in each, every branch in turn gives its next ads, as many as its quota.

    Args:
        retrieved: branch → ad ids, best first; the order of the branches is the order of turns.
        quotas: branch → ads a round, at least 1.
        live: whether an ad may be shown.
        limit: length of the merged list.

    Returns:
        Different live ads. An ad that another branch gave already does not count against a quota.
    """
    brought: dict[int, list[str]] = {}
    for name, ads in retrieved.items():
        for ad in dict.fromkeys(ads):
            brought.setdefault(ad, []).append(name)
    queues = {name: iter(dict.fromkeys(ads)) for name, ads in retrieved.items()}
    merged: dict[int, MixedAd] = {}
    while queues and len(merged) < limit:
        for name in list(queues):
            for _ in range(quotas[name]):
                taken = next((ad for ad in queues[name] if ad not in merged and live(ad)), None)
                if taken is None:
                    del queues[name]
                    break
                merged[taken] = MixedAd(ad_id=taken, branches=tuple(brought[taken]))
    return tuple(merged.values())[:limit]


class Mixer:
    """Asks all branches at once and merges what arrives in time.

    Args:
        branches: in order of turns, with their quotas.
        live_ads: returns the ads that may be shown; asked for each request, so it must answer from memory. It raises
            `Unavailable` while it does not know.
        names: returns how the owner names some ads, None for one that is not known; the same holds.
        deadline_s: seconds that a branch may take.

    Raises:
        InvalidInput: no branch, two of one name, or a quota below 1.
    """

    def __init__(
        self,
        branches: Sequence[tuple[Branch, int]],
        *,
        live_ads: Callable[[], Collection[int]],
        names: Callable[[Sequence[int]], Sequence[int | str | None]],
        deadline_s: float = 0.06,
    ) -> None:
        called = [branch.name for branch, _ in branches]
        if not called or len(set(called)) < len(called) or min(quota for _, quota in branches) < 1:
            raise InvalidInput(f"branches need different names and quotas of at least 1, these are {called}")
        self._branches = [branch for branch, _ in branches]
        self._quotas = {branch.name: quota for branch, quota in branches}
        self._live_ads, self._names, self._deadline_s = live_ads, names, deadline_s
        self.counters: Counter[str] = Counter()

    async def mix(self, user_id: int, *, limit: int) -> Mix:
        """Return the user's merged list; empty in the worst case, never an exception."""
        self.counters["requests"] += 1
        try:
            live = self._live_ads()
            self._names([])
        except Unavailable as error:
            self.counters["failed_catalog"] += 1
            logger.warning("catalog_not_read", extra={"error": type(error).__name__})
            return Mix(degraded=True)
        answers = await asyncio.gather(
            *(
                asyncio.wait_for(branch.retrieve(user_id, _SPARE * limit), self._deadline_s)
                for branch in self._branches
            ),
            return_exceptions=True,
        )
        retrieved: dict[str, Sequence[int]] = {}
        failed = []
        for branch, answer in zip(self._branches, answers, strict=True):
            if isinstance(answer, BaseException):
                self.counters[f"failed_{branch.name}"] += 1
                failed.append(branch.name)
                logger.warning("branch_failed", extra={"branch": branch.name, "error": type(answer).__name__})
            else:
                retrieved[branch.name] = answer
        wanted = [ad for ad in {ad for ads in retrieved.values() for ad in ads} if ad in live]
        named = {ad: name for ad, name in zip(wanted, self._names(wanted), strict=True) if name is not None}
        if len(named) < len(wanted):
            self.counters["unnamed"] += len(wanted) - len(named)  # never shown: a derived number is nobody's id
        ads = merge(retrieved, quotas=self._quotas, live=named.__contains__, limit=limit)
        for mixed in ads:
            self.counters.update([f"ads_{name}" for name in mixed.branches])
            if len(mixed.branches) == 1:
                self.counters[f"ads_only_{mixed.branches[0]}"] += 1  # the numerator of §5.3's consumption ratio
        source_ids = tuple(named[mixed.ad_id] for mixed in ads)
        return Mix(ads=ads, source_ids=source_ids, failed=tuple(failed), degraded=bool(failed))


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An ad of the merged list, and every branch that retrieved it."""

    ad_id: int | str
    branches: Sequence[str]


class Candidates(msgspec.Struct, frozen=True, kw_only=True):
    """A user's merged list, best first, and the branches that are missing from it."""

    user_id: int | str
    ads: Sequence[Candidate]
    degraded: bool
    failed_branches: Sequence[str]


def create_app(
    settings: Settings, *, guard: Guard | None = None, measuring: bool = True, operations_apart: bool = False
) -> Application:
    """Return the application: LEADRE's branch with two ads a round, and the week's most popular ads with one.

    Args, and what is raised: as `leadre.serving.user_server.create_app`.
    """
    database = connect(settings.database_url, application_name="leadre mixer", statement_timeout_s=60)

    def load_live() -> frozenset[int]:
        with transaction(database) as connection:
            return frozenset(live_ad_ids(connection, now=datetime.now(UTC)).tolist())

    def load_popular() -> list[int]:
        with transaction(database) as connection:
            return popular_ads(connection, now=datetime.now(UTC), days=7, limit=MAX_LIMIT)

    live = Kept(load_live, what="the ads that may be shown", every_s=10)
    popular = Kept(load_popular, what="the popular ads", every_s=300)
    catalog = AdCatalog.over(settings.database_url)
    redis = RedisConnection(address_of(settings.redis_url))
    lists = OnlineLists(redis, project=project_of(settings.feature_repo))
    branches: list[tuple[Branch, int]] = [
        (StoredBranch(name="leadre", ask=lists.ask, ttl_s=settings.list_ttl_s), 2),
        (FixedBranch(name="popular", ads=popular), 1),
    ]
    mixer = Mixer(branches, live_ads=live, names=catalog.of)
    background = [redis.keep, catalog.keep, live.keep, popular.keep]
    return application(
        mixer, background=background, guard=guard, measuring=measuring, operations_apart=operations_apart
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
        ads = [Candidate(ad_id=name, branches=ad.branches) for name, ad in zip(mix.source_ids, mix.ads, strict=True)]
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
        background=background,
        guard=guard,
        measuring=measuring,
        operations_apart=operations_apart,
    )
