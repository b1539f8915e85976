"""The helper of page tests sees what it is there for: a request, a complaint, a page too wide, a serious fault."""

from __future__ import annotations

from pathlib import Path

from tests.browser import opened


def test_a_poor_page_is_noticed_and_a_good_one_is_not(chromium, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        "<!doctype html><html lang='en'><title>Poor</title><main><h1>Poor</h1><img src='missing.png' alt='a'>"
        "<p style='color:#ccc;background:#fff'>pale</p><p style='width:2000px'>wide</p></main>"
    )
    with opened(chromium, page.as_uri()) as view:
        assert [url.rpartition("/")[2] for url in view.asked] == ["missing.png"]
        assert view.complained
        assert view.overflow > 0
        assert [fault.split()[0] for fault in view.faults()] == ["color-contrast"]
    page.write_text("<!doctype html><html lang='en'><title>Good</title><main><h1>Good</h1></main>")
    with opened(chromium, page.as_uri(), width=390, theme="dark") as view:
        assert (view.asked, view.complained, view.overflow, view.faults()) == ([], [], 0, [])
        assert view.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
