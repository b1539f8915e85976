"""The ids that the owner of the data uses go in and come out of both servers, over real PostgreSQL and Redis."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx
from sqlalchemy import text

from leadre.domain.identity import stable_id
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.serving import mixer, user_server
from leadre.serving.http.application import Application
from leadre.store.records.database import connect, transaction

Running = Callable[[Application], AbstractAsyncContextManager[httpx.AsyncClient]]
Until = Callable[..., Awaitable[None]]
CLICK = {"domain": "ad", "action": "click", "item_id": "SKU-1", "occurred_at": "2025-03-01T12:00:00+23:59"}
WATCH = {"domain": "content", "action": "watch", "item_id": "clip-1", "occurred_at": "2025-03-01T12:00:00Z"}


async def whole(client: httpx.AsyncClient, path: str, until: Until) -> Any:
    """Return what is answered once it is not degraded: a busy machine may take longer than a read may."""
    answers: list[Any] = []

    async def there() -> bool:
        answers.append((await client.get(path)).json())
        return not answers[-1]["degraded"]

    await until(there, seconds=60)
    return answers[-1]


def test_users_and_ads_are_called_what_their_owner_calls_them(shop: Any, running: Running, until: Until) -> None:
    async def scenario() -> None:
        served, mixed = user_server.create_app(shop.settings), mixer.create_app(shop.settings)
        async with running(served) as users, running(mixed) as candidates:
            expected = [7, *shop.ads[1:5]]
            for user in shop.users:
                answer = await whole(users, f"/v1/users/{quote(user, safe='')}/ads", until)
                assert answer["user_id"] == user
                assert [ad["ad_id"] for ad in answer["ads"]] == expected
                mix = await whole(candidates, f"/v1/users/{quote(user, safe='')}/candidates", until)
                assert mix["user_id"] == user
                assert [ad["ad_id"] for ad in mix["ads"]] == [7, "SKU-1", "SKU-4", "SKU/2", "Straße 3"]
                assert {"ad_id": "SKU-4", "branches": ["leadre", "popular"], "source": "llm"} in mix["ads"]
                assert not re.search(r"\d{12}", json.dumps([answer["ads"], mix["ads"]]))

    asyncio.run(scenario())


def test_behaviors_of_text_ids_are_stored_and_unknown_items_counted(shop: Any, running: Running) -> None:
    unknown = [{**CLICK, "item_id": item} for item in ("SKU-404", "SKU-405", 405)]
    reported = [CLICK, WATCH, {**CLICK, "item_id": 7}, *unknown, {**WATCH, "item_id": "clip-404"}]

    async def scenario() -> None:
        async with running(user_server.create_app(shop.settings)) as users:
            for _ in range(2):  # sent again, it changes nothing
                answer = await users.post("/v1/users/user_5/behaviors?wait=stored", json={"behaviors": reported})
                told = {"accepted": 7, "unknown_ads": 3, "unknown_content_items": 1}
                assert (answer.status_code, answer.json().items() >= told.items()) == (202, True)

    asyncio.run(scenario())
    database = connect(shop.settings.database_url)
    with transaction(database) as connection:
        of_user = {"user_id": stable_id("user_5")}
        rows = connection.execute(text("SELECT * FROM behaviors WHERE user_id = :user_id"), of_user).all()
    database.dispose()
    assert len(rows) == 7
    stored = {row.item_id: row.occurred_at for row in rows}
    assert stored[stable_id("SKU-1")] == datetime(2025, 2, 28, 12, 1, tzinfo=UTC)
    assert RefreshQueue.connect(shop.settings.redis_url).depth() == 1


def test_an_ad_imported_while_the_server_runs_gets_its_name_within_seconds(
    shop: Any, running: Running, until: Until
) -> None:
    database = connect(shop.settings.database_url)
    with transaction(database) as connection:
        connection.execute(text("DELETE FROM ads WHERE source_id = 'SKU-1'"))
    database.dispose()

    async def scenario() -> None:
        async with running(user_server.create_app(shop.settings)) as users:

            async def named() -> list[int | str]:
                return [ad["ad_id"] for ad in (await whole(users, "/v1/users/user_5/ads", until))["ads"]]

            assert await named() == [7, *shop.ads[2:5]]
            assert 'what="unnamed"}' in (await users.get("/metrics")).text
            shop.add_ads(["SKU-1"])

            async def complete() -> bool:
                return await named() == [7, *shop.ads[1:5]]

            await until(complete, seconds=15)

    asyncio.run(scenario())
