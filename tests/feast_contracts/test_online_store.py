"""What Feast asks of an online store, after the cases of its own universal tests, as far as Redis is asked.

Every case runs against each store of `STORES`: Feast's own, and any subclass of it that is to take its place.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import redis
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, PushSource, RequestSource, ValueType
from feast.errors import FeatureNameCollisionError, FeatureViewNotFoundException
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, String, UnixTimestamp

from tests.feast_contracts.conftest import MakeStore
from tests.feast_contracts.tiny import HOUR, NOON, SCORE, frame, joined, online, source, view

STORES = {
    "feast": "redis",
    "ours": "leadre.store.features.online_store.LeadreRedisOnlineStore",
}
"""Types as feature_store.yaml names them."""

# feast 0.67 (2026-11): says so of every on-demand view.
pytestmark = pytest.mark.filterwarnings("ignore:On demand feature view is an experimental feature:RuntimeWarning")

ROWS = {"user_id": [1, 2, 3], "score": [0.5, 0.25, 0.125], "at": [NOON, NOON + HOUR, NOON + 2 * HOUR]}


@pytest.fixture(params=STORES)
def make(request: pytest.FixtureRequest, redis_store: MakeStore) -> MakeStore:
    """Makes stores of the class under test."""
    kind = STORES[request.param]

    def of_this_class(*objects: Any, **online: Any) -> FeatureStore:
        return redis_store(*objects, **{"type": kind, **online})

    return of_this_class


def written(make: MakeStore, folder: Path, **online: Any) -> FeatureStore:
    """Return a store of one view with three users."""
    tiny = make(view(source(folder, ROWS)), **online)
    tiny.write_to_online_store("facts", frame(ROWS))
    return tiny


def write(tiny: FeatureStore, user: int, score: float, at: datetime, *, name: str = "facts") -> None:
    tiny.write_to_online_store(name, frame({"user_id": [user], "score": [score], "at": [at]}))


def test_what_is_written_is_read_in_the_order_asked_for_repeated_and_unknown_users_included(
    make: MakeStore, tmp_path: Path
) -> None:
    tiny = written(make, tmp_path)
    assert online(tiny, "facts:score", 3, 1, 9, 2, 1, 3) == [0.125, 0.5, None, 0.25, 0.5, 0.125]


def test_an_older_row_never_replaces_a_newer_one_and_a_newer_one_always_does(make: MakeStore, tmp_path: Path) -> None:
    tiny = written(make, tmp_path)
    write(tiny, 2, 9.0, NOON)
    assert online(tiny, "facts:score", 2) == [0.25]
    write(tiny, 2, 9.0, NOON + 3 * HOUR)
    assert online(tiny, "facts:score", 2) == [9.0]


def test_a_materialization_obeys_the_times_as_a_write_does(make: MakeStore, tmp_path: Path) -> None:
    tiny = make(view(source(tmp_path, ROWS)))
    write(tiny, 1, 9.0, NOON + HOUR)
    write(tiny, 2, 9.0, NOON)
    tiny.materialize(NOON - HOUR, NOON + 3 * HOUR)
    assert online(tiny, "facts:score", 1, 2, 3) == [9.0, 0.25, 0.125]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)], ids=str)
def test_of_rows_of_one_user_in_one_batch_the_newest_wins(
    make: MakeStore, tmp_path: Path, order: tuple[int, ...]
) -> None:
    tiny = make(view(source(tmp_path, ROWS)))
    rows = {"user_id": [1] * 3, "score": [float(n) for n in order], "at": [NOON + n * HOUR for n in order]}
    tiny.write_to_online_store("facts", frame(rows))
    assert online(tiny, "facts:score", 1) == [2.0]


def test_event_times_come_back(make: MakeStore, tmp_path: Path) -> None:
    tiny = written(make, tmp_path)
    answer = tiny.get_online_features(["facts:score"], [{"user_id": user} for user in (1, 2, 9)])
    times = answer.to_df(include_event_timestamps=True)["score__ts"].tolist()
    assert times == [NOON.timestamp(), (NOON + HOUR).timestamp(), 0]


def test_views_of_one_entity_keep_their_own_times(make: MakeStore, tmp_path: Path) -> None:
    of = source(tmp_path, ROWS)
    tiny = make(view(of), view(of, name="more"))
    write(tiny, 1, 1.0, NOON + 5 * HOUR)
    write(tiny, 1, 2.0, NOON, name="more")
    assert (online(tiny, "facts:score", 1), online(tiny, "more:score", 1)) == ([1.0], [2.0])


def test_every_type_comes_back_as_it_was_written(make: MakeStore, tmp_path: Path) -> None:
    at = datetime(2025, 6, 1, 12, tzinfo=UTC)
    values: dict[str, tuple[Any, Any]] = {
        "int32": (Int32, -7),
        "int64": (Int64, 2**62),
        "float32": (Float32, 0.5),
        "float64": (Float64, 0.1),
        "string": (String, "Zürich ^_^"),
        "bool": (Bool, False),
        "bytes": (Bytes, bytes(range(256))),
        "time": (UnixTimestamp, at),
    }
    lists = {f"{name}s": (Array(dtype), [value, value]) for name, (dtype, value) in values.items()}
    empty = {f"{name}_none": (Array(dtype), []) for name, (dtype, _) in values.items()}
    all_of_them = {**values, **lists, **empty}
    features = [Field(name=name, dtype=dtype) for name, (dtype, _) in all_of_them.items()]
    row = {"user_id": [1], **{name: [value] for name, (_, value) in all_of_them.items()}, "at": [NOON]}
    tiny = make(view(source(tmp_path, ROWS), *features))
    tiny.write_to_online_store("facts", frame(row))
    answer = tiny.get_online_features([f"facts:{name}" for name in all_of_them], [{"user_id": 1}]).to_dict()
    assert {name: answer[name][0] for name in all_of_them} == {name: value for name, (_, value) in all_of_them.items()}
    assert {name: type(answer[name][0]) for name in values} == {
        name: type(value) for name, (_, value) in values.items()
    }


def test_a_missing_value_is_none_beside_those_that_are_there(make: MakeStore, tmp_path: Path) -> None:
    tiny = make(view(source(tmp_path, ROWS), SCORE, Field(name="name", dtype=String)))
    rows = {"user_id": [1, 2], "score": [0.5, None], "name": [None, "two"], "at": [NOON, NOON]}
    tiny.write_to_online_store("facts", frame(rows))
    assert online(tiny, "facts:score", 1, 2) == [0.5, None]
    assert online(tiny, "facts:name", 1, 2) == [None, "two"]


def test_keys_of_several_columns_and_of_texts(make: MakeStore, tmp_path: Path) -> None:
    place = Entity(name="place", join_keys=["place_name"], value_type=ValueType.STRING)
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    rows = {"user_id": [1, 1], "place_name": ["Genève", ""], "score": [0.5, 0.25], "at": [NOON, NOON]}
    of_both = FeatureView(name="visits", entities=[user, place], schema=[SCORE], source=source(tmp_path, rows))
    tiny = make(place, of_both)
    tiny.write_to_online_store("visits", frame(rows))
    asked = [{"user_id": 1, "place_name": name} for name in ("", "Genève", "Bern")]
    assert tiny.get_online_features(["visits:score"], asked).to_dict()["score"] == [0.25, 0.5, None]


def test_a_view_without_an_entity_is_the_same_for_everyone(make: MakeStore, tmp_path: Path) -> None:
    total = Field(name="total", dtype=Float64)
    world = source(tmp_path, {"total": [0.5], "at": [NOON]}, name="world")
    tiny = make(view(source(tmp_path, ROWS)), FeatureView(name="world", entities=[], schema=[total], source=world))
    tiny.materialize(NOON - HOUR, NOON + HOUR)
    asked = [{"user_id": user} for user in (1, 9)]
    answer = tiny.get_online_features(["world:total", "facts:score"], asked).to_dict()
    assert answer == {"user_id": [1, 9], "total": [0.5, 0.5], "score": [0.5, None]}


def test_a_service_with_a_view_by_another_name_and_another_key(make: MakeStore, tmp_path: Path) -> None:
    facts = view(source(tmp_path, ROWS))
    sender, receiver = (
        facts.with_name(name).with_join_key_map({"user_id": f"{name}_id"}) for name in ("sender", "receiver")
    )
    tiny = make(facts, FeatureService(name="letters", features=[sender, receiver]))
    tiny.write_to_online_store("facts", frame(ROWS))
    letters, asked = tiny.get_feature_service("letters"), [{"sender_id": 1, "receiver_id": 2}]
    answer = tiny.get_online_features(letters, asked, full_feature_names=True).to_dict()
    assert (answer["sender__score"], answer["receiver__score"]) == ([0.5], [0.25])
    with pytest.raises(FeatureNameCollisionError):
        tiny.get_online_features(letters, asked)


def test_an_on_demand_view_derives_from_stored_features_and_the_request(make: MakeStore, tmp_path: Path) -> None:
    facts = view(source(tmp_path, ROWS))
    request = RequestSource(name="asked", schema=[Field(name="factor", dtype=Float64)])

    def scaled(inputs):
        pairs = zip(inputs["score"], inputs["factor"], strict=True)
        return {"scaled": [-1.0 if score is None else score * factor for score, factor in pairs]}

    derived = on_demand_feature_view(
        sources=[facts, request], schema=[Field(name="scaled", dtype=Float64)], mode="python"
    )(scaled)
    tiny = make(facts, derived, FeatureService(name="all", features=[facts, derived]))
    tiny.write_to_online_store("facts", frame(ROWS))
    asked = [{"user_id": user, "factor": 3.0} for user in (1, 2, 9)]
    answer = tiny.get_online_features(tiny.get_feature_service("all"), asked).to_dict()
    assert (answer["score"], answer["scaled"]) == ([0.5, 0.25, None], [1.5, 0.75, -1.0])
    alone = tiny.get_online_features(["scaled:scaled"], asked).to_dict()  # the stored feature is read, not returned
    assert alone == {"user_id": [1, 2, 9], "scaled": [1.5, 0.75, -1.0]}


def test_full_names_carry_the_view_s(make: MakeStore, tmp_path: Path) -> None:
    tiny = written(make, tmp_path)
    answer = tiny.get_online_features(["facts:score"], [{"user_id": 1}], full_feature_names=True).to_dict()
    assert answer == {"user_id": [1], "facts__score": [0.5]}


def test_what_does_not_exist_is_named(make: MakeStore, tmp_path: Path) -> None:
    tiny = written(make, tmp_path)
    with pytest.raises(KeyError, match="nothing"):
        tiny.get_online_features(["facts:nothing"], [{"user_id": 1}])
    with pytest.raises(FeatureViewNotFoundException, match="nowhere"):
        tiny.get_online_features(["nowhere:score"], [{"user_id": 1}])


def test_views_that_share_a_source_have_their_own_features(make: MakeStore, tmp_path: Path) -> None:
    # feast issue 2576.
    name = Field(name="name", dtype=String)
    of = source(tmp_path, {**ROWS, "name": ["a", "b", "c"]})
    tiny = make(view(of), view(of, SCORE, name, name="more"))
    tiny.materialize(NOON - HOUR, NOON + 3 * HOUR)
    assert online(tiny, "more:name", 1, 3) == ["a", "c"]
    with pytest.raises(KeyError):
        online(tiny, "facts:name", 1)


def test_a_pushed_row_is_read(make: MakeStore, tmp_path: Path) -> None:
    tiny = make(view(PushSource(name="push", batch_source=source(tmp_path, ROWS))))
    tiny.push("push", frame({"user_id": [1], "score": [7.0], "at": [NOON]}))
    assert online(tiny, "facts:score", 1) == [7.0]


def test_asyncio_pushes_and_reads_as_threads_do(make: MakeStore, tmp_path: Path) -> None:
    tiny = make(view(PushSource(name="push", batch_source=source(tmp_path, ROWS))))
    tiny.write_to_online_store("facts", frame(ROWS))

    async def write_and_read() -> list[Any]:
        await tiny.initialize()
        await tiny.push_async(
            "push", frame({"user_id": [1, 2], "score": [7.0, 8.0], "at": [NOON - HOUR, NOON + 5 * HOUR]})
        )
        asked = [{"user_id": user} for user in (1, 2, 3, 9)]
        answer = await tiny.get_online_features_async(["facts:score"], asked)
        await tiny.close()
        await tiny._get_provider().online_store._client_async.aclose()  # which Feast leaves open
        return answer.to_dict()["score"]

    assert asyncio.run(write_and_read()) == [0.5, 8.0, 0.125, None]
    assert online(tiny, "facts:score", 1, 2, 3, 9) == [0.5, 8.0, 0.125, None]


def test_an_expired_user_is_absent(make: MakeStore, tmp_path: Path, redis_url: str) -> None:
    tiny = written(make, tmp_path, key_ttl_seconds=1000)
    with redis.Redis.from_url(redis_url) as client:
        keys = client.keys()
        assert len(keys) == 3
        for key in keys:
            assert 990 < client.ttl(key) <= 1000
            client.pexpire(key, 0)
    assert online(tiny, "facts:score", 1, 2, 3) == [None, None, None]


def test_removing_a_view_leaves_the_others_of_its_entity(make: MakeStore, tmp_path: Path) -> None:
    # feast issue 2150.
    of = source(tmp_path, ROWS)
    facts, more = view(of), view(of, name="more")
    tiny = make(facts, more)
    tiny.materialize(NOON - HOUR, NOON + 3 * HOUR)
    tiny.apply([facts], objects_to_delete=[more], partial=False)
    assert online(tiny, "facts:score", 1, 2) == [0.5, 0.25]
    tiny.apply([], objects_to_delete=[facts], partial=False)
    tiny.apply([facts, more])
    assert (online(tiny, "facts:score", 1, 2), online(tiny, "more:score", 1)) == ([None, None], [None])


def test_projects_on_one_redis_do_not_meet_and_teardown_removes_one(make: MakeStore, tmp_path: Path) -> None:
    one, other = written(make, tmp_path), written(make, tmp_path)
    other.config.project = "other"
    other = FeatureStore(config=other.config)
    facts = view(source(tmp_path, ROWS))
    other.apply([Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64), facts])
    assert online(other, "facts:score", 1) == [None]
    write(other, 1, 9.0, NOON)
    assert (online(one, "facts:score", 1), online(other, "facts:score", 1)) == ([0.5], [9.0])
    table, entity = one.get_feature_view("facts"), one.get_entity("user")
    one._get_provider().online_store.teardown(one.config, [table], [entity])
    assert (online(one, "facts:score", 1, 2), online(other, "facts:score", 1)) == ([None, None], [9.0])


def test_online_equals_the_join_after_a_materialization_and_an_incremental_one(make: MakeStore, tmp_path: Path) -> None:
    rng, users = np.random.default_rng(3), 40
    times = [NOON + timedelta(minutes=int(minute)) for minute in rng.permutation(1440)[:400]]
    rows = {"user_id": rng.integers(0, users, size=400), "score": rng.normal(size=400), "at": times}
    tiny = make(view(source(tmp_path, rows)))
    for step, until in enumerate((NOON + 8 * HOUR, NOON + 16 * HOUR, NOON + 24 * HOUR)):
        if step:
            tiny.materialize_incremental(until)
        else:
            tiny.materialize(NOON - HOUR, until)
        known = pd.DataFrame(rows)[lambda frame: frame["at"] <= until].sort_values("at")  # noqa: B023
        newest = known.groupby("user_id")["score"].last().to_dict()
        assert online(tiny, "facts:score", *range(users)) == [newest.get(user) for user in range(users)]
        asked = {"user_id": list(newest), "event_timestamp": [until] * len(newest)}
        join = joined(tiny, asked, "facts:score").set_index("user_id")["score"].to_dict()
        assert join == newest


def test_a_large_batch_is_written_whole(make: MakeStore, tmp_path: Path) -> None:
    tiny, users = make(view(source(tmp_path, ROWS))), 3_000
    rows = {"user_id": range(users), "score": np.arange(users) / 4, "at": [NOON] * users}
    tiny.write_to_online_store("facts", frame(rows))
    assert online(tiny, "facts:score", *range(0, users, 7)) == [user / 4 for user in range(0, users, 7)]


def test_nothing_asked_is_nothing_answered(make: MakeStore, tmp_path: Path) -> None:
    tiny = written(make, tmp_path)
    store = tiny._get_provider().online_store
    assert store.online_read(tiny.config, tiny.get_feature_view("facts"), []) == []


def test_a_stock_sdk_reads_what_the_store_wrote_and_the_other_way_round(
    make: MakeStore, redis_store: MakeStore, tmp_path: Path, redis_url: str
) -> None:
    def contents() -> dict[bytes, dict[bytes, bytes]]:
        with redis.Redis.from_url(redis_url) as client:
            return {key: client.hgetall(key) for key in client.scan_iter()}

    ours = written(make, tmp_path)
    by_ours = contents()
    stock = redis_store(view(source(tmp_path, ROWS)))
    assert online(stock, "facts:score", 1, 2, 3, 9) == [0.5, 0.25, 0.125, None]
    write(stock, 1, 7.0, NOON + HOUR)
    assert online(ours, "facts:score", 1) == [7.0]

    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    stock.write_to_online_store("facts", frame(ROWS))
    assert contents() == by_ours  # byte by byte
