"""Lists on their way out: one unit of work, harmless to repeat, read back equal from the log and from Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select, text

from leadre.derivation import pack
from leadre.derivation.user_side import derive
from leadre.domain.ads import Ad
from leadre.domain.behavior import Impression
from leadre.domain.retrieval import Beam, RetrievalList
from leadre.errors import InvalidInput, ReleaseMismatch, UnknownAd
from leadre.indexing.ad_index import AdIndex
from leadre.settings import Settings
from leadre.store.features import retrieval_log
from leadre.store.features.layout import bytes_value, field, user_keys
from leadre.store.features.list_reader import read_lists
from leadre.store.features.list_writer import ECPM_AGE, ListWriter, derive_lists
from leadre.store.records.catalog import upsert_ads
from leadre.store.records.database import connect, transaction
from leadre.store.records.ecpm import EXPECTED_CLICK_RATE
from leadre.store.records.events import stale_page, upsert_impressions
from leadre.store.records.tables import retrieval_log as table
from leadre.store.records.tables import user_state

MakeList = Callable[..., RetrievalList]
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)


@pytest.fixture
def database(settings: Settings) -> Iterator[Engine]:
    engine = connect(settings.database_url)
    try:
        yield engine
    finally:
        engine.dispose()


@pytest.fixture
def online(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def writer(database: Engine, online: redis.Redis) -> ListWriter:
    return ListWriter(database=database, online=online, project="leadre", ttl_s=100)


@pytest.fixture
def write(writer: ListWriter, index: AdIndex) -> Callable[..., Any]:
    return lambda *lists: writer.write(lists, index=index)


def _online_ads(online: redis.Redis, *user_ids: int) -> list[tuple[int, ...] | None]:
    return [None if row is None else row.ad_ids for row in read_lists(online, user_ids, project="leadre")]


def _logged(database: Engine) -> list[tuple[int, str, datetime]]:
    with transaction(database) as connection:
        return [tuple(row) for row in connection.execute(select(table.c.user_id, table.c.release, table.c.event_at))]


def test_a_list_is_read_back_equal_from_redis_and_from_the_log(
    write: Callable[..., Any], online: redis.Redis, database: Engine, index: AdIndex, make_list: MakeList
) -> None:
    one = replace(make_list(7, 100, 104, 101), event_at=NOW - timedelta(hours=1, microseconds=3))
    empty = replace(make_list(8), event_at=None)
    written = write(one, empty)

    found, none, unknown = read_lists(online, [7, 8, 9], project="leadre")

    assert unknown is None
    assert found is not None
    assert found.ad_ids == (100, 104, 101)
    assert found.sids == tuple(str(index.sid(ad_id)) for ad_id in found.ad_ids)
    assert found.log_probabilities == (-1.0, -1.5, -2.0)
    assert (found.user_id, found.release, found.index_version) == (7, "release-1", "index-1")
    assert (found.generated_at, found.behavior_at) == (NOW, one.event_at)
    assert none is not None
    assert (none.ad_ids, none.behavior_at) == ((), None)
    assert read_lists(online, [7], project="leadre") == [found]
    with transaction(database) as connection:
        logged = retrieval_log.newest(connection, [7, 8, 9])
        assert retrieval_log.newest(connection, [7], at=NOW - SECOND) == {}
    assert logged == {
        user_id: {
            "user_id": user_id,
            "event_at": NOW,
            "release": "release-1",
            "index_version": "index-1",
            "behavior_at": of_user.event_at,
            "retrieved_ad_ids": [beam.ad_id for beam in of_user.beams],
            "record": record,
        }
        for user_id, of_user, record in zip((7, 8), (one, empty), pack(written), strict=True)
    }
    stored = online.hget(user_keys(np.array([7]), "leadre")[0], field("retrieved_ads", "retrieved_list"))
    assert stored == bytes_value(pack(written)[0])


def test_writing_a_batch_again_changes_nothing(
    write: Callable[..., Any], online: redis.Redis, database: Engine, make_list: MakeList
) -> None:
    lists = [make_list(7, 100, 104), make_list(8, 101)]
    write(*lists)
    before = {key: online.hgetall(key) for key in online.scan_iter()}
    write(*lists[::-1])
    write()
    assert {key: online.hgetall(key) for key in online.scan_iter()} == before
    assert sorted(_logged(database)) == [(7, "release-1", NOW), (8, "release-1", NOW)]


def test_an_older_list_is_logged_and_never_replaces_a_newer_one(
    write: Callable[..., Any], online: redis.Redis, database: Engine, make_list: MakeList
) -> None:
    write(make_list(7, 100))
    write(make_list(7, 101, at=NOW - SECOND), make_list(8, 102))
    assert _online_ads(online, 7, 8) == [(100,), (102,)]
    assert len(_logged(database)) == 3
    with transaction(database) as connection:
        state = connection.execute(select(user_state).where(user_state.c.user_id == 7)).one()
    assert (state.listed_at, state.list_behavior_at) == (NOW, NOW - HOUR)
    write(make_list(7, 103, at=NOW + SECOND))
    assert _online_ads(online, 7) == [(103,)]


def test_lists_of_two_releases_at_one_instant_are_both_logged(
    write: Callable[..., Any], database: Engine, make_list: MakeList
) -> None:
    write(make_list(7, 100))
    write(replace(make_list(7, 101), release="release-2"))
    assert [release for _, release, _ in sorted(_logged(database))] == ["release-1", "release-2"]


def test_months_are_made_for_the_lists_of_a_batch(
    write: Callable[..., Any], database: Engine, make_list: MakeList
) -> None:
    write(*(make_list(month, 100, at=datetime(2025 + month // 12, month % 12 + 1, 1, tzinfo=UTC)) for month in (0, 13)))
    assert sorted(at for _, _, at in _logged(database)) == [
        datetime(2025, 1, 1, tzinfo=UTC),
        datetime(2026, 2, 1, tzinfo=UTC),
    ]


def test_a_written_list_ends_its_users_wait(write: Callable[..., Any], database: Engine, make_list: MakeList) -> None:
    with transaction(database) as connection:
        rows = [
            {"user_id": user, "newest_behavior_at": NOW - HOUR, "behavior_sequence": sequence}
            for user, sequence in ((7, 3), (8, 4), (9, 0))
        ]
        connection.execute(user_state.insert(), rows)
    write(*(replace(make_list(user, 100), behavior_sequence=3) for user in (7, 8)), make_list(9, 100))
    with transaction(database) as connection:
        # Its list does not know the newest behavior.
        assert [stale.user_id for stale in stale_page(connection, now=NOW, limit=9)] == [8]


def test_what_redis_missed_is_written_by_the_next_try(
    write: Callable[..., Any],
    online: redis.Redis,
    database: Engine,
    make_list: MakeList,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def silent(*_: object, **__: object) -> None:
        raise redis.ConnectionError("refused")

    with monkeypatch.context() as patched:
        patched.setattr("leadre.store.features.list_writer.set_lists", silent)
        with pytest.raises(redis.ConnectionError):
            write(make_list(7, 100))
    assert len(_logged(database)) == 1
    write(make_list(7, 100))
    assert _online_ads(online, 7) == [(100,)]


def test_what_postgresql_refuses_does_not_go_online(
    write: Callable[..., Any], online: redis.Redis, database: Engine, make_list: MakeList
) -> None:
    with pytest.raises(InvalidInput, match="NUL"):
        write(make_list(7, 100), replace(make_list(8, 100), release="r\0"))
    assert _logged(database) == []
    assert online.dbsize() == 0


def test_writers_of_the_same_users_at_once_lose_nothing(
    database: Engine, online: redis.Redis, index: AdIndex, make_list: MakeList
) -> None:
    def write_some(number: int) -> None:
        writer = ListWriter(database=database, online=online, project="leadre", ttl_s=0)
        rng = np.random.default_rng(number)
        for step in range(5):
            users = rng.permutation(30).tolist()
            writer.write([make_list(user, 100 + step, at=NOW + step * SECOND) for user in users], index=index)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write_some, range(4)))
    assert len(_logged(database)) == len(set(_logged(database))) == 30 * 5
    assert _online_ads(online, *range(30)) == [(104,)] * 30
    with transaction(database) as connection:
        assert connection.execute(select(func.min(user_state.c.listed_at))).scalar_one() == NOW + 4 * SECOND


RAGGED = st.lists(
    st.tuples(
        st.lists(st.integers(0, 2**63 - 1), max_size=4),
        st.datetimes(datetime(2026, 1, 30), datetime(2026, 3, 2), timezones=st.just(UTC)),
        st.none() | st.datetimes(datetime(1969, 1, 1), datetime(2026, 3, 2), timezones=st.just(UTC)),
        st.sampled_from(["", "r", "ü" * 40]),
    ),
    max_size=5,
)


@hypothesis_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=RAGGED)
def test_the_log_holds_what_was_copied_bit_by_bit(database: Engine, rows: list[Any]) -> None:
    counts = [len(ads) for ads, *_ in rows]
    total = sum(counts)
    lists = derive(
        counts=counts,
        ad_ids=np.array([ad for ads, *_ in rows for ad in ads], dtype=np.int64),
        log_probabilities=np.zeros(total),
        codes=np.zeros((total, 2), np.int64),
        first_categories=np.zeros(total, np.int64),
        second_categories=np.zeros(total, np.int64),
        category_names=("x",),
        advertiser_ids=np.zeros(total, np.int64),
        embeddings=np.zeros((total, 3)),
        ecpms=np.zeros(total),
        generated_at_s=np.array([at.timestamp() for _, at, _, _ in rows]),
        behavior_at_s=np.array([np.nan if at is None else at.timestamp() for _, _, at, _ in rows], dtype=np.float64),
        release=[release for *_, release in rows],
        index_version="i",
    )
    records, user_ids = pack(lists), np.arange(len(rows))
    with transaction(database) as connection:
        connection.execute(text("DELETE FROM retrieval_log"))
        assert retrieval_log.append(connection, user_ids, lists, records).written == len(rows)
        assert retrieval_log.append(connection, user_ids, lists, records).written == 0
        found = connection.execute(select(*(table.c[name] for name in retrieval_log.COLUMNS))).all()
    wanted = [
        (user_id, at, release, "i", behavior_at, ads, record)
        for user_id, ((ads, at, behavior_at, release), record) in enumerate(zip(rows, records, strict=True))
    ]
    assert sorted((*row[:-1], bytes(row[-1])) for row in found) == sorted(wanted)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"index_version": "another"}, ReleaseMismatch),
        ({"beams": (Beam(sid=None, ad_id=5, log_probability=-1.0),)}, UnknownAd),
        ({"beams": (Beam(sid=None, ad_id=100, log_probability=float("nan")),)}, InvalidInput),
    ],
)
def test_a_list_that_cannot_be_a_feature_is_refused(
    index: AdIndex, make_list: MakeList, change: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        derive_lists([replace(make_list(7), **change)], index=index, ecpm_of=np.zeros_like)  # type: ignore[arg-type]


def test_a_value_that_is_no_record_reads_as_no_list(
    write: Callable[..., Any], online: redis.Redis, make_list: MakeList
) -> None:
    write(make_list(7, 100), make_list(8, 100))
    key, name = user_keys(np.array([7]), "leadre")[0], field("retrieved_ads", "retrieved_list")
    for junk in (b"", b"junk", bytes_value(b""), bytes_value(b"junk"), online.hget(key, name)[:-1]):
        online.hset(key, name, junk)
        assert _online_ads(online, 7, 8) == [None, (100,)]


def test_a_users_features_are_one_packed_piece_of_memory(
    write: Callable[..., Any], online: redis.Redis, make_list: MakeList
) -> None:
    write(make_list(7, *range(100, 120)))
    (key,) = online.scan_iter()
    online.hset(key, mapping={f"{number:04}": b"x" * 50 for number in range(60)})
    assert online.object("encoding", key) in (b"ziplist", b"listpack")


def test_expected_ecpm_is_what_impressions_earned_or_else_the_bid_and_is_read_again_after_an_hour(
    write: Callable[..., Any], database: Engine, make_list: MakeList
) -> None:
    def expected(at: datetime, ad_id: int) -> float:
        return float(write(make_list(7, ad_id, at=at)).expected_ecpm[0])

    def show(ecpm: float) -> None:
        shown = Impression(
            user_id=1, ad_id=100, occurred_at=NOW, ecpm=ecpm, clicked=False, converted=False, simulated=False
        )
        with transaction(database) as connection:
            upsert_impressions(connection, [shown], arrived_at=NOW)

    with transaction(database) as connection:
        upsert_ads(connection, [_ad(100, bid=0.5), _ad(101, bid=2.0)])
    assert expected(NOW, 101) == pytest.approx(2000 * EXPECTED_CLICK_RATE)
    show(5.0)
    assert expected(NOW + ECPM_AGE - SECOND, 101) == pytest.approx(2000 * EXPECTED_CLICK_RATE)
    assert expected(NOW + ECPM_AGE, 100) == pytest.approx(5.0)
    assert expected(NOW + ECPM_AGE, 101) == pytest.approx(20.0)  # the bid at the click rate that 5.0 for .5 tells
    assert expected(NOW + ECPM_AGE, 102) == 0.0  # in the index, not in the catalog


def _ad(ad_id: int, *, bid: float) -> Ad:
    return Ad(
        ad_id=ad_id,
        source_id=str(ad_id),
        name=f"ad {ad_id}",
        ad_type="",
        first_category="",
        second_category="",
        attributes=(),
        advertiser_id=1,
        bid=bid,
        created_at=NOW,
    )


def test_a_few_lists_and_many_are_logged_alike(
    database: Engine, index: AdIndex, make_list: MakeList, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one goes by a statement's parameters, the other by COPY: late, early, repeated and empty lists among them."""
    users = np.array([1, 2, 3])
    found = []
    for few, first in ((16, 0), (0, 10)):
        monkeypatch.setattr(retrieval_log, "FEW", few)
        written = []
        for epoch, at, ads in (
            (2, NOW, (101, 102)),
            (1, NOW + HOUR, (103,)),
            (3, NOW - SECOND, ()),
            (3, NOW - SECOND, ()),
        ):
            lists = [replace(make_list(int(user), *ads, at=at), release_epoch=epoch) for user in users]
            derived = derive_lists(lists, index=index, ecpm_of=lambda rows: np.ones(len(rows)))
            with transaction(database) as connection:
                written.append(retrieval_log.append(connection, users + first, derived, pack(derived)))
        with transaction(database) as connection:
            columns = [column for column in table.c if column.name not in ("user_id", "created_at", "changed_in")]
            rows = connection.execute(
                select(*columns).where(table.c.user_id == first + 2).order_by(table.c.event_at)
            ).all()
        known = [{user - first: at for user, at in appended.known_us.items()} for appended in written]
        found.append(([appended.written for appended in written], known, rows))
    assert found[0] == found[1]
    assert found[0][0] == [3, 0, 3, 0] or found[0][0][:3] == [3, 0, 3]
