from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from redis import Redis

from leadre.domain.behavior import Action, Behavior, Domain
from leadre.domain.identity import id_of, stable_id
from leadre.errors import InvalidInput, Unavailable
from leadre.logs import JsonFormatter
from leadre.serving import behavior_stream
from leadre.serving.ad_catalog import AdCatalog
from leadre.serving.behavior_desk import BehaviorDesk
from leadre.serving.http.application import Application
from leadre.serving.list_desk import ListDesk
from leadre.serving.online_lists import Found, Nothing
from leadre.serving.redis.connection import RedisConnection
from leadre.serving.redis.wire import Address, address_of
from leadre.serving.reported import behaviors_in
from leadre.serving.user_server import application
from leadre.store.features.list_reader import ShownRow
from leadre.store.records.inventory.showable import NO_END_S, ShowableRows
from leadre.store.records.request_path import Arrivals, Stale

NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)
LIST = ShownRow(
    user_id=5,
    release="r1",
    index_version="i1",
    generated_at=NOW,
    source="llm",
    ad_ids=(11, 12),
    sids=("<a_11, b_0>", "<a_12, b_0>"),
    log_probabilities=(-0.5, -1.5),
)
ROWS = ShowableRows(
    ad_ids=np.array([11, 12]),
    texts=pa.array(["SKU-11", ""]),
    on=np.array([True, True]),
    begins_s=np.zeros(2, np.uint32),
    ends_s=np.full(2, NO_END_S, np.uint32),
)
ARRIVALS = Arrivals(new=1, unknown=dict.fromkeys(Domain, 0), stale=(Stale(user_id=5, group=3, never_listed=False),))
KNOWN = {"unknown_ads": 0, "unknown_content_items": 0}
CLICK = {"domain": "ad", "action": "click", "item_id": 11, "occurred_at": "2025-03-01T11:59:00Z"}


def only(rows: ShowableRows, places: list[int]) -> ShowableRows:
    return ShowableRows(
        ad_ids=rows.ad_ids[places],
        texts=rows.texts.take(pa.array(places)),
        on=rows.on[places],
        begins_s=rows.begins_s[places],
        ends_s=rows.ends_s[places],
    )


def raise_unavailable(*_: object) -> Any:
    raise Unavailable("down")


@dataclass(frozen=True)
class Served:
    """A user server without Redis: what it is to write goes to `store`."""

    app: Application
    lists: ListDesk


def server(
    *,
    read: Callable[[int], ShownRow | None] = lambda _: LIST,
    catalog: AdCatalog | None = None,
    store: Callable[[Sequence[Behavior], datetime], Arrivals] = lambda *_: ARRIVALS,
    mark: Callable[[Arrivals], object] = lambda *_: None,
    write_deadline_s: float = 1.0,
) -> Served:
    rows: dict[bytes, ShownRow] = {}

    def ask(user_id: int, found: Found) -> None:
        try:
            row = read(user_id)
        except Unavailable as error:
            found(error)
            return
        if row is not None:
            rows[repr(row).encode()] = row
        found(Nothing(whole=True) if row is None else repr(row).encode())

    lists = ListDesk(
        ask=ask,
        catalog=catalog or catalog_of(),
        list_ttl_s=3600,
        row=lambda value, _: rows[value],
        clock=NOW.timestamp,
    )
    desk = BehaviorDesk(
        redis=RedisConnection(Address(host="127.0.0.1", port=1)),
        store=store,
        mark=mark,
        max_entries=10,
        counters=lists.counters,
        write_deadline_s=write_deadline_s,
        clock=lambda: NOW,
    )
    return Served(application(lists, desk), lists)


def catalog_of(rows: ShowableRows = ROWS) -> AdCatalog:
    catalog = AdCatalog(lambda _: (rows, 1, True))
    catalog.load()
    return catalog


