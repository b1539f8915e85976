from __future__ import annotations

from typing import TYPE_CHECKING

from tests.browser import THEMES, WIDTHS, chromium, opened
from tests.console.conftest import Console

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["chromium"]


def test_pages_fit_are_accessible_and_ask_nobody_else(console: Console, chromium: Browser) -> None:
    user, ad = console.live.user_ids[0], console.live.world.ads[3].ad_id
    paths = [
        "/",
        f"/user?id={user}",
        f"/user/search?id={user}",
        f"/user/ad?id={user}&ad={ad}",
        f"/ad?id={ad}",
        "/index",
        "/queue",
        "/releases",
        "/releases/change?action=rollback",
        "/user?id=nobody",
    ]
    for at, path in enumerate(paths):
        first, then = WIDTHS if at % 2 else WIDTHS[::-1]
        with opened(chromium, console.url + path, width=first, theme=THEMES[at // 2 % 2]) as view:
            assert view.faults() == [], (path, first)
            assert view.overflow <= 0, (path, first)
            view.page.set_viewport_size({"width": then, "height": 900})
            assert view.overflow <= 0, (path, then)
            assert all(url.startswith(console.url) for url in view.asked)
            assert [said for said in view.complained if "404" not in said] == []


def test_the_keyboard_reaches_search_page_and_rollback(console: Console, chromium: Browser) -> None:
    with opened(chromium, console.url + "/releases") as view:
        page = view.page
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.id") == "q"
        page.keyboard.type("a_1/")
        assert page.input_value("#q") == "a_1/"
        page.keyboard.press("Escape")
        page.goto(console.url + "/releases")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        page.wait_for_url("**/releases#main")
        page.get_by_role("link", name="Roll back to r1").click()
        page.get_by_role("button", name="Roll back to r1").click()
        page.get_by_text("r1 is live.").wait_for()


def test_pages_work_without_javascript(console: Console, chromium: Browser) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{console.url}/user/search?id={console.live.user_ids[0]}")
    assert page.locator("svg.tree").is_visible()
    page.fill("#q", str(console.live.index.sid_at(0)))
    page.get_by_role("search").get_by_role("button").click()
    page.wait_for_url("**/index?prefix=*")
    context.close()
