from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from sqlalchemy import Engine, text

from leadre.domain.ads import Ad
from leadre.domain.targeting import Targeting
from leadre.domain.users import Profile
from leadre.errors import ReleaseMismatch
from leadre.indexing.ad_index import AdIndex
from leadre.retrieval import inventory as inventories
from leadre.retrieval.inventory import Inventory, added_rows
from leadre.store.records import catalog
from leadre.store.records.database import connect, transaction

NOW = datetime(2026, 5, 6, 12, tzinfo=UTC)
EVENT = datetime(2026, 1, 1, tzinfo=UTC)
ANYBODY = Profile(user_id=1)


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    engine = connect(database_url)
    yield engine
    engine.dispose()


def index_of(ad_ids: list[int]) -> AdIndex:
    """An index in which an ad has the same S-ID whatever others there are, as in the revisions of one version."""
    number = np.array(ad_ids, np.int64) * 2654435761 % 2**32
    return AdIndex.assemble(
        version="i",
        ad_ids=np.array(ad_ids, np.int64),
        codes=np.stack([number % 7, number // 7 % 2**20], axis=1).astype(np.int32),
        first_categories=[""] * len(ad_ids),
        second_categories=[""] * len(ad_ids),
        advertiser_ids=np.zeros(len(ad_ids), np.int64),
        embeddings=np.zeros((len(ad_ids), 3), np.float32),
        code_counts=(7, 2**20),
        quality={},
    )


def ad(ad_id: int) -> Ad:
    return Ad(
        ad_id=ad_id,
        source_id=str(ad_id),
        name="An ad",
        ad_type="",
        first_category="",
        second_category="",
        attributes=(),
        advertiser_id=0,
        bid=1.0,
        created_at=EVENT,
    )


def shown(inventory: Inventory, profile: Profile = ANYBODY, *, now: datetime = NOW) -> set[int]:
    mask = inventory.mask(profile, now)
    rows = np.arange(len(inventory.index))
    found = inventory.index.ad_ids[mask.count(rows, rows + 1) == 1].tolist()
    assert mask.live_leaves == len(found)
    return set(found)


def refresh(inventory: Inventory, database: Engine) -> int:
    with transaction(database) as connection:
        return inventory.refresh(connection)


def truth(ads: dict[int, Ad], index: AdIndex, profile: Profile, now: datetime) -> set[int]:
    """Evaluate every ad in plain Python."""
    return {
        ad.ad_id
        for ad_id in index.ad_ids.tolist()
        if (ad := ads.get(ad_id)) is not None
        and ad.live
        and not ad.budget_exhausted
        and (ad.starts_at is None or ad.starts_at <= now)
        and (ad.ends_at is None or now < ad.ends_at)
        and ad.targeting.admits(profile)
    }


def some_targeting(rng: random.Random) -> Targeting:
    plain: dict[str, object] = {}
    if rng.random() < 0.3:
        plain["age"] = sorted(rng.randint(0, 12) * 10 for _ in "ab")
    for name, values in (("sex", ["f", "m"]), ("residence", ["a", "b", "c", "b, c"]), ("device", ["ios", "x"])):
        if rng.random() < 0.3:
            plain[name] = rng.sample(values, rng.randint(1, 2))
    return Targeting.of(plain)


def some_ad(rng: random.Random, ad_id: int) -> Ad:
    start, end = sorted(NOW + timedelta(minutes=rng.randint(-99, 99), microseconds=rng.randint(0, 3)) for _ in "ab")
    return replace(
        ad(ad_id),
        live=rng.random() < 0.8,
        budget_exhausted=rng.random() < 0.2,
        starts_at=start if rng.random() < 0.3 else None,
        ends_at=end + timedelta(seconds=1) if rng.random() < 0.3 else None,
        targeting=some_targeting(rng),
    )


def some_profile(rng: random.Random) -> Profile:
    return Profile(
        user_id=1,
        age=rng.choice([None, *range(0, 130, 5)]),
        sex=rng.choice(["", "f", "M"]),
        residence=rng.choice(["", "a", "b, c", "c", "d"]),
        device=rng.choice(["", "ios", "Y"]),
    )


@pytest.mark.parametrize("seed", range(3))
def test_masks_are_a_plain_evaluation_of_every_ad_whatever_changes(
    seed: int, database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventories, "KEPT_BYTES", 0)  # the least that is kept, so that some are made again
    rng = random.Random(seed)
    ads = {ad_id: some_ad(rng, ad_id) for ad_id in rng.sample(range(1000), 150)}
    with transaction(database) as connection:
        catalog.upsert_ads(connection, ads.values())
    index = index_of([*rng.sample(sorted(ads), 130), 2000, 2001])
    inventory = Inventory(index)
    assert shown(inventory) == set()
    for step in range(9):
        read = refresh(inventory, database)
        for _ in range(12):
            now, profile = NOW + timedelta(minutes=rng.randint(-99, 99)), some_profile(rng)
            assert shown(inventory, profile, now=now) == truth(ads, index, profile, now)
            for ad_id in rng.sample(sorted(ads), 3):  # both sides of a boundary
                for at in (ads[ad_id].starts_at, ads[ad_id].ends_at):
                    for moment in () if at is None else (at - timedelta(microseconds=1), at):
                        assert shown(inventory, profile, now=moment) == truth(ads, index, profile, moment)
        changed = {ad_id: some_ad(rng, ad_id) for ad_id in rng.sample(sorted(ads), 10)}
        changed |= {ad_id: some_ad(rng, ad_id) for ad_id in (1000 + step, 2000)}
        ads |= changed
        with transaction(database) as connection:
            catalog.upsert_ads(connection, changed.values())
            if step == 4:
                gone = rng.choice(sorted(ads.keys() & set(index.ad_ids.tolist())))
                connection.execute(text("DELETE FROM ads WHERE ad_id = :gone"), {"gone": gone})
                del ads[gone]
        if step in (2, 6):
            held = [*index.ad_ids.tolist(), *(ad_id for ad_id in range(1000, 1000 + step))]
            index = index_of(list(dict.fromkeys(held)))
            inventory = inventory.over(index)
        assert step == 0 or read < len(ads) or step == 5


def test_a_refresh_reads_what_changed_only(database: Engine) -> None:
    inventory = Inventory(index_of([3, 4, 5]))
    with transaction(database) as connection:
        catalog.upsert_ads(connection, [ad(3), ad(4), ad(5)])
    assert refresh(inventory, database) == 3
    assert refresh(inventory, database) == 0
    with transaction(database) as connection:
        catalog.set_live(connection, [4], live=False)
    assert refresh(inventory, database) == 1
    assert shown(inventory) == {3, 5}
    with transaction(database) as connection:  # as somebody who knows nothing of this package
        connection.execute(text("UPDATE ads SET budget_exhausted = true WHERE ad_id = 3"))
    assert refresh(inventory, database) == 1
    assert shown(inventory) == {5}


def test_a_change_that_waits_long_for_its_commit_is_not_missed(database: Engine) -> None:
    inventory = Inventory(index_of([3, 4]))
    with transaction(database) as connection:
        catalog.upsert_ads(connection, [ad(3), ad(4)])
    with database.connect() as slow:
        catalog.set_live(slow, [3], live=False)
        refresh(inventory, database)
        with transaction(database) as connection:
            catalog.set_live(connection, [4], live=False)
        refresh(inventory, database)
        assert shown(inventory) == {3}
        slow.commit()
    refresh(inventory, database)
    assert shown(inventory) == set()


@pytest.mark.parametrize("statement", ["DELETE FROM ads WHERE ad_id = 3", "TRUNCATE ads"])
def test_an_ad_that_is_deleted_is_not_shown(database: Engine, statement: str) -> None:
    inventory = Inventory(index_of([3, 4]))
    with transaction(database) as connection:
        catalog.upsert_ads(connection, [ad(3), ad(4)])
    refresh(inventory, database)
    with transaction(database) as connection:
        connection.execute(text(statement))
    refresh(inventory, database)
    assert shown(inventory) == ({4} if "DELETE" in statement else set())


def test_an_ad_whose_targeting_cannot_be_read_is_shown_to_nobody(
    database: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    inventory = Inventory(index_of([3, 4, 5]))
    with transaction(database) as connection:
        catalog.upsert_ads(connection, [ad(3), ad(4), ad(5)])
        connection.execute(text("""UPDATE ads SET targeting = '{"zodiac": ["ram"]}' WHERE ad_id = 3"""))
        connection.execute(text("UPDATE ads SET targeting = '7' WHERE ad_id = 5"))
    refresh(inventory, database)
    everything = Profile(user_id=1, age=30, sex="f", residence="a", device="ios")
    assert shown(inventory, everything) == shown(inventory) == {4}
    assert "unreadable_targeting" in caplog.text


def test_users_whom_no_ad_tells_apart_share_a_mask(database: Engine) -> None:
    inventory = Inventory(index_of([3, 4]))
    targeting = Targeting.of({"age": [18, 30], "residence": ["Oslo"]})
    with transaction(database) as connection:
        catalog.upsert_ads(connection, [ad(3), replace(ad(4), targeting=targeting)])
    refresh(inventory, database)
    first = inventory.mask(Profile(user_id=1, age=19, residence="Oslo"), NOW)
    assert inventory.mask(Profile(user_id=2, age=30, sex="f", residence="Frogner, oslo"), NOW) is first
    assert inventory.mask(Profile(user_id=3, age=31, residence="Oslo"), NOW) is not first
    assert inventory.mask(Profile(user_id=4, residence="Rome"), NOW) is inventory.mask(
        Profile(user_id=5, residence="Bonn"), NOW
    )
    assert shown(inventory, Profile(user_id=1, age=19, residence="Oslo")) == {3, 4}
    assert shown(inventory, Profile(user_id=1, age=19, residence="Bonn")) == {3}


def test_an_empty_index_and_an_empty_catalog_show_nothing(database: Engine) -> None:
    inventory = Inventory(index_of([]))
    assert shown(inventory) == set()
    assert refresh(inventory, database) == 0
    grown = inventory.over(index_of([3]))
    assert refresh(grown, database) == 0
    assert shown(grown) == set()
    with transaction(database) as connection:
        catalog.upsert_ads(connection, [ad(3)])
    refresh(grown, database)
    assert shown(grown) == {3}


def test_an_index_built_anew_is_no_later_revision() -> None:
    with pytest.raises(ReleaseMismatch, match="does not continue"):
        Inventory(index_of([3, 4, 5])).over(index_of([3, 5, 6]))
    assert added_rows(index_of([3, 5]), index_of([3, 4, 5])).sum() == 1
