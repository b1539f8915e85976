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

from leadre.errors import InvalidInput
from leadre.serving.branches import FixedBranch, Kept, StoredBranch, beside
from leadre.serving.requests import ERROR_ANSWERS, MAX_LIMIT, limit_of, user_id_of
from leadre.serving.stored_lists import StoredLists
from leadre.store.records.catalog import live_ad_ids
from leadre.store.records.database import connect, transaction
from leadre.store.records.request_path import popular_ads

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
    """The merged list, best first, and the branches that are missing from it."""

    ads: tuple[MixedAd, ...]
    failed: tuple[str, ...]


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
        live_ads: returns the ads that may be shown; asked for each request, so it must answer from memory.
        deadline_s: seconds that a branch may take.

    Raises:
        InvalidInput: no branch, two of one name, or a quota below 1.
    """

    def __init__(
        self,
        branches: Sequence[tuple[Branch, int]],
        *,
        live_ads: Callable[[], Collection[int]],
        deadline_s: float = 0.06,
    ) -> None:
        names = [branch.name for branch, _ in branches]
        if not names or len(set(names)) < len(names) or min(quota for _, quota in branches) < 1:
            raise InvalidInput(f"branches need different names and quotas of at least 1, these are {names}")
        self._branches = [branch for branch, _ in branches]
        self._quotas = {branch.name: quota for branch, quota in branches}
        self._live_ads, self._deadline_s = live_ads, deadline_s
        self.counters: Counter[str] = Counter()

    async def mix(self, user_id: int, *, limit: int) -> Mix:
        """Return the user's merged list; empty in the worst case, never an exception."""
        answers = await asyncio.gather(
            *(
                asyncio.wait_for(branch.retrieve(user_id, _SPARE * limit), self._deadline_s)
                for branch in self._branches
            ),
            return_exceptions=True,
        )
        self.counters["requests"] += 1
        retrieved: dict[str, Sequence[int]] = {}
        failed = []
        for branch, answer in zip(self._branches, answers, strict=True):
            if isinstance(answer, BaseException):
                self.counters[f"failed_{branch.name}"] += 1
                failed.append(branch.name)
                logger.warning("branch_failed", extra={"branch": branch.name, "error": type(answer).__name__})
            else:
                retrieved[branch.name] = answer
        live = self._live_ads()
        ads = merge(retrieved, quotas=self._quotas, live=live.__contains__, limit=limit)
        for mixed in ads:
            self.counters.update([f"ads_{name}" for name in mixed.branches])
            if len(mixed.branches) == 1:
                self.counters[f"ads_only_{mixed.branches[0]}"] += 1  # the numerator of §5.3's consumption ratio
        return Mix(ads=ads, failed=tuple(failed))


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

    live = Kept[frozenset[int]](load_live, initial=frozenset(), every_s=10)
    popular = Kept[list[int]](load_popular, initial=[], every_s=300)

    lists = StoredLists(open_features, ttl_s=settings.list_ttl_s, clock=lambda: datetime.now(UTC))
    opened = Kept[object](lists.open, initial=None, every_s=30)
    branches: list[tuple[Branch, int]] = [
        (StoredBranch(name="leadre", read=lists), 2),
        (FixedBranch(name="popular", ads=popular), 1),
    ]
    return application(Mixer(branches, live_ads=live), background=[live.keep, popular.keep, opened.keep])


def application(mixer: Mixer, *, background: Sequence[Callable[[], Coroutine[Any, Any, None]]] = ()) -> Starlette:
    """Serve a mixer: `GET /v1/users/{user_id}/candidates?limit=`, `/healthz`, `/metrics-lite`.

    Args:
        mixer: what answers.
        background: coroutines that run beside it.
    """

    async def candidates(request: Request) -> JSONResponse:
        user_id, limit = user_id_of(request), limit_of(request)
        mix = await mixer.mix(user_id, limit=limit)
        return JSONResponse(
            {
                "user_id": user_id,
                "ads": [{"ad_id": ad.ad_id, "branches": ad.branches} for ad in mix.ads],
                "degraded": bool(mix.failed),
                "failed_branches": mix.failed,
            }
        )

    async def healthz(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def metrics(_: Request) -> JSONResponse:
        return JSONResponse(dict(mixer.counters))

    return Starlette(
        lifespan=beside(background),
        routes=[
            Route("/v1/users/{user_id}/candidates", candidates),
            Route("/healthz", healthz),
            Route("/metrics-lite", metrics),
        ],
        exception_handlers=ERROR_ANSWERS,
    )
