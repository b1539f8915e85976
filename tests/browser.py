"""A headless Chromium for tests of pages: what a page asks of the network, whether it overflows, what axe-core finds.

Tests skip where no Chromium is found. The fixture lives as long as a module's tests: Playwright leaves an event loop
running in its thread, and `asyncio.run` in another module's tests would fail.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDTHS = (1280, 390)
"""A laptop's and a phone's, in CSS pixels."""
THEMES = ("light", "dark")
_PATIENCE_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A page that is open.

    Args:
        page: Playwright's.
        asked: URLs that it asked for, the page itself left out.
        complained: errors on its console.
    """

    page: Page
    asked: list[str]
    complained: list[str]

    @property
    def overflow(self) -> int:
        """How many pixels the page is wider than its window: more than 0 scrolls sideways."""
        wider: int = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return wider

    def faults(self) -> list[str]:
        """Return what axe-core calls serious or critical, with the first places where it is."""
        from axe_playwright_python.sync_playwright import Axe

        found: list[dict[str, Any]] = Axe().run(self.page).response["violations"]
        return [
            f"{fault['id']} ({fault['impact']}): {[node['html'][:160] for node in fault['nodes'][:3]]}"
            for fault in found
            if fault["impact"] in ("serious", "critical")
        ]

    def shoot(self, path: Path) -> None:
        """Write a picture of the whole page."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path, full_page=True)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The system's Chromium, without a window."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium on this machine")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, timeout=_PATIENCE_MS)
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Browser, url: str, *, width: int = WIDTHS[0], theme: str = THEMES[0], height: int = 900
) -> Iterator[View]:
    """Open a page in a window of its own, in a theme, with motion switched off.

    Args:
        browser: the fixture `chromium`.
        url: of a file or a server.
        width, height: of the window, in CSS pixels.
        theme: "light" or "dark", what the page is told to prefer.
    """
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, reduced_motion="reduce"
    )
    try:
        context.set_default_timeout(_PATIENCE_MS)
        page = context.new_page()
        view = View(page=page, asked=[], complained=[])
        page.on("request", lambda request: view.asked.append(request.url))
        page.on("console", lambda said: view.complained.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: view.complained.append(str(error)))
        page.goto(url)
        view.asked.remove(page.url)
        yield view
    finally:
        context.close()
