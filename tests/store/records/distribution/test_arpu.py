from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from sqlalchemy import Connection, select, text

from leadre.domain.users import Profile
from leadre.pipelines.distribution.regroup import regroup, regroup_if_due
from leadre.retrieval.priority import GROUPS, arpu_groups
from leadre.store.records.catalog import upsert_users
from leadre.store.records.distribution import arpu
from leadre.store.records.tables import users

NOW = datetime(2025, 6, 1, tzinfo=UTC)


def earn(connection: Connection, arpus: np.ndarray) -> None:
    rows = [Profile(user_id=number, arpu=float(value)) for number, value in enumerate(arpus)]
    upsert_users(connection, rows, event_at=NOW)


def groups_of(connection: Connection) -> list[int]:
    return list(connection.scalars(select(users.c.arpu_group).order_by(users.c.user_id)))


@pytest.mark.parametrize("margin", [0.0, 0.3, 1.5])
def test_the_statement_groups_as_the_arrays_do(connection: Connection, margin: float) -> None:
    rng = np.random.default_rng(5)
    first = np.round(rng.lognormal(0, 1, 130), 1)
    earn(connection, first)
    assert arpu.group_by_arpu(connection, margin=margin) == 130
    before = arpu_groups(first)
    assert groups_of(connection) == before.tolist()
    then = np.round(first * rng.lognormal(0, 0.4, 130), 1)
    earn(connection, then)
    expected = arpu_groups(then, before=before, margin=margin)
    assert arpu.group_by_arpu(connection, margin=margin) == int((expected != before).sum())
    assert groups_of(connection) == expected.tolist()
    assert arpu.group_by_arpu(connection, margin=margin) == 0


def test_groups_are_made_once_a_day_and_for_new_users_at_once(connection: Connection) -> None:
    earn(connection, np.arange(50.0))
    assert regroup_if_due(connection, now=NOW) == 50
    assert [group.users for group in arpu.read_groups(connection)] == [2] * GROUPS
    earn(connection, np.arange(50.0)[::-1])
    assert regroup_if_due(connection, now=NOW + timedelta(hours=5)) == 0
    upsert_users(connection, [Profile(user_id=50, arpu=99.0)], event_at=NOW)
    assert regroup_if_due(connection, now=NOW + timedelta(hours=6)) > 0
    assert groups_of(connection)[50] == 24
    earn(connection, np.arange(50.0))
    assert regroup_if_due(connection, now=NOW + timedelta(hours=30)) > 0
    assert arpu.grouped_at(connection) == NOW + timedelta(hours=30)


def test_a_groups_value_follows_its_mean_smoothly(connection: Connection) -> None:
    assert arpu.grouped_at(connection) is None
    earn(connection, np.full(25, 4.0))
    regroup(connection, now=NOW)
    assert [group.value for group in arpu.read_groups(connection)] == [4.0] * GROUPS
    earn(connection, np.full(25, 8.0))
    regroup(connection, now=NOW, smoothing=0.25)
    group, *_ = arpu.read_groups(connection)
    assert (group.users, group.mean_arpu, group.value) == (25, 8.0, 5.0)


def test_stale_users_are_counted_by_group(connection: Connection) -> None:
    earn(connection, np.arange(50.0))
    regroup(connection, now=NOW)
    connection.execute(
        text(
            "INSERT INTO user_state (user_id, newest_behavior_at, behavior_sequence, listed_sequence) "
            "VALUES (49, :now, 3, 2), (48, :now, 1, 0), (47, :now, 1, 1), (0, :later, 1, 0), (777, :now, 1, 0)"
        ),
        {"now": NOW, "later": NOW + timedelta(hours=1)},
    )
    assert arpu.stale_by_group(connection, now=NOW) == {24: 2, 0: 1}
