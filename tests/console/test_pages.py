from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from leadre.domain.identity import id_of
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.store.records import catalog
from leadre.store.records.database import connect, transaction
from tests.console.conftest import Console


def test_every_page_shows_what_it_is_for(console: Console) -> None:
    user, ad = console.live.user_ids[0], console.live.world.ads[3]
    sid = str(console.live.index.sid(ad.ad_id)).replace("<", "&lt;").replace(">", "&gt;")

    def shown(path: str) -> str:
        response, text = console.get(path)
        assert response.status == 200, text
        return text

    assert "<b>in memory</b>" in shown("/")
    of_user = shown(f"/user?id={user}")
    for expected in ('class="sid', "interest_summary", "retrieved_count", "longest_shared_prefix", "r2"):
        assert expected in of_user
    search = shown(f"/user/search?id={user}")
    assert search.count('<g class="node kept"') > search.count("level 1")
    assert "candidates" in search
    assert sid in shown(f"/user/ad?id={user}&ad={ad.ad_id}")
    of_ad = shown(f"/ad?id={ad.ad_id}")
    assert sid in of_ad
    assert "of the 12 lists looked at" in of_ad
    assert "12 codes" in shown("/index")
    assert "commonest category" in shown("/index")
    code = int(console.live.index.codes[0, 0])
    assert f"&lt;a_{code}&gt;" in shown(f"/index?prefix={code}")
    assert "By ARPU group" in shown("/queue")
    assert all(name in shown("/releases") for name in ("r1", "r2", "r3"))


def test_an_ad_names_the_users_whose_lists_hold_it_with_their_places(console: Console) -> None:
    user = console.live.user_ids[0]
    _, of_user = console.get(f"/user?id={user}")
    first = re.search(r'href="/ad\?id=(\d+)"', of_user)
    assert first
    _, of_ad = console.get(f"/ad?id={first[1]}")
    assert re.search(rf'<a href="/user\?id={user}">{user}</a></td><td class="n">1</td>', of_ad)


def test_a_paused_ad_says_so_and_why_it_is_in_no_list(console: Console) -> None:
    ad = console.live.world.ads[0]
    database = connect(console.live.settings.database_url)
    with transaction(database) as connection:
        catalog.set_live(connection, [ad.ad_id], live=False)
    database.dispose()
    assert "the ad is paused" in console.get(f"/ad?id={ad.ad_id}")[1]
    assert "the ad is paused" in console.get(f"/user/ad?id={console.live.user_ids[0]}&ad={ad.ad_id}")[1]


def test_the_queue_shows_who_waits_by_group(console: Console) -> None:
    RefreshQueue.connect(console.live.settings.redis_url).mark(console.live.user_ids[:3], groups=[7, 7, 20])
    _, text = console.get("/queue")
    rows = dict(re.findall(r'<td>(\d+)</td><td class="n">(\d+)</td><td class="draw">', text))
    assert rows["7"] == "2"
    assert rows["20"] == "1"
    assert rows["0"] == "0"


@pytest.mark.parametrize(
    ("typed", "leads_to"),
    [("<a_1, b_2", "/index?prefix=1-2"), ("a_3", "/index?prefix=3"), ("", "/")],
)
def test_the_search_field_knows_prefixes(console: Console, typed: str, leads_to: str) -> None:
    response, _ = console.get(f"/find?q={typed}")
    assert response.status == 303
    assert response.getheader("location") == leads_to


def test_the_search_field_finds_users_and_ads_and_asks_where_both_have_the_id(console: Console) -> None:
    world = console.live.world
    ads, users = {ad.ad_id for ad in world.ads}, set(console.live.user_ids)
    if only := sorted(ads - users)[:1]:
        assert console.get(f"/find?q={only[0]}")[0].getheader("location") == f"/ad?id={only[0]}"
    if both := sorted(ads & users)[:1]:
        text = console.get(f"/find?q={both[0]}")[1]
        assert f"/user?id={both[0]}" in text
        assert f"/ad?id={both[0]}" in text
    response, text = console.get("/find?q=nobody-at-all")
    assert response.status == 404
    assert "nobody-at-all" in text


def test_what_others_wrote_is_shown_as_text(console: Console) -> None:
    ad = replace(
        console.live.world.ads[0],
        ad_id=id_of("<b>x</b>"),
        source_id="<b>x</b>",
        name="<script>alert(1)</script>",
        attributes=('"><img src=x>',),
    )
    database = connect(console.live.settings.database_url)
    with transaction(database) as connection:
        catalog.upsert_ads(connection, [ad])
    database.dispose()
    response, text = console.get("/ad?id=%3Cb%3Ex%3C/b%3E")
    assert response.status == 200
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert" not in text
    assert "<img" not in text
    assert "<b>x</b>" not in text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/user?id=no-such-user", 404),
        ("/ad?id=no-such-ad", 404),
        ("/user", 400),
        ("/index?prefix=no", 400),
        ("/index?prefix=999", 400),
        ("/nothing", 404),
        ("/static/../server.py", 404),
    ],
)
def test_what_is_not_there_is_said_in_words(console: Console, path: str, status: int) -> None:
    response, text = console.get(path)
    assert response.status == status
    assert "Traceback" not in text


def test_nothing_of_a_person_is_logged(console: Console, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        user = console.live.user_ids[0]
        for path in (f"/user?id={user}", f"/user/search?id={user}", "/user?id=a-name-nobody-has"):
            console.get(path)
    said = json.dumps([str(record.__dict__) for record in caplog.records if record.name.startswith("leadre")])
    assert "a-name-nobody-has" not in said
    profile = console.live.world.profiles[0]
    assert profile.residence not in said
