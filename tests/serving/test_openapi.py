"""The OpenAPI document, made from the contracts, and thousands of requests that are made from it: no 5xx.

By command, 100,000 of them: LEADRE_FUZZ_REQUESTS=100000 pytest tests/serving/test_openapi.py
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed
from hypothesis import settings as hypothesis_settings
from redis import Redis

from leadre.serving import mixer, user_server
from leadre.serving.http.application import Application
from leadre.serving.http.openapi import document

pytestmark = pytest.mark.slow
REQUESTS = int(os.environ.get("LEADRE_FUZZ_REQUESTS", "1500"))


class Running:
    """Applications in a loop of their own, asked from this thread."""

    def __init__(self, *apps: Application) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._living = [app.running() for app in apps]
        for living in self._living:
            self.run(living.__aenter__())

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(120)

    def close(self) -> None:
        for living in self._living:
            self.run(living.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()


@pytest.mark.parametrize("make", [user_server.create_app, mixer.create_app], ids=["user-server", "mixer"])
def test_requests_made_from_the_document_get_no_5xx_and_answers_as_it_says(
    shop: Any, make: Callable[..., Application]
) -> None:
    app = make(shop.settings)
    described = document(app.name, app.routes)
    schema = schemathesis.openapi.from_dict(described)
    operations = [found.ok() for found in schema.get_all_operations()]
    running = Running(app)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server", timeout=60)
    told: Counter[int] = Counter()
    try:
        for operation in operations:
            count = max(REQUESTS // len(operations), 20)

            @seed(14)
            @hypothesis_settings(max_examples=count, database=None, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy())
            def ask(case: Any) -> None:
                sent = case.as_transport_kwargs(base_url="http://server")
                wanted = {name: sent.get(name) for name in ("params", "json", "headers", "content")}
                if isinstance(sent.get("data"), bytes | str):
                    wanted["content"] = sent["data"]
                wanted = {name: value for name, value in wanted.items() if value is not None}
                request = client.build_request(sent["method"], sent["url"], **wanted)
                answer = running.run(client.send(request))
                told[answer.status_code] += 1
                assert answer.status_code < 500 or answer.status_code == 503, (answer.status_code, answer.text)
                assert str(answer.status_code) in operation.definition.raw["responses"], (answer.status_code, sent)  # noqa: B023 - called in the loop

            ask()
    finally:
        running.run(client.aclose())
        running.close()
    assert told[200] + told[202] > 0
    with Redis.from_url(shop.settings.redis_url) as redis:
        redis.flushall()


def test_the_document_names_every_route_and_contract(shop: Any) -> None:
    described = document("user-server", user_server.create_app(shop.settings).routes)
    assert described["openapi"] == "3.1.0"
    assert {"/v1/users/{user_id}/ads", "/v1/users/{user_id}/behaviors", "/v1/lists", "/readyz"} <= set(
        described["paths"]
    )
    assert {"UserAds", "NewBehaviors", "UsersWanted", "Accepted", "Problem"} <= set(described["components"]["schemas"])
    behavior = described["components"]["schemas"]["NewBehavior"]
    assert behavior["additionalProperties"] is False
    assert behavior["required"] == ["domain", "action", "item_id", "occurred_at"]
