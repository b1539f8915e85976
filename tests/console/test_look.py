from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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
        for width, theme in zip(WIDTHS, THEMES if at % 2 else THEMES[::-1], strict=True):
            with opened(chromium, console.url + path, width=width, theme=theme) as view:
                assert view.overflow <= 0, (path, width)
                assert view.faults() == [], (path, theme)
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
        assert page.url.endswith("#main")
        page.get_by_role("link", name="Roll back to r1").click()
        page.get_by_role("button", name="Roll back to r1").click()
        page.get_by_text("r1 is live.").wait_for()


@pytest.mark.parametrize("path", ["/", "/user?id={user}", "/user/search?id={user}"])
def test_pages_work_without_javascript(console: Console, chromium: Browser, path: str) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(console.url + path.format(user=console.live.user_ids[0]))
    page.fill("#q", str(console.live.index.sid_at(0)))
    page.get_by_role("search").get_by_role("button").click()
    page.wait_for_url("**/index?prefix=*")
    context.close()
