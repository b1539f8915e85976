"""The whole report of a live release, gathered from real servers, read by a browser at two widths, light and dark."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from leadre.cli.report import make_report
from leadre.errors import ConfigError
from leadre.pipelines.refresh import refresh_users
from leadre.pipelines.results import keep_result
from leadre.report import Report, write_report
from leadre.report.gather import gather
from leadre.settings import Settings
from leadre.store.records import catalog
from leadre.store.records.database import connect, transaction
from leadre.store.release import records as releases
from tests.browser import THEMES, WIDTHS, opened
from tests.live_world import LiveWorld, add_release, make_live_world
from tests.report.conftest import NOW, evaluation, section
from tests.report.test_llm_alone import an_answer
from tests.report.test_paper import an_experiment
from tests.report.test_simulation import a_simulation

EVIL = "</title><script>document.title='owned'</script><img src=//evil.example/x onerror=alert(1)> \"'&"


@pytest.fixture
def live(applied: Settings) -> LiveWorld:
    """Two releases, one after the other, each with lists; ads with names that would like to run."""
    made = make_live_world(applied)
    refresh_users(applied, made.user_ids, now=made.world.now)
    database = connect(applied.database_url)
    with transaction(database) as connection:
        catalog.upsert_ads(connection, [replace(ad, name=f"{ad.name} {EVIL}") for ad in made.world.ads])
        add_release(connection, applied, world=made.world, index=made.index, name="r2", seed=6)
        releases.promote(connection, "r2")
    database.dispose()
    refresh_users(applied, made.user_ids, now=made.world.now)
    return made


def everything(report: Report) -> Report:
    """The report with figures of what a test does not run."""
    curves = [
        {"stage": stage, "step": at, "loss": 3.0 / at, "hr_10": 0.01 * at if stage == "main" else None}
        for stage in ("explicit", "main")
        for at in (1, 2, 3)
    ]
    before = replace(report.comparison, evaluation=evaluation(mean=0.2)) if report.comparison else None
    return replace(report, evaluation=evaluation(), curves=curves, comparison=before)


def test_a_live_release_is_gathered_whole_and_a_browser_reads_it_everywhere(
    chromium, live: LiveWorld, applied: Settings, tmp_path: Path
) -> None:
    keep_result(applied.home, "llm-alone", an_answer().to_json(), command="leadre experiment llm-alone", now=NOW)
    keep_result(applied.home, "table1", an_experiment().to_json(), command="leadre experiment table1", now=NOW)
    (applied.home / "simulation").mkdir()
    (applied.home / "simulation/result.json").write_text(json.dumps(a_simulation()))
    (tmp_path / "bench_x.json").write_text('{"ratio": 1.5}')
    found = gather(applied, benchmarks=tmp_path, now=live.world.now)
    assert (found.release, found.live) == ("r2", True)
    assert {"postgres", "redis", "queue", "release", "workers"} <= {finding.check for finding in found.health}
    assert found.queue is not None
    assert found.trace is not None
    assert found.trace.explanation is not None
    assert found.comparison is not None
    assert (found.comparison.against, found.comparison.users) == ("r1", len(live.user_ids))
    assert found.comparison.drift is not None
    assert found.comparison.drift.same
    assert 0 <= found.comparison.overlap[8] <= 1
    write_report(everything(found), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page
    best = found.trace.explanation.levels[-1].kept[0]
    assert f"{best.sid}:".replace("<", "&lt;").replace(">", "&gt;") in section(page, "story")
    for width in WIDTHS:
        for theme in THEMES:
            with opened(chromium, (tmp_path / "report.html").as_uri(), width=width, theme=theme) as view:
                assert view.page.title() == "LEADRE report: r2"
                assert (view.asked, view.complained) == ([], [])
                assert view.overflow == 0
                view.page.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
                assert view.overflow == 0
                assert view.faults() == []
                drawn = view.page.locator("svg.tree").is_visible()
                assert (drawn, view.page.locator(".outline").first.is_visible()) == (width > 860, width <= 860)
                view.page.keyboard.press("Tab")
                assert view.page.evaluate("document.activeElement.className") == "skip"


def test_a_release_that_is_not_live_has_a_report_too(live: LiveWorld, applied: Settings) -> None:
    path = make_report(applied, "r1", user=None, now=live.world.now)
    page = path.read_text()
    assert "not the live release" in page
    assert "Only the live release writes lists" in section(page, "story")
    assert "No release was live before this one" in section(page, "comparison")
    with pytest.raises(ConfigError, match="there is no release 'r9'; `leadre release list`"):
        make_report(applied, "r9", user=None, now=live.world.now)
    with pytest.raises(ConfigError, match="is no folder"):
        gather(applied, benchmarks=path, now=live.world.now)