def ask(served: Served, method: str, path: str, **request: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(served.app)
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
        "source": "llm",
        "ads": [
            {"ad_id": "SKU-11", "sid": "<a_11, b_0>", "log_probability": -0.5},
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
    assert served.lists.counters == {"reads": 1, "degraded": 1}
    assert 'leadre_served_total{server="user-server",what="degraded"} 1.0' in ask(served, "GET", "/metrics").text


def test_a_list_that_was_read_before_is_answered_while_the_store_is_away_and_marked() -> None:
    away: list[bool] = []
    served = server(read=lambda _: raise_unavailable() if away else LIST)
    fresh = ask(served, "GET", "/v1/users/5/ads?limit=1").json()
    away.append(True)
    answer = ask(served, "GET", "/v1/users/5/ads?limit=1")
    assert (answer.status_code, answer.json()) == (200, {**fresh, "degraded": True})
    assert ask(served, "GET", "/v1/users/6/ads").json() == {"user_id": 6, "ads": [], "degraded": True}


def test_a_list_that_is_gone_is_not_answered_from_memory() -> None:
    gone: list[bool] = []
    served = server(read=lambda _: None if gone else LIST)
    assert ask(served, "GET", "/v1/users/5/ads").json()["ads"]
    gone.append(True)
    for _ in range(2):
        assert ask(served, "GET", "/v1/users/5/ads").json() == {"user_id": 5, "ads": [], "degraded": False}


def test_a_list_older_than_lists_live_is_absent() -> None:
    old = replace(LIST, generated_at=NOW - timedelta(seconds=3601))
    assert ask(server(read=lambda _: old), "GET", "/v1/users/5/ads").json()["ads"] == []


def test_an_ad_without_a_name_is_left_out_and_counted() -> None:
    served = server(catalog=catalog_of(only(ROWS, [1])))
    answer = ask(served, "GET", "/v1/users/5/ads?limit=1").json()
    assert [ad["ad_id"] for ad in answer["ads"]] == [12]
    assert served.lists.counters["unnamed"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"on": np.array([False, True])},
        {"begins_s": np.array([NOW.timestamp() + 1, 0], np.uint32)},
        {"ends_s": np.array([NOW.timestamp(), NO_END_S], np.uint32)},
    ],
    ids=["paused", "not yet", "over"],
)
def test_an_ad_that_may_not_be_shown_does_not_leave_the_server(change: dict[str, Any]) -> None:
    served = server(catalog=catalog_of(replace(ROWS, **change)))
    answer = ask(served, "GET", "/v1/users/5/ads").json()
    assert [ad["ad_id"] for ad in answer["ads"]] == [12]
    assert served.lists.counters["withheld"] == 1
    many = ask(served, "POST", "/v1/lists", json={"user_ids": [5]}).json()
    assert [ad["ad_id"] for ad in many["lists"][0]["ads"]] == [12]


def test_an_answer_made_before_a_pause_is_not_given_after_it() -> None:
    paused = replace(only(ROWS, [0]), on=np.array([False]))
    reads = iter([(ROWS, 1, True), (paused, 2, False)])
    catalog = AdCatalog(lambda _: next(reads))
    catalog.load()
    served = server(catalog=catalog)
    assert len(ask(served, "GET", "/v1/users/5/ads").json()["ads"]) == 2
    catalog.load()
    assert [ad["ad_id"] for ad in ask(served, "GET", "/v1/users/5/ads").json()["ads"]] == [12]


def test_before_the_ads_were_read_the_answer_is_empty_and_degraded_and_the_server_not_ready() -> None:
    served = server(catalog=AdCatalog(raise_unavailable))
    answer = ask(served, "GET", "/v1/users/5/ads")
    assert (answer.status_code, answer.json()) == (200, {"user_id": 5, "ads": [], "degraded": True})
    assert ask(served, "GET", "/readyz").status_code == 503
    assert ask(server(), "GET", "/readyz").json()["status"] == "ready"


