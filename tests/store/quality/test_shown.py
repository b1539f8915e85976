"""Impressions with what counted when each was made: never a later list, an older than its ttl, an unknown ad."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from sqlalchemy import Connection, text

from leadre.derivation.list_record import pack, unpack
from leadre.derivation.user_side import derive
from leadre.store.features import retrieval_log
from leadre.store.quality.shown import shown, target_facts
from leadre.store.release.records import record_index, record_release, record_sids

NOW = datetime(2026, 3, 2, tzinfo=UTC)
HOUR, TTL = timedelta(hours=1), timedelta(days=7)


def put_lists(connection: Connection, user_ids: list[int], times: list[datetime]) -> None:
    """Write lists of two ads each."""
    count = len(user_ids)
    lists = derive(
        counts=[2] * count,
        ad_ids=[7, 8] * count,
        log_probabilities=[-1, -2] * count,
        codes=np.zeros((2 * count, 2), int),
        first_categories=[0] * 2 * count,
        second_categories=[0] * 2 * count,
        category_names=("",),
        advertiser_ids=[1] * 2 * count,
        embeddings=np.ones((2 * count, 2)),
        ecpms=[1.0] * 2 * count,
        generated_at_s=[time.timestamp() for time in times],
        behavior_at_s=float("nan"),
        release="r1",
        index_version="i1",
    )
    retrieval_log.append(connection, np.array(user_ids), lists, pack(lists))


def test_the_list_of_an_impression_is_the_newest_that_counted_when_it_was_made(connection: Connection) -> None:
    rng = np.random.default_rng(8)

    def some(count: int, *, users: int, days: int) -> list[tuple[int, datetime]]:
        drawn = rng.integers([1, 0], [users, days * 24 * 60], (count, 2)).tolist()
        return [(user, NOW - timedelta(minutes=minutes)) for user, minutes in drawn]

    lists = sorted(set(some(60, users=9, days=12)))  # over the end of a month, and ttl
    put_lists(connection, [user for user, _ in lists], [time for _, time in lists])
    seen = some(400, users=10, days=10)
    seen += lists  # at the very instant
    connection.execute(
        text("INSERT INTO impressions (impression_id, user_id, ad_id, occurred_at, ecpm) VALUES (:i, :u, :i, :at, 1)"),
        [{"i": i, "u": int(user), "at": at} for i, (user, at) in enumerate(seen)],
    )
    after, until = NOW - timedelta(days=5), NOW
    found = shown(connection, np.arange(1, 10), after=after, until=until, ttl=TTL)
    generated = unpack(found["retrieved_list"]).generated_at_s
    within = {i for i, (_, at) in enumerate(seen) if after < at <= until}
    assert set(found["ad_id"]) == within
    for ad_id, at_s, generated_s in zip(found["ad_id"], found["request_time_s"], generated, strict=True):
        user, at = seen[ad_id]
        assert at_s == at.timestamp()
        counted = [time.timestamp() for of, time in lists if of == user and at - TTL <= time <= at]
        assert generated_s == max(counted, default=0.0)
    assert (generated == 0).any()


def test_one_user_does_not_fill_the_sample(connection: Connection) -> None:
    connection.execute(
        text(
            "INSERT INTO impressions (impression_id, user_id, ad_id, occurred_at, ecpm) "
            "SELECT i, 1, i, :now - i * interval '1 minute', 1 FROM generate_series(1, 90) i"
        ),
        {"now": NOW},
    )
    found = shown(connection, np.array([1, 2]), after=NOW - 2 * HOUR, until=NOW, ttl=TTL)
    assert sorted(found["ad_id"]) == list(range(1, 51))  # the newest fifty
    assert set(found["retrieved_list"]) == {None}
    nothing = shown(connection, np.array([], np.int64), after=NOW - HOUR, until=NOW, ttl=TTL)
    assert set(map(len, nothing.values())) == {0}


def test_facts_are_those_of_the_index_that_was_live_and_not_of_ads_it_did_not_know_yet(
    connection: Connection,
) -> None:
    for number, (version, levels) in enumerate({"i1": 3, "i2": 2}.items()):
        record_index(connection, version, uri="", recipe={}, quality={})
        record_sids(
            connection,
            version,
            ad_ids=np.array([1, 2]),
            sids=[f"<{version} {ad}>" for ad in (1, 2)],
            codes=np.arange(2 * levels).reshape(2, levels),
            embeddings=np.eye(2, levels, dtype=np.float32),
            first_categories=["toys", ""],
            second_categories=["", ""],
            advertiser_ids=np.zeros(2, np.int64),
            event_at=NOW - 9 * HOUR,
        )
        record_release(connection, f"r{number}", index_version=version, uri="", recipe={}, metrics={})
        promoted = {"at": NOW - (6 - 3 * number) * HOUR, "release": f"r{number}"}
        connection.execute(text("UPDATE releases SET promoted_at = :at WHERE release = :release"), promoted)
    connection.execute(text("UPDATE semantic_ids SET event_at = :at WHERE ad_id = 2"), {"at": NOW - 2 * HOUR})

    times = [NOW.timestamp() - 3600 * hours for hours in (7, 5, 3, 1, 1, 1, 3)]
    facts = target_facts(connection, [1, 1, 1, 1, 2, 3, 2], times)
    # Nothing was live; either index; an ad of none; and one whose S-ID came an hour after it was shown.
    assert facts["ad_index_version"] == [None, "i1", "i2", "i2", "i2", None, None]
    assert facts["sid"] == [None, "<i1 1>", "<i2 1>", "<i2 1>", "<i2 2>", None, None]
    assert facts["indexed_first_category"][:5] == [None, "toys", "toys", "toys", ""]
    assert facts["embedding"][4] == [0, 1]
    assert set(map(len, target_facts(connection, [], []).values())) == {0}
