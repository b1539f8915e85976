"""The Mixer: one list out of several retrieval branches, LEADRE's beside the others.

LEADRE §4.4.1, §5.3 (LEADRE is one more retrieval branch; which branches brought an ad is kept for the consumption
ratio). It fails open: a branch that raises or is late is left out, and the answer says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from leadre.errors import InvalidInput, Unavailable
from leadre.serving.application import serving
from leadre.serving.branches import FixedBranch, Kept, StoredBranch
from leadre.serving.names import kept_ad_names
from leadre.serving.requests import MAX_LIMIT, limit_in, user_of
from leadre.serving.stored_lists import StoredLists
from leadre.store.records.catalog import live_ad_ids
from leadre.store.records.database import connect, transaction
from leadre.store.records.request_path import popular_ads
from leadre.store.records.source_ids import AdNames

if TYPE_CHECKING:
    from leadre.settings import Settings
    from leadre.store.features.client import FeatureClient

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
        names: returns how the owner names the ads; the same holds.
        deadline_s: seconds that a branch may take.

    Raises:
        InvalidInput: no branch, two of one name, or a quota below 1.
    """

    def __init__(
        self,
        branches: Sequence[tuple[Branch, int]],
        *,
        live_ads: Callable[[], Collection[int]],
        names: Callable[[], AdNames],
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
            live, names = self._live_ads(), self._names()
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
        named = {ad: name for ad, name in zip(wanted, names.of(wanted), strict=True) if name is not None}
        if len(named) < len(wanted):
            self.counters["unnamed"] += len(wanted) - len(named)  # never shown: a derived number is nobody's id
        ads = merge(retrieved, quotas=self._quotas, live=named.__contains__, limit=limit)
        for mixed in ads:
            self.counters.update([f"ads_{name}" for name in mixed.branches])
            if len(mixed.branches) == 1:
                self.counters[f"ads_only_{mixed.branches[0]}"] += 1  # the numerator of §5.3's consumption ratio
        source_ids = tuple(named[mixed.ad_id] for mixed in ads)
        return Mix(ads=ads, source_ids=source_ids, failed=tuple(failed), degraded=bool(failed))


def create_app(settings: Settings) -> Starlette:
    """Return the ASGI application: LEADRE's branch with two ads a round, and the week's most popular ads with one.

    Raises:
        ConfigError: the database URL is not one of PostgreSQL.
    """
    database = connect(settings.database_url, application_name="leadre mixer", statement_timeout_s=60)

    def open_features() -> FeatureClient:
        from leadre.store.features.client import FeatureClient  # takes seconds

        return FeatureClient(settings.feature_repo, settings.feast_environment())

    def load_live() -> frozenset[int]:
        with transaction(database) as connection:
            return frozenset(live_ad_ids(connection, now=datetime.now(UTC)).tolist())

    def load_popular() -> list[int]:
        with transaction(database) as connection:
            return popular_ads(connection, now=datetime.now(UTC), days=7, limit=MAX_LIMIT)

    live = Kept(load_live, what="the ads that may be shown", every_s=10)
    popular = Kept(load_popular, what="the popular ads", every_s=300)
    names = kept_ad_names(settings.database_url)
    lists = StoredLists(open_features, ttl_s=settings.list_ttl_s, clock=lambda: datetime.now(UTC))
    opened = Kept(lists.open, what="the stored lists", every_s=30)
    branches: list[tuple[Branch, int]] = [
        (StoredBranch(name="leadre", read=lists), 2),
        (FixedBranch(name="popular", ads=popular), 1),
    ]
    mixer = Mixer(branches, live_ads=live, names=names)
    return application(mixer, background=[names.keep, live.keep, popular.keep, opened.keep])


def application(mixer: Mixer, *, background: Sequence[Callable[[], Coroutine[Any, Any, None]]] = ()) -> Starlette:
    """Serve a mixer: `GET /v1/users/{user_id}/candidates?limit=`.

    Args:
        mixer: what answers.
        background: coroutines that run beside it.
    """

    async def candidates(request: Request) -> JSONResponse:
        (user_id, source_id), limit = user_of(request), limit_in(request.query_params.get("limit"))
        mix = await mixer.mix(user_id, limit=limit)
        ads = zip(mix.source_ids, mix.ads, strict=True)
        return JSONResponse(
            {
                "user_id": source_id,
                "ads": [{"ad_id": name, "branches": ad.branches} for name, ad in ads],
                "degraded": mix.degraded,
                "failed_branches": mix.failed,
            }
        )

    routes = [Route("/v1/users/{user_id:source_id}/candidates", candidates)]
    return serving("mixer", routes, counters=mixer.counters, background=background)