def test_many_lists_are_read_at_once_in_the_order_asked_for() -> None:
    served = server(read=lambda user: LIST if user != 6 else None)
    answer = ask(served, "POST", "/v1/lists", json={"user_ids": [7, "6", "user_5"], "limit": 1}).json()
    assert [(each["user_id"], len(each["ads"])) for each in answer["lists"]] == [(7, 1), (6, 0), ("user_5", 1)]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({}, "user_ids"),
        ({"user_ids": []}, "length >= 1"),
        ({"user_ids": [1] * 501}, "length <= 500"),
        ({"user_ids": [1.5]}, "int | str"),
        ({"user_ids": [5, " a"]}, "row 2, column 'user_ids'"),
        ({"user_ids": [5], "limit": 0}, "limit"),
        ({"user_ids": [5], "more": 1}, "unknown field"),
        ("{", "not JSON"),
    ],
)
def test_a_bad_request_for_many_lists_is_refused(body: Any, problem: str) -> None:
    answer = ask(server(), "POST", "/v1/lists", content=body if isinstance(body, str) else json.dumps(body))
    assert answer.status_code == 400
    assert problem in answer.json()["error"]


@pytest.mark.parametrize(
    ("segment", "source_id"),
    [
        ("7", 7),
        ("user_5", "user_5"),
        ("007", "007"),
        ("9223372036854775808", "9223372036854775808"),
        ("-1", "-1"),
        ("a%2Fb", "a/b"),
        ("a%2Fads", "a/ads"),
        ("a%20b+c", "a b+c"),
        ("b%C3%A4r", "bär"),
        ("%25", "%"),
        ("..%2F..%2Fhealthz", "../../healthz"),
        ("x" * 256, "x" * 256),
    ],
)
def test_a_user_is_named_by_number_or_text_and_answered_so(segment: str, source_id: int | str) -> None:
    asked: list[int] = []
    answer = ask(server(read=asked.append), "GET", f"/v1/users/{segment}/ads")
    assert (answer.status_code, answer.json()["user_id"]) == (200, source_id)
    assert asked == [source_id if isinstance(source_id, int) else stable_id(source_id)]


@pytest.mark.parametrize("segment", ["", "%00", "a%0Ab", "%FF", "%ED%A0%80", "%20a", "x" * 257, "%E2%80%A8"])
def test_a_bad_user_id_is_refused(segment: str) -> None:
    answer = ask(server(), "GET", f"/v1/users/{segment}/ads")
    assert answer.status_code == 400
    assert "column 'user_id'" in answer.json()["error"]


@pytest.mark.parametrize("limit", ["0", "-1", "1000000000", "", "1e3", "5.0", "\uff15", "1001", "9" * 5000, "1_0"])
def test_a_bad_limit_is_refused_with_its_bounds(limit: str) -> None:
    answer = ask(server(), "GET", "/v1/users/5/ads", params={"limit": limit, "unknown": "is fine"})
    assert answer.status_code == 400
    assert "write an integer from 1 to 1000" in answer.json()["error"]


def test_what_is_not_there_and_wrong_methods_are_refused_in_json() -> None:
    for path in ("/v1/users/a/b/ads", "/v1/users/5/ads/", "/v1/users/5", "/x/v1/users/5/ads", "/%FF"):
        answer = ask(server(), "GET", path)
        assert (answer.status_code, "/ names the routes" in answer.json()["error"]) == (404, True)
    for method in ("PUT", "OPTIONS", "HEAD", "GET"):
        answer = ask(server(), method, "/v1/users/5/behaviors")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert ask(server(), "HEAD", "/v1/users/5/ads").status_code == 200


def test_the_root_says_what_is_here() -> None:
    answer = ask(server(), "GET", "/").json()
    assert (answer["name"], answer["docs"]) == ("leadre user-server", "docs/operations.md")
    assert "POST /v1/users/{user_id}/behaviors" in answer["routes"]


