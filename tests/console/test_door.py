from __future__ import annotations

import pytest

from leadre.store.records.database import connect, transaction
from leadre.store.release.records import live_release
from tests.console.conftest import Console


def _live(console: Console) -> str:
    database = connect(console.live.settings.database_url)
    with transaction(database) as connection:
        live = live_release(connection)
    database.dispose()
    assert live
    return live.release


def test_a_page_may_load_nothing_from_elsewhere_and_stays_in_no_cache(read_only: Console) -> None:
    response, text = read_only.get("/")
    policy = response.getheader("content-security-policy") or ""
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert response.getheader("cache-control") == "no-store"
    assert "style=" not in text
    assert "http://" not in text.replace("http://www.w3.org", "")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8040", "127.0.0.1.evil.example", "", "localhost@evil"])
def test_a_name_that_was_bent_to_the_loopback_is_refused(read_only: Console, host: str) -> None:
    assert read_only.get("/", {"host": host})[0].status == 421


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1", "[::1]:8040", "LOCALHOST"])
def test_the_loopback_s_names_are_let_in_on_any_port(read_only: Console, host: str) -> None:
    assert read_only.get("/", {"host": host})[0].status == 200


def test_a_console_that_may_only_look_has_no_way_to_change(read_only: Console) -> None:
    fields = {"action": "promote", "release": "r3", "live": "r2", "token": ""}
    assert read_only.post("/releases/change", fields)[0].status == 404
    assert "<form method" not in read_only.get("/releases")[1]
    assert _live(read_only) == "r2"


def test_a_confirmed_form_rolls_back_once(console: Console) -> None:
    _, asked = console.get("/releases/change?action=rollback")
    assert console.token in asked
    fields = {"action": "rollback", "live": "r2", "token": console.token}
    response, _ = console.post("/releases/change", fields)
    assert response.status == 303
    assert response.getheader("location") == "/releases?done=r1"
    assert _live(console) == "r1"
    response, said = console.post("/releases/change", fields)
    assert response.status == 409
    assert "look again" in said
    assert _live(console) == "r1"


def test_the_guard_of_promotions_holds_here_too(console: Console) -> None:
    """ "r3" was never evaluated."""
    _, asked = console.get("/releases/change?action=promote&release=r3")
    assert "The guard forbids it" in asked
    fields = {"action": "promote", "release": "r3", "live": "r2", "token": console.token}
    response, said = console.post("/releases/change", fields)
    assert response.status == 409
    assert "is not promoted over" in said
    assert _live(console) == "r2"


@pytest.mark.parametrize(
    ("token", "headers"),
    [
        ("wrong", {}),
        (None, {"origin": "http://evil.example"}),
        (None, {"origin": "null"}),
        (None, {"origin": "http://127.0.0.1:1"}),
        (None, {"origin": "http://127.0.0.1@evil.example"}),
    ],
)
def test_a_form_of_another_site_or_process_changes_nothing(
    console: Console, token: str | None, headers: dict[str, str]
) -> None:
    fields = {"action": "rollback", "live": "r2", "token": console.token if token is None else token}
    assert console.post("/releases/change", fields, headers)[0].status == 403
    assert _live(console) == "r2"
