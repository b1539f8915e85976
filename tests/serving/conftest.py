"""A shop whose owner names everything by text, and a running application to ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
import numpy as np
import pytest
import redis

from leadre.domain.ads import Ad, ContentItem
from leadre.domain.behavior import Action, Behavior, Domain
from leadre.domain.identity import id_of
from leadre.domain.retrieval import Beam, RetrievalList
from leadre.domain.users import Profile
from leadre.indexing.ad_index import AdIndex
from leadre.serving.http.application import Application
from leadre.serving.online_lists import MARKER
from leadre.settings import Settings
from leadre.store.features.client import FeatureClient
from leadre.store.records import catalog, events
from leadre.store.records.database import connect, transaction
from leadre.store.release.records import promote, record_index, record_release

SECRET = "geheim"  # in every title, and in every id that a request makes up


@dataclass(frozen=True, kw_only=True)
class Shop:
    """Twelve ads, two content items and two users, each with a list of ads; ad 7 is named by its number."""

    settings: Settings
    ads: tuple[str, ...] = ("7", "SKU-1", "SKU/2", "Straße 3", *(f"SKU-{number}" for number in range(4, 12)))
    content: tuple[str, ...] = ("clip-1", "clip-2")
    users: tuple[str, ...] = ("user_5", "a/b ü")
    release: str = "first"
    secret: str = SECRET

    def add_ads(self, source_ids: Sequence[str]) -> None:
        """Import ads."""
        database = connect(self.settings.database_url)
        with transaction(database) as connection:
            catalog.upsert_ads(connection, [_ad(source_id, now=datetime.now(UTC)) for source_id in source_ids])
        database.dispose()


@asynccontextmanager
async def _running(app: Application) -> AsyncIterator[httpx.AsyncClient]:
    async with app.running():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server", timeout=30) as client:
            yield client


async def _until(answered: Callable[[], Awaitable[bool]], *, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not await answered():
        assert time.monotonic() < end, "not in time"
        await asyncio.sleep(0.05)


@pytest.fixture
def running() -> Callable[[Application], AbstractAsyncContextManager[httpx.AsyncClient]]:
    """Run an application, its background too, and give a client of it."""
    return _running


@pytest.fixture
def until() -> Callable[..., Awaitable[None]]:
    """Wait until a question is answered with yes, at most so many `seconds`."""
    return _until


def _ad(source_id: str, *, now: datetime) -> Ad:
    return Ad(
        ad_id=id_of(source_id),
        source_id=source_id,
        name=f"{SECRET} title of {source_id}",
        ad_type="",
        first_category="",
        second_category="",
        attributes=(),
        advertiser_id=1,
        bid=1.0,
        created_at=now,
    )


@pytest.fixture
def shop(applied: Settings) -> Shop:
    """The shop, with a live release and a stored list of the first five ads for each user; ad 4 was clicked."""
    made = Shop(settings=applied)
    now = datetime.now(UTC)
    number = np.arange(len(made.ads))
    ids = np.array([id_of(ad) for ad in made.ads], np.int64)
    order = np.argsort(ids)
    index = AdIndex.assemble(
        version="index-1",
        ad_ids=ids[order],
        codes=np.stack([number % 4, number // 4], axis=1).astype(np.int32),
        first_categories=[""] * len(ids),
        second_categories=[""] * len(ids),
        advertiser_ids=np.ones(len(ids), np.int64),
        embeddings=np.ones((len(ids), 2), np.float32),
        code_counts=(4, 3),
        quality={},
    )
    made.add_ads(made.ads)
    database = connect(applied.database_url)
    with transaction(database) as connection:
        items = [
            ContentItem(content_id=id_of(item), source_id=item, title=f"{SECRET} {item}", category="")
            for item in made.content
        ]
        catalog.upsert_content_items(connection, items)
        profiles = [Profile(user_id=id_of(user), residence=SECRET) for user in made.users]
        catalog.upsert_users(connection, profiles, event_at=now, source_ids=made.users)
        clicked = id_of(made.ads[4])
        clicks = [Behavior(user_id=1, domain=Domain.AD, action=Action.CLICK, item_id=clicked, occurred_at=now)]
        events.append_behaviors(connection, clicks, arrived_at=now)
        record_index(connection, index.version, uri="index", recipe={}, quality={})
        record_release(connection, made.release, index_version=index.version, uri="", recipe={}, metrics={})
        promote(connection, made.release)
    database.dispose()
    features = FeatureClient(applied.feature_repo, applied.feast_environment())
    lists = [
        RetrievalList(
            user_id=id_of(user),
            release=made.release,
            index_version=index.version,
            generated_at=now,
            event_at=now - timedelta(hours=1),
            beams=tuple(
                Beam(sid=index.sid(id_of(ad)), ad_id=id_of(ad), log_probability=-1.0 - place)
                for place, ad in enumerate(made.ads[:5])
            ),
        )
        for user in made.users
    ]
    features.push_lists(lists, index=index)
    features.close()
    with redis.Redis.from_url(applied.redis_url) as client:
        client.set(MARKER, "whole")
    return made