def test_a_failure_nobody_expected_is_a_json_500_whose_log_has_no_words_of_it(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> Arrivals:
        raise RuntimeError("planted-secret")

    answer = ask(server(store=fail), "POST", "/v1/users/5/behaviors", json={"behaviors": [CLICK]})
    assert (answer.status_code, "log says where" in answer.json()["error"]) == (500, True)
    assert [record.getMessage() for record in caplog.records] == ["request_failed"]
    logged = JsonFormatter().format(caplog.records[0])
    assert "RuntimeError" in logged
    assert "planted-secret" not in logged


def test_behaviors_are_appended_and_the_user_marked() -> None:
    appended: list[Behavior] = []
    marked: list[Arrivals] = []
    served = server(store=lambda rows, _: appended.extend(rows) or ARRIVALS, mark=marked.append)
    watch = {"domain": "content", "action": "watch", "item_id": 3, "occurred_at": "2025-03-01T19:58:00+08:00"}
    answer = ask(served, "POST", "/v1/users/5/behaviors", json={"behaviors": [CLICK, {**watch, "ordinal": 2}]})
    told = {"accepted": 2, "stored": True, "queued": True, **KNOWN}
    assert (answer.status_code, answer.json()) == (202, told)
    assert marked == [ARRIVALS]
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
    assert served.lists.counters["unqueued"] == 1


@pytest.mark.parametrize("store", [raise_unavailable, lambda *_: time.sleep(0.3)])
def test_behaviors_are_refused_for_a_retry_when_they_cannot_be_stored_in_time(store: Callable[..., Arrivals]) -> None:
    served = server(store=store, write_deadline_s=0.05)
    answer = ask(served, "POST", "/v1/users/5/behaviors", json={"behaviors": [CLICK]})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('{"behaviors"', "truncated"),
        ("", "truncated"),
        ("{}", "behaviors"),
        ("[" * 60_000, "got `array`; send {"),
        ('{"behaviors": []}', "length >= 1"),
        ({"behaviors": [CLICK] * 101}, "length <= 100"),
        (
            {"behaviors": [{**CLICK, "item_id": True}]},
            "row 1, column 'item_id': Expected `int | str`, got `bool`: True;",
        ),
        ({"behaviors": [{**CLICK, "item_id": 1.5}]}, "got `float`: 1.5; write the ad's or content item's id"),
        ({"behaviors": [{**CLICK, "item_id": ""}]}, "'' is no id"),
        ({"behaviors": [{**CLICK, "item_id": "a\0"}]}, "is no id; a text is one line"),
        ({"behaviors": [{**CLICK, "item_id": "\ud800"}]}, "surrogate"),
        ({"behaviors": [{**CLICK, "item_id": int("9" * 4300)}]}, "256 characters"),
        ('{"behaviors": [{"item_id": NaN}]}', "not JSON"),
        (b'{"behaviors": [{"item_id": "\xff"}]}', "not UTF-8"),
        ({"behaviors": [{**CLICK, "domain": "x"}]}, "write ad or content"),
        ({"behaviors": [{**CLICK, "ordinal": -1}]}, ">= 0: -1; write a whole number from 0 to"),
        ({"behaviors": [{**CLICK, "occurred_at": "2025-03-01T11:59:00"}]}, "timezone"),
        ({"behaviors": [{**CLICK, "occurred_at": "2025-03-02T12:00:01Z"}]}, "after 2025-03-02T12:00:00+00:00, a day"),
        ({"behaviors": [{**CLICK, "occurred_at": "1999-12-31T23:59:59Z"}]}, "before 2000-01-01T00:00:00+00:00"),
        ({"behaviors": [{**CLICK, "occurred_at": "0001-01-01T00:00:00+23:59"}]}, "before 2000"),
        ({"behaviors": [{**CLICK, "occurred_at": "9999-12-31T23:59:59-23:59"}]}, "a day from now"),
        ({"behaviors": [CLICK, {**CLICK, "action": "watch"}]}, "row 2, column 'action': 'watch' is not an action"),
        ({"behaviors": [{**CLICK, "price": 1}]}, "unknown field `price`"),
        ({"behaviors": [CLICK], "x - at `$.item_id": 1}, "unknown field"),
        (f'{{"behaviors": [{json.dumps(CLICK)}], "behaviors": [{json.dumps(CLICK)}]}}', "'behaviors' twice"),
        ('{"behaviors": [{"item_id": true}], "behaviors": []}', "row 1, column 'item_id'"),
    ],
)
def test_a_bad_body_is_refused_and_says_what_is_wrong(body: Any, problem: str) -> None:
    request = {"content": json.dumps(body) if isinstance(body, dict) else body}
    answer = ask(server(store=raise_unavailable), "POST", "/v1/users/5/behaviors", **request)
    assert answer.status_code == 400
    assert problem in answer.json()["error"]


