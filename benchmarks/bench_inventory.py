"""The live inventory: reading it from PostgreSQL, and making one user's filter out of its bitmaps.

LEADRE §3.3. Four attributes are targeted: age, sex, residence (40 values), device. Beside it, what one would write
without bitmaps: a truth value an ad, by NumPy comparisons over the targeting columns, for every user anew. Reads are
timed by the wall clock, the rest by the processor time of one thread.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from sqlalchemy import text
from toy import timed

from leadre import services
from leadre.domain.targeting import Targeting
from leadre.domain.users import Profile
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask, Trie
from leadre.retrieval.inventory import Inventory, added_rows
from leadre.store.records.database import connect, migrate, transaction
from leadre.store.records.inventory.rows import InventoryRows, microseconds, read_inventory

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CITIES, USERS, CHANGED = 40, 64, 1000
SEXES, DEVICES = ("", "female", "male"), ("", "ios", "android")
AGES = ((0, 150), (18, 34), (25, 54), (35, 64))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ads", type=int, default=10_000_000, help="ads of the index")
    parser.add_argument("--rows", type=int, default=1_000_000, help="ads of the database")
    parser.add_argument("--quick", action="store_true", help="1,000,000 ads, 100,000 rows")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    ads, rows = (1_000_000, 100_000) if arguments.quick else (arguments.ads, arguments.rows)
    figures = {**read_figures(rows), **mask_figures(ads)}
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:>28}  {value}")


def read_figures(rows: int) -> dict[str, Any]:
    """Return what reading costs on the embedded server: everything, and a few changes."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        home.chmod(0o711)  # under root the servers' account passes through it
        try:
            url = services.up(home, durable=False).database_url
            migrate(url)
            engine = connect(url)
            with transaction(engine) as connection:
                connection.execute(
                    text(
                        f"""
                        INSERT INTO ads (ad_id, source_id, name, event_at, targeting, ends_at)
                        SELECT n * 7919::bigint, n::text, 'An ad', now(),
                               jsonb_build_object('age', jsonb_build_array(n % 30, 30 + n % 7),
                                                  'residence', jsonb_build_array('city ' || n % {CITIES})),
                               CASE WHEN n % 5 = 0 THEN now() + interval '1 day' END
                        FROM generate_series(1, {rows:d}) n
                        """
                    )
                )
            with transaction(engine) as connection:
                everything, whole_s = timed(lambda: read_inventory(connection), repeat=3, clock=time.perf_counter)
            changes_s = []
            for step in range(5):
                with transaction(engine) as connection:
                    one_in = max(1, rows // CHANGED)
                    connection.execute(
                        text(f"UPDATE ads SET live = NOT live WHERE ad_id / 7919 % {one_in} = {step % one_in}")
                    )
                with transaction(engine) as connection:
                    since = everything.cursor
                    changes, seconds = timed(
                        lambda: read_inventory(connection, since=since),  # noqa: B023
                        repeat=3,
                        clock=time.perf_counter,
                    )
                changes_s.append(seconds / len(changes.ad_ids))
                everything = changes
            engine.dispose()
        finally:
            services.down(home)
    return {
        "inventory_rows": rows,
        "inventory_read_rows_per_s": round(rows / whole_s),
        "inventory_read_1000_changes_ms": round(1e6 * median(changes_s), 2),
    }


def mask_figures(ads: int) -> dict[str, Any]:
    """Return what filters cost over an index of so many ads."""
    rng = np.random.default_rng(0)
    index = some_index(rng, ads)
    age, sex, city, device = (rng.integers(0, kinds, ads) for kinds in (len(AGES), 3, CITIES + 1, 3))
    on = rng.random(ads) < 0.9
    ends_us = np.where(rng.random(ads) < 0.1, microseconds(NOW) + rng.integers(-(10**11), 10**11, ads), 2**63 - 1)
    found, targeting = np.unique(((age * 3 + sex) * (CITIES + 1) + city) * 3 + device, return_inverse=True)
    rows = InventoryRows(
        ad_ids=index.ad_ids[index.by_id],
        on=on,
        starts_us=np.full(ads, -(2**63)),
        ends_us=ends_us,
        targetings=tuple(some_targeting(code) for code in found.tolist()),
        targeting=targeting.astype(np.int32),
        cursor=0,
        whole=True,
    )
    inventory = Inventory(index)
    _, apply_s = timed(lambda: inventory.apply(rows), repeat=1)
    _, first_s = timed(lambda: inventory.mask(Profile(user_id=0), NOW), repeat=1)
    users = some_users(np.random.default_rng(1))
    bitmaps_s = [timed(lambda: inventory.mask(user, NOW), repeat=1)[1] for user in users]  # noqa: B023
    later = NOW + timedelta(hours=30)  # no filter of before is of use, the bitmaps are
    inventory.mask(Profile(user_id=0), later)
    build_s = [timed(lambda: inventory.mask(user, later), repeat=1)[1] for user in users]  # noqa: B023
    kept_s = [timed(lambda: inventory.mask(user, later), repeat=3)[1] for user in users]  # noqa: B023
    columns = (np.array(AGES, np.uint8)[age], sex.astype(np.uint8), city.astype(np.uint8), device.astype(np.uint8))
    by_row = np.argsort(index.by_id)
    columns = tuple(column[by_row] for column in columns)
    on, ends_us = on[by_row], ends_us[by_row]
    peer_s = []
    for user in users[:8]:
        peer, seconds = timed(lambda: by_comparisons(columns, on, ends_us, user, later), repeat=1)  # noqa: B023
        peer_s.append(seconds)
        if not np.array_equal(peer.words, inventory.mask(user, later).words):
            raise SystemExit("the two filters differ")
    few = some_rows(rows, rng.choice(ads, CHANGED, replace=False))
    _, few_s = timed(lambda: inventory.apply(few), repeat=3)
    added, added_s = timed(lambda: added_rows(index, index), repeat=3)
    _, over_s = timed(lambda: inventory.over(index, added=added), repeat=3)
    mask_ms, peer_ms = 1000 * median(build_s), 1000 * median(peer_s)
    return {
        "index_ads": ads,
        "targetings": len(found),
        "inventory_apply_s": round(apply_s, 3),
        "inventory_first_mask_ms": round(1000 * first_s, 2),
        "bitmap_build_ms": round(1000 * max(bitmaps_s) / 4, 2),
        "mask_build_ms": round(mask_ms, 3),
        "mask_predicate_ms": round(mask_ms / 4, 3),
        "mask_kept_us": round(1e6 * median(kept_s), 1),
        "peer_mask_ms": round(peer_ms, 2),
        "mask_speedup": round(peer_ms / mask_ms, 1),
        "inventory_1000_changes_ms": round(1000 * few_s, 2),
        "added_rows_s": round(added_s, 3),
        "inventory_over_s": round(over_s, 3),
    }


def some_index(rng: np.random.Generator, ads: int) -> AdIndex:
    """Return an index of S-IDs in three levels; ids in no order."""
    number = np.arange(ads)
    codes = np.stack([number >> 16, number >> 8 & 255, number & 255], axis=1).astype(np.int32)
    none = np.zeros(ads, np.int32)
    return AdIndex(
        version="benchmark",
        ad_ids=rng.permutation(ads).astype(np.int64) * 7919,
        codes=codes,
        first_categories=none,
        second_categories=none,
        category_names=("",),
        advertiser_ids=none.astype(np.int64),
        embeddings=np.zeros((ads, 1), np.float32),
        trie=Trie.build(codes),
        code_counts=(int(codes[-1, 0]) + 1, 256, 256),
        quality={},
    )


def some_targeting(code: int) -> Targeting:
    """Return the targeting that a combination of values stands for; the first value of each restricts nothing."""
    code, device = divmod(code, 3)
    code, city = divmod(code, CITIES + 1)
    age, sex = divmod(code, 3)
    plain: dict[str, Any] = {"age": list(AGES[age])} if age else {}
    plain |= {"sex": [SEXES[sex]]} if sex else {}
    plain |= {"residence": [f"city {city}"]} if city else {}
    plain |= {"device": [DEVICES[device]]} if device else {}
    return Targeting.of(plain)


def some_users(rng: np.random.Generator) -> list[Profile]:
    """Return users whom the ads tell apart."""
    return [
        Profile(
            user_id=number,
            age=int(rng.integers(10, 80)),
            sex=SEXES[1 + number % 2],
            residence=f"district {number}, city {1 + number % CITIES}",
            device=DEVICES[int(rng.integers(1, 3))],
        )
        for number in range(USERS)
    ]


def some_rows(rows: InventoryRows, which: Any) -> InventoryRows:
    """Return some of the rows, as a read of changes gives them."""
    return InventoryRows(
        ad_ids=rows.ad_ids[which],
        on=rows.on[which],
        starts_us=rows.starts_us[which],
        ends_us=rows.ends_us[which],
        targetings=rows.targetings,
        targeting=rows.targeting[which],
        cursor=1,
        whole=False,
    )


def by_comparisons(columns: Any, on: Any, ends_us: Any, user: Profile, now: datetime) -> LiveMask:
    """The peer: compare every ad's columns with the user's values."""
    age, sex, city, device = columns
    live = on & (ends_us > microseconds(now))
    live &= (age[:, 0] <= user.age) & (user.age <= age[:, 1])
    live &= (sex == 0) | (sex == SEXES.index(user.sex))
    live &= (city == 0) | (city == int(user.residence.rpartition(" ")[2]))
    live &= (device == 0) | (device == DEVICES.index(user.device))
    return LiveMask.of(live)


if __name__ == "__main__":
    main()
