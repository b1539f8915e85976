from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from leadre.domain.behavior import Action, Behavior, Domain
from leadre.errors import Unavailable
from leadre.serving.user_server import UserServer, application
from leadre.store.features.client import RetrievedRow

NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)
LIST = RetrievedRow(
    user_id=5,
    release="r1",
    index_version="i1",
    generated_at=NOW,
    behavior_at=None,
    ad_ids=(11, 12),
    sids=("<a_11, b_0>", "<a_12, b_0>"),
    log_probabilities=(-0.5, -1.5),
    features={},
)
CLICK = {"domain": "ad", "action": "click", "item_id": 11, "occurred_at": "2025-03-01T11:59:00Z"}


def raise_unavailable(*_: object) -> Any:
    raise Unavailable("down")


def server(
    *,
    read: Callable[[int], RetrievedRow | None] = lambda _: LIST,
    append: Callable[[int, Sequence[Behavior]], int] = lambda *_: 3,
    mark: Callable[[int, int], object] = lambda *_: None,
    write_deadline_s: float = 1.0,
) -> UserServer:
    return UserServer(
        read=read, append=append, mark=mark, clock=lambda: NOW, read_deadline_s=0.05, write_deadline_s=write_deadline_s
    )


def ask(served: UserServer, method: str, path: str, **request: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(application(served))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.request(method, path, **request)

    return asyncio.run(send())


def test_a_user_gets_the_stored_list_best_first() -> None:
    answer = ask(server(), "GET", "/v1/users/5/ads").json()
    assert answer == {
        "user_id": 5,
        "release": "r1",
        "index_version": "i1",
        "generated_at": "2025-03-01T12:00:00+00:00",
        "ads": [
            {"ad_id": 11, "sid": "<a_11, b_0>", "log_probability": -0.5},
            {"ad_id": 12, "sid": "<a_12, b_0>", "log_probability": -1.5},
        ],
        "degraded": False,
    }
    assert len(ask(server(), "GET", "/v1/users/5/ads?limit=1").json()["ads"]) == 1


def test_a_user_without_a_list_is_not_a_fault() -> None:
    assert ask(server(read=lambda _: None), "GET", "/v1/users/5/ads").json() == {
        "user_id": 5,
        "ads": [],
        "degraded": False,
    }


def test_a_store_that_raises_means_an_empty_degraded_answer_and_a_count() -> None:
    served = server(read=raise_unavailable)
    answer = ask(served, "GET", "/v1/users/5/ads")
    assert (answer.status_code, answer.json()) == (200, {"user_id": 5, "ads": [], "degraded": True})
    assert ask(served, "GET", "/metrics-lite").json() == {"reads": 1, "degraded": 1}


def test_a_store_that_hangs_means_the_same_while_it_still_hangs() -> None:
    woken = threading.Event()
    served = server(read=lambda _: LIST if woken.wait(10) else None)

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(application(served))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            answers = await asyncio.gather(*(client.get("/v1/users/5/ads") for _ in range(40)))
            woken.set()
            return answers[-1]

    answer = asyncio.run(send())
    assert (answer.status_code, answer.json()["degraded"]) == (200, True)
    assert served.counters["degraded"] == 40


@pytest.mark.parametrize("path", ["/v1/users/-1/ads", "/v1/users/1e3/ads", "/v1/users/9223372036854775808/ads"])
def test_a_bad_user_id_is_refused(path: str) -> None:
    answer = ask(server(), "GET", path)
    assert answer.status_code == 400
    assert "user_id" in answer.json()["error"]


def test_behaviors_are_appended_and_the_user_marked() -> None:
    appended: list[Behavior] = []
    marked: list[tuple[int, int]] = []
    served = server(
        append=lambda user, rows: appended.extend(rows) or 3, mark=lambda user, group: marked.append((user, group))
    )
    watch = {"domain": "content", "action": "watch", "item_id": 3, "occurred_at": "2025-03-01T19:58:00+08:00"}
    answer = ask(served, "POST", "/v1/users/5/behaviors", json={"behaviors": [CLICK, {**watch, "ordinal": 2}]})
    assert (answer.status_code, answer.json()) == (202, {"accepted": 2, "queued": True})
    assert marked == [(5, 3)]
    assert appended[0].action is Action.CLICK
    assert appended[1] == Behavior(
        user_id=5,
        domain=Domain.CONTENT,
        action=Action.WATCH,
        item_id=3,
        occurred_at=NOW - timedelta(minutes=2),
        ordinal=2,
    )


def test_behaviors_are_accepted_when_only_the_queue_is_down() -> None:
    served = server(mark=raise_unavailable)
    answer = ask(served, "POST", "/v1/users/5/behaviors", json={"behaviors": [CLICK]})
    assert (answer.status_code, answer.json()["queued"]) == (202, False)
    assert served.counters["unqueued"] == 1


@pytest.mark.parametrize("append", [raise_unavailable, lambda *_: time.sleep(0.3)])
def test_behaviors_are_refused_for_a_retry_when_they_cannot_be_stored_in_time(append: Callable[..., int]) -> None:
    served = server(append=append, write_deadline_s=0.05)
    answer = ask(served, "POST", "/v1/users/5/behaviors", json={"behaviors": [CLICK]})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('{"behaviors"', "truncated"),
        ("{}", "behaviors"),
        ('{"behaviors": []}', "length >= 1"),
        ({"behaviors": [CLICK] * 101}, "length <= 100"),
        ({"behaviors": [{**CLICK, "item_id": 2**63}]}, "9223372036854775807"),
        ({"behaviors": [{**CLICK, "item_id": "11"}]}, "Expected `int`"),
        ({"behaviors": [{**CLICK, "occurred_at": "2025-03-01T11:59:00"}]}, "timezone"),
        ({"behaviors": [{**CLICK, "occurred_at": "2025-03-02T11:59:00Z"}]}, "future"),
        ({"behaviors": [CLICK, {**CLICK, "action": "watch"}]}, "row 2, column 'action'"),
        ({"behaviors": [{**CLICK, "price": 1}]}, "unknown field `price`"),
    ],
)
def test_a_bad_body_is_refused_and_says_what_is_wrong(body: Any, problem: str) -> None:
    request = {"content": body} if isinstance(body, str) else {"json": body}
    answer = ask(server(append=raise_unavailable), "POST", "/v1/users/5/behaviors", **request)
    assert answer.status_code == 400
    assert problem in answer.json()["error"]


def test_a_body_of_more_than_64_kib_is_refused_unread() -> None:
    async def stream() -> Any:
        for _ in range(100_000):
            yield b" " * 4096

    answer = ask(server(), "POST", "/v1/users/5/behaviors", content=stream())
    assert answer.status_code == 413
    assert "65536 bytes" in answer.json()["error"]