@given(st.data())
def test_a_name_given_twice_is_found_wherever_it_stands(data: st.DataObject) -> None:
    repeated = data.draw(st.booleans())
    rows = []
    for _ in range(data.draw(st.integers(1, 3))):
        row = list(
            {**CLICK, "item_id": data.draw(st.sampled_from([7, "7", "a:b", 'q"q', "ordinal", "\\", "ü"]))}.items()
        )
        if data.draw(st.booleans()):
            row.append(("ordinal", data.draw(st.sampled_from([0, 1, 2**63 - 1]))))
        rows.append(row)
    if repeated:
        row = data.draw(st.sampled_from(rows))
        name, value = data.draw(st.sampled_from(row))
        row.insert(data.draw(st.integers(0, len(row))), (name, value))
    escaped = data.draw(st.booleans())
    written = ",".join(
        "{" + ",".join(f"{json.dumps(n)}: {json.dumps(v, ensure_ascii=escaped)}" for n, v in row) + "}" for row in rows
    )
    body = f'{{"behaviors": [{written}]}}'.encode()
    if repeated:
        with pytest.raises(InvalidInput, match="twice"):
            behaviors_in(body, user_id=5, now=NOW)
    else:
        found = behaviors_in(body, user_id=5, now=NOW)
        assert [each.item_id for each in found] == [id_of(dict(row)["item_id"]) for row in rows]
        assert [each.ordinal for each in found] == [dict(row).get("ordinal", 0) for row in rows]


def test_reports_of_one_turn_go_into_the_stream_together_and_who_finds_it_full_is_told(redis_url: str) -> None:
    redis = RedisConnection(address_of(redis_url), deadline_s=30.0)
    lists = server().lists
    desk = BehaviorDesk(redis=redis, store=raise_unavailable, mark=print, max_entries=25, counters=lists.counters)

    async def statuses() -> list[int]:
        app = application(lists, desk, background=[redis.keep])
        transport = httpx.ASGITransport(app)
        async with app.running(), httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            async with asyncio.timeout(60):
                while not redis.up:
                    await asyncio.sleep(0.01)
            sent = [client.post(f"/v1/users/{user}/behaviors", json={"behaviors": [CLICK]}) for user in range(40)]
            return [answer.status_code for answer in await asyncio.gather(*sent)]

    assert sorted(asyncio.run(statuses())) == [202] * 25 + [503] * 15
    with Redis.from_url(redis_url) as client:
        users = [behavior_stream.decode(fields[b"e"]).user_id for _, fields in client.xrange(behavior_stream.STREAM)]
    assert len(set(users)) == 25


def test_a_body_of_more_than_64_kib_is_refused_unread() -> None:
    async def stream() -> Any:
        for _ in range(100_000):
            yield b" " * 4096

    answer = ask(server(), "POST", "/v1/users/5/behaviors", content=stream())
    assert answer.status_code == 413
    assert "65536 bytes" in answer.json()["error"]


def test_a_compressed_body_is_refused() -> None:
    answer = ask(server(), "POST", "/v1/users/5/behaviors", content=b"x", headers={"content-encoding": "gzip"})
    assert (answer.status_code, "send it plain" in answer.json()["error"]) == (415, True)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2025-03-01T11:59:00+23:59", datetime(2025, 2, 28, 12, tzinfo=UTC)),
        ("2025-03-01T11:59:00-23:59", datetime(2025, 3, 2, 11, 58, tzinfo=UTC)),
        ("2000-01-01T00:00:00Z", datetime(2000, 1, 1, tzinfo=UTC)),
    ],
)
def test_times_reach_the_system_of_record_in_utc(written: str, meant: datetime) -> None:
    appended: list[Behavior] = []
    served = server(store=lambda rows, _: appended.extend(rows) or ARRIVALS)
    body = {"behaviors": [{**CLICK, "occurred_at": written}]}
    assert ask(served, "POST", "/v1/users/5/behaviors", json=body).status_code == 202
    assert [(row.occurred_at, row.occurred_at.utcoffset()) for row in appended] == [(meant, timedelta(0))]
