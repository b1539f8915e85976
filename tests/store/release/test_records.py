"""Releases: at most one live, promotion guarded and reversible."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import Connection, Engine, func, insert, select
from sqlalchemy.exc import IntegrityError

from leadre.errors import ConfigError, InvalidInput, ReleaseMismatch
from leadre.store.records.database import connect, transaction
from leadre.store.records.tables import index_versions, releases, semantic_ids
from leadre.store.release.records import (
    ReleaseRow,
    list_releases,
    live_release,
    promote,
    record_index,
    record_release,
    record_sids,
    rollback,
)

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
SIDS = ["<a_0, b_1, c_0>", "<a_0, b_1, c_1>", "<a_2, b_0, c_0>", "<a_3, b_5, c_0>"]
CODES = np.array([[0, 1, 0], [0, 1, 1], [2, 0, 0], [3, 5, 0]], dtype=np.int32)
AD_IDS = np.array([11, 12, 2**62 + 13, 14])
EMBEDDINGS = np.arange(4 * 2, dtype=np.float32).reshape(4, 2) / 7
FIRST, SECOND, ADVERTISERS = ["toys", "toys", "", "tea"], ["cars", "", "", "green"], np.array([7, 0, 2**62 + 1, 7])


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = connect(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with transaction(engine) as connection:
        record_index(connection, "i1", uri="indexes/i1", recipe={"levels": 2}, quality={"collisions": 1})
        yield connection


def candidate(connection: Connection, name: str, **metrics: object) -> ReleaseRow:
    return record_release(
        connection, name, index_version="i1", uri=f"releases/{name}", recipe={"name": "tiny"}, metrics=metrics
    )


def write_sids(connection: Connection, rows: slice, *, version: str = "i1") -> int:
    return record_sids(
        connection,
        version,
        ad_ids=AD_IDS[rows],
        sids=SIDS[rows],
        codes=CODES[rows],
        embeddings=EMBEDDINGS[rows],
        first_categories=FIRST[rows],
        second_categories=SECOND[rows],
        advertiser_ids=ADVERTISERS[rows],
        event_at=NOW,
    )


def test_a_recorded_release_is_a_candidate_with_what_it_was_recorded_with(connection: Connection) -> None:
    row = candidate(connection, "r1", main={"hr@8": 0.25})
    assert (row.release, row.index_version, row.uri, row.status) == ("r1", "i1", "releases/r1", "candidate")
    assert row.recipe == {"name": "tiny"}
    assert row.metrics == {"main": {"hr@8": 0.25}}
    assert row.promoted_at is None
    assert live_release(connection) is None


def test_the_table_forbids_two_live_releases(connection: Connection) -> None:
    live = {"index_version": "i1", "uri": "", "recipe": {}, "metrics": {}, "status": "live"}
    connection.execute(insert(releases).values(release="r1", **live))
    with pytest.raises(IntegrityError, match="uq_releases_live"), connection.begin_nested():
        connection.execute(insert(releases).values(release="r2", **live))


def test_promotion_retires_the_release_before(connection: Connection) -> None:
    candidate(connection, "r1")
    candidate(connection, "r2")
    promote(connection, "r1")
    live = promote(connection, "r2")
    assert live == live_release(connection)
    assert {row.release: row.status for row in list_releases(connection)} == {"r1": "retired", "r2": "live"}
    assert promote(connection, "r2") == live


def test_promotion_and_rollback_raise_the_sequence(connection: Connection) -> None:
    candidate(connection, "r1")
    candidate(connection, "r2")
    rows = [promote(connection, "r1"), promote(connection, "r2"), rollback(connection)]
    assert [row.release for row in rows] == ["r1", "r2", "r1"]
    assert rows[0].sequence < rows[1].sequence < rows[2].sequence


def test_rollback_goes_back_step_by_step_and_says_when_there_is_nothing_left(connection: Connection) -> None:
    for name in ("r1", "r2", "r3"):
        candidate(connection, name)
        promote(connection, name)
    assert rollback(connection).release == "r2"
    assert rollback(connection).release == "r1"
    with pytest.raises(ConfigError, match="no release was live before 'r1'"):
        rollback(connection)
    assert live_release(connection).release == "r1"  # type: ignore[union-attr]


def test_without_a_live_release_there_is_no_rollback(connection: Connection) -> None:
    with pytest.raises(ConfigError, match="no release is live"):
        rollback(connection)


def test_the_guard_refuses_a_worse_release_with_its_figures(connection: Connection) -> None:
    candidate(connection, "r1", main={"hr@8": 0.5})
    candidate(connection, "r2", main={"hr@8": 0.48})
    promote(connection, "r1", guard={"main.hr@8": 0.02})
    with pytest.raises(ReleaseMismatch, match=r"main\.hr@8 is 0\.48, live has 0\.5 and at least 0\.49 is asked for"):
        promote(connection, "r2", guard={"main.hr@8": 0.02})
    assert live_release(connection).release == "r1"  # type: ignore[union-attr]
    assert promote(connection, "r2", guard={"main.hr@8": 0.05}).release == "r2"


@pytest.mark.parametrize("metrics", [{}, {"hr": None}, {"hr": "0.9"}, {"hr": {"at": 8}}])
def test_the_guard_refuses_a_release_without_the_figure(connection: Connection, metrics: dict[str, object]) -> None:
    candidate(connection, "r1", hr=0.5)
    candidate(connection, "r2", **metrics)
    promote(connection, "r1")
    with pytest.raises(ReleaseMismatch, match="hr is nan"):
        promote(connection, "r2", guard={"hr": 0.1})
    assert promote(connection, "r2", guard={"hr": 0.1}, force=True).status == "live"


def test_the_guard_allows_a_drop_of_a_negative_figure_too(connection: Connection) -> None:
    candidate(connection, "r1", log_likelihood=-2.0)
    candidate(connection, "r2", log_likelihood=-2.1)
    promote(connection, "r1")
    assert promote(connection, "r2", guard={"log_likelihood": 0.1}).release == "r2"


@pytest.mark.parametrize("drop", [-0.1, 1.0, float("nan")])
def test_an_allowed_drop_is_a_share(connection: Connection, drop: float) -> None:
    candidate(connection, "r1", hr=0.5)
    candidate(connection, "r2", hr=0.5)
    promote(connection, "r1")
    with pytest.raises(ConfigError, match="guard hr="):
        promote(connection, "r2", guard={"hr": drop})


def test_unknown_and_repeated_names_are_refused(connection: Connection) -> None:
    candidate(connection, "r1")
    with pytest.raises(ConfigError, match="'r1' already"):
        candidate(connection, "r1")
    with pytest.raises(ConfigError, match="no release 'r9'"):
        promote(connection, "r9")
    with pytest.raises(ConfigError, match="index version 'i9'"):
        record_release(connection, "r2", index_version="i9", uri="", recipe={}, metrics={})


def test_a_failed_transaction_leaves_the_live_release_alone(engine: Engine, connection: Connection) -> None:
    candidate(connection, "r1")
    candidate(connection, "r2")
    promote(connection, "r1")
    connection.commit()

    def promote_and_die() -> None:
        with transaction(engine) as other:
            promote(other, "r2")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        promote_and_die()
    with transaction(engine) as other:
        assert live_release(other).release == "r1"  # type: ignore[union-attr]


def test_promotions_at_once_come_one_after_another(engine: Engine, connection: Connection) -> None:
    names = [f"r{number}" for number in range(5)]
    for name in names:
        candidate(connection, name)
    connection.commit()

    def promote_one(name: str) -> int:
        with transaction(engine) as other:
            return promote(other, name).sequence

    with ThreadPoolExecutor(5) as promoters:
        sequences = list(promoters.map(promote_one, names))
    with transaction(engine) as other:
        live = live_release(other)
        assert live is not None
        assert live.sequence == max(sequences)
        assert [row.status for row in list_releases(other)].count("live") == 1


def test_an_index_noted_again_replaces_what_was_noted(connection: Connection) -> None:
    record_index(connection, "i1", uri="elsewhere/i1", recipe={"levels": 3}, quality={})
    row = connection.execute(select(index_versions)).one()
    assert (row.uri, row.recipe, row.quality) == ("elsewhere/i1", {"levels": 3}, {})


def test_sids_are_written_once_however_often_they_are_recorded(connection: Connection) -> None:
    assert write_sids(connection, slice(0, 3)) == 3
    assert write_sids(connection, slice(0, 3)) == 0
    assert write_sids(connection, slice(1, 4)) == 1
    rows = connection.execute(select(semantic_ids).order_by(semantic_ids.c.ad_id)).all()
    assert [(row.ad_id, row.sid, row.codes) for row in rows] == [
        (11, SIDS[0], [0, 1, 0]),
        (12, SIDS[1], [0, 1, 1]),
        (14, SIDS[3], [3, 5, 0]),
        (2**62 + 13, SIDS[2], [2, 0, 0]),
    ]
    assert np.array_equal(np.array([row.embedding for row in rows], dtype=np.float32), EMBEDDINGS[[0, 1, 3, 2]])
    assert [(row.first_category, row.second_category, row.advertiser_id) for row in rows] == [
        ("toys", "cars", 7),
        ("toys", "", 0),
        ("tea", "green", 7),
        ("", "", 2**62 + 1),
    ]
    assert {row.event_at for row in rows} == {NOW}


def test_the_sid_of_an_ad_does_not_change_within_a_version(connection: Connection) -> None:
    write_sids(connection, slice(0, 3))
    for ad_ids, sids, message in (
        ([11], [SIDS[3]], "ad 11 is <a_0, b_1, c_0>"),
        ([99], [SIDS[0]], "uq_semantic_ids_sid"),
    ):
        with pytest.raises(InvalidInput, match=message), connection.begin_nested():
            record_sids(
                connection,
                "i1",
                ad_ids=np.array(ad_ids),
                sids=sids,
                codes=CODES[3:],
                embeddings=EMBEDDINGS[3:],
                first_categories=FIRST[3:],
                second_categories=SECOND[3:],
                advertiser_ids=ADVERTISERS[3:],
                event_at=NOW,
            )
    record_index(connection, "i2", uri="", recipe={}, quality={})
    assert write_sids(connection, slice(0, 3), version="i2") == 3
    assert connection.scalar(select(func.count()).select_from(semantic_ids)) == 3 + 3


def test_sids_of_unequal_counts_are_refused(connection: Connection) -> None:
    with pytest.raises(InvalidInput, match=r"4 ads with columns of \[2, 4, 4, 4, 4, 4\]"):
        record_sids(
            connection,
            "i1",
            ad_ids=AD_IDS,
            sids=SIDS[:2],
            codes=CODES,
            embeddings=EMBEDDINGS,
            first_categories=FIRST,
            second_categories=SECOND,
            advertiser_ids=ADVERTISERS,
            event_at=NOW,
        )


def test_any_history_of_promotions_and_rollbacks_keeps_one_live_release(engine: Engine) -> None:
    class History(RuleBasedStateMachine):
        """The model: names in the order of their last promotion; the last one is live."""

        def __init__(self) -> None:
            super().__init__()
            self.connection = engine.connect()
            self.undo = self.connection.begin()
            record_index(self.connection, "i1", uri="", recipe={}, quality={})
            self.names: list[str] = []
            self.promoted: list[str] = []
            self.sequence = 0

        @rule(score=st.floats(0, 1))
        def train(self, score: float) -> None:
            name = f"r{len(self.names)}"
            candidate(self.connection, name, score=score)
            self.names.append(name)

        @precondition(lambda self: self.names)
        @rule(data=st.data())
        def promote(self, data: st.DataObject) -> None:
            name = data.draw(st.sampled_from(self.names))
            promote(self.connection, name)
            if name in self.promoted:
                self.promoted.remove(name)
            self.promoted.append(name)

        @precondition(lambda self: len(self.promoted) > 1)
        @rule()
        def rollback(self) -> None:
            self.promoted.pop()
            assert rollback(self.connection).release == self.promoted[-1]

        @precondition(lambda self: len(self.promoted) < 2)
        @rule()
        def refuse_rollback(self) -> None:
            with pytest.raises(ConfigError):
                rollback(self.connection)

        @invariant()
        def the_live_one_is_the_last_promoted_and_has_the_largest_sequence_of_all_that_were(self) -> None:
            rows = list_releases(self.connection)
            live = [row for row in rows if row.status == "live"]
            assert [row.release for row in live] == self.promoted[-1:]
            assert len(rows) == len(self.names)
            for row in live:
                assert row.sequence >= self.sequence
                self.sequence = row.sequence

        def teardown(self) -> None:
            self.undo.rollback()
            self.connection.close()

    run_state_machine_as_test(
        History, settings=hypothesis_settings(max_examples=25, stateful_step_count=15, deadline=None)
    )
