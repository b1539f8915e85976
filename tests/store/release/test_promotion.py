"""The guard of every promotion: which figures count, and what becomes of a release that falls short."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from leadre.errors import ConfigError, ReleaseMismatch
from leadre.store.records.database import connect, transaction
from leadre.store.release.promotion import promote_guarded
from leadre.store.release.records import list_releases, record_index, record_release, rollback


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    engine = connect(database_url)
    with transaction(engine) as connection:
        record_index(connection, "i1", uri="", recipe={}, quality={})
    yield engine
    engine.dispose()


def figures(*, hit_ratio: float = 0.5, ecpm: float = 40.0, diversity: float = 0.3) -> dict[str, Any]:
    """An evaluation's plain form, as far as the guard reads it. HR@1 is always bad: the largest cutoff counts."""
    hits = {"HR@1": {"mean": hit_ratio / 1e3}, "HR@8": {"mean": hit_ratio}}
    return {
        "cutoffs": [1, 8],
        "metrics": {"leadre": {"canonical": hits}},
        "lists": {"leadre": {"mean_ecpm": ecpm, "diversity": diversity}},
    }


def add(database: Engine, name: str, metrics: dict[str, Any]) -> None:
    with transaction(database) as connection:
        record_release(connection, name, index_version="i1", uri="", recipe={}, metrics=metrics)


def statuses(database: Engine) -> dict[str, str]:
    with transaction(database) as connection:
        return {row.release: row.status for row in list_releases(connection)}


def test_a_release_that_is_worse_by_what_is_allowed_goes_live_and_the_former_comes_back_by_rollback(
    database: Engine,
) -> None:
    add(database, "monday", figures())
    add(database, "tuesday", figures(hit_ratio=0.476, ecpm=36.1, diversity=0.271))
    promote_guarded(database, "monday")
    assert promote_guarded(database, "tuesday").status == "live"
    with transaction(database) as connection:
        rollback(connection)
    assert statuses(database) == {"monday": "live", "tuesday": "retired"}


@pytest.mark.parametrize(
    ("worse", "named"),
    [({"hit_ratio": 0.474}, "HR@8"), ({"ecpm": 35.9}, "mean_ecpm"), ({"diversity": 0.269}, "diversity")],
)
def test_one_bad_figure_keeps_a_release_back_and_the_reason_is_recorded(
    database: Engine, worse: dict[str, float], named: str
) -> None:
    add(database, "monday", figures())
    add(database, "tuesday", figures(**worse))
    promote_guarded(database, "monday")
    with pytest.raises(ReleaseMismatch, match=named) as refused:
        promote_guarded(database, "tuesday")
    assert statuses(database) == {"monday": "live", "tuesday": "candidate"}
    with transaction(database) as connection:
        metrics = next(row.metrics for row in list_releases(connection) if row.release == "tuesday")
    assert metrics == {**figures(**worse), "kept_back": str(refused.value)}
    assert promote_guarded(database, "tuesday", force=True).status == "live"


def test_the_live_release_s_figures_of_today_count_more_than_those_of_its_own_day(database: Engine) -> None:
    add(database, "monday", figures(hit_ratio=0.9))
    add(database, "tuesday", figures())
    promote_guarded(database, "monday")
    assert promote_guarded(database, "tuesday", remeasured={"monday": figures()}).status == "live"
    add(database, "wednesday", figures())
    with pytest.raises(ReleaseMismatch, match=r"live has 0\.6"):
        promote_guarded(database, "wednesday", remeasured={"tuesday": figures(hit_ratio=0.6)})


def test_a_release_that_was_never_evaluated_is_kept_back_and_an_unknown_one_is_named(database: Engine) -> None:
    add(database, "monday", figures())
    add(database, "tuesday", {})
    promote_guarded(database, "monday")
    with pytest.raises(ReleaseMismatch, match="is nan"):
        promote_guarded(database, "tuesday")
    with pytest.raises(ConfigError, match="no release 'friday'"):
        promote_guarded(database, "friday")
