"""The importer of the public Taobao display-ad log, on small files of its schema."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from leadre.domain.identity import stable_id
from leadre.errors import InvalidInput
from leadre.store.importers.taobao.folder import TaobaoImported, import_taobao
from leadre.store.records.database import connect, transaction

NOW = datetime(2017, 5, 14, tzinfo=UTC)
T = 1494137644
SAMPLE = Path(__file__).parents[4] / "shared/data/taobao_ad_sample/samples.jsonl"
FILES = {
    "raw_sample": f"""user,time_stamp,adgroup_id,pid,nonclk,clk
581738,{T},1,430548_1007,1,0
581738,{T + 60},2,430548_1007,0,1
449818,{T + 5},2,430549_1007,1,0
900001,{T + 9},1,430549_1007,0,1
""",
    "ad_feature": """adgroup_id,cate_id,campaign_id,customer,brand,price
1,6406,83237,11,95471,170.0
2,6406,83237,11,NULL,0.5
3,392,11111,12,87331,9999
""",
    "user_profile": """userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,\
shopping_level,occupation,new_user_class_level 
581738,0,5,2,5,,3,0,3
449818,0,5,1,5,2,1,1,
""",  # noqa: W291 - the published header ends in a space
    "behavior_log": f"""user,time_stamp,btag,cate,brand
581738,{T - 1000},pv,6250,91286
581738,{T - 1000},buy,6250,91286
449818,{T - 2000},ipv,6250,NULL
""",
}


def write(folder: Path, **changed: str) -> Path:
    for table, content in (FILES | changed).items():
        (folder / f"{table}.csv").write_text(content)
    return folder


def run(folder: Path, database_url: str, **options: object) -> TaobaoImported:
    rejected = folder.parent / "rejected.csv"
    return import_taobao(folder, database_url=database_url, now=NOW, rejected=rejected, **options)  # type: ignore[arg-type]


def ask(database_url: str, query: str) -> list[tuple[object, ...]]:
    database = connect(database_url)
    try:
        with transaction(database) as connection:
            return [tuple(row) for row in connection.execute(text(query))]
    finally:
        database.dispose()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


def test_every_table_of_the_log_becomes_one_of_ours(folder: Path, database_url: str) -> None:
    counts = run(write(folder), database_url).counts
    assert (counts.ads, counts.users, counts.content_items, counts.behaviors, counts.impressions) == (3, 3, 2, 5, 4)
    assert ask(database_url, "SELECT name, first_category, advertiser_id, attributes FROM ads ORDER BY ad_id") == [
        (
            "category 6406, brand 95471, advertiser 11",
            "category 6406",
            11,
            ["campaign_83237", "brand_95471", "price_100"],
        ),
        ("category 6406, advertiser 11", "category 6406", 11, ["campaign_83237", "price_0"]),
        (
            "category 392, brand 87331, advertiser 12",
            "category 392",
            12,
            ["campaign_11111", "brand_87331", "price_1000"],
        ),
    ]
    profiles = "SELECT user_id, sex, residence, occupation, consumption_level FROM users ORDER BY user_id"
    assert ask(database_url, profiles) == [
        (449818, "male", "", "college student", "medium, shops shallow"),
        (581738, "female", "city tier 3", "", "shops deep"),
        (900001, "", "", "", ""),
    ]
    shown = "SELECT ad_id, clicked, ecpm, simulated FROM impressions ORDER BY occurred_at"
    assert ask(database_url, shown) == [
        (1, False, 0, True),
        (2, False, 0, True),
        (1, True, 1000, True),
        (2, True, 1000, True),
    ]
    did = "SELECT domain, action, item_id, ordinal FROM behaviors WHERE user_id = 581738 ORDER BY occurred_at, ordinal"
    item = stable_id("category 6250, brand 91286")
    assert ask(database_url, did) == [
        ("content", "watch", item, 0),
        ("content", "watch", item, 4),
        ("ad", "click", 2, 0),
    ]


def test_a_second_import_changes_nothing(folder: Path, database_url: str) -> None:
    write(folder)
    assert run(folder, database_url) == run(folder, database_url)
    assert ask(database_url, "SELECT count(*) FROM behaviors") == [(5,)]


def test_bad_rows_are_counted_by_kind_and_listed(folder: Path, database_url: str) -> None:
    write(
        folder,
        raw_sample=FILES["raw_sample"] + f"581738,{T},77,p,1,0\n581738,{T},1,p,1,1\nx,{T},1,p,1,0\n",
        behavior_log=FILES["behavior_log"] + f"581738,-28800,pv,1,2\n581738,{T},look,1,2\n5,{T},pv,1,2\n",
        ad_feature=FILES["ad_feature"] + "3,1,1,1,1,1\n4,1,1\n",
    )
    done = run(folder, database_url, on_bad_row="skip", max_bad_share=0.9)
    assert {(table, kind.value): count for (table, kind), count in done.rejected.items()} == {
        ("raw_sample", "unknown_ad"): 1,
        ("raw_sample", "bad_yes_no"): 1,
        ("raw_sample", "bad_number"): 1,
        ("behavior_log", "bad_time"): 1,
        ("behavior_log", "unknown_choice"): 1,
        ("behavior_log", "unknown_user"): 1,
        ("ad_feature", "duplicate_id"): 1,
        ("ad_feature", "wrong_width"): 1,
    }
    with (folder.parent / "rejected.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 8
    assert (done.counts.ads, done.counts.impressions, done.counts.behaviors) == (3, 4, 5)


@pytest.mark.parametrize(("share", "options"), [("1 of 4 rows", {"on_bad_row": "skip"}), ("'look' is unknown", {})])
def test_too_many_bad_rows_leave_the_database_as_it_was(
    folder: Path, database_url: str, share: str, options: dict[str, object]
) -> None:
    write(folder, behavior_log=FILES["behavior_log"] + f"581738,{T},look,1,2\n")
    with pytest.raises(InvalidInput, match=share):
        run(folder, database_url, **options)
    assert ask(database_url, "SELECT count(*) FROM ads") == [(0,)]


def test_a_part_of_the_users_comes_with_all_that_is_theirs(folder: Path, database_url: str) -> None:
    write(folder)
    first = run(folder, database_url, limit_users=1)
    assert (first.counts.users, first.counts.ads) == (1, 3)
    of_others = "SELECT count(*) FROM {} WHERE user_id NOT IN (SELECT user_id FROM users)"
    assert [ask(database_url, of_others.format(table)) for table in ("behaviors", "impressions")] == [[(0,)], [(0,)]]
    assert run(folder, database_url, limit_users=1) == first
    assert run(folder, database_url, limit_users=100).counts == run(folder, database_url).counts


def test_a_missing_file_is_named(folder: Path, database_url: str) -> None:
    (write(folder) / "behavior_log.csv").unlink()
    with pytest.raises(InvalidInput, match=r"no behavior_log\.csv"):
        run(folder, database_url)


def test_real_rows_of_the_log_are_read(folder: Path, database_url: str) -> None:
    if not SAMPLE.is_file():
        pytest.skip(f"no sample of the public log at {SAMPLE}")
    samples = [json.loads(line) for line in SAMPLE.read_text().splitlines()[:60]]
    profiles = {row["user"]["userid"]: row["user"] for row in samples}
    ads = {row["ad"]["adgroup_id"]: {**row["ad"], "price": row["ad"]["price_norm"]} for row in samples}
    shown = [
        (row["user"]["userid"], T + number, row["ad"]["adgroup_id"], row["pid"], 1 - row["clk"], row["clk"])
        for number, row in enumerate(samples)
    ]
    btags = {1: "pv", 2: "cart", 3: "fav", 4: "buy"}
    did = {
        (row["user"]["userid"], T - 1000 - place, btags.get(of["btag"], "pv"), of["cate"], of["brand"])
        for row in samples
        for place, of in enumerate(row["behaviors"])
    }
    names = list(next(iter(profiles.values())))
    columns = ("adgroup_id", "cate_id", "campaign_id", "customer", "brand", "price")
    lines = {
        "raw_sample": [("user", "time_stamp", "adgroup_id", "pid", "nonclk", "clk"), *shown],
        "ad_feature": [columns, *(tuple(ad[name] for name in columns) for ad in ads.values())],
        "user_profile": [names, *(tuple(user.values()) for user in profiles.values())],
        "behavior_log": [("user", "time_stamp", "btag", "cate", "brand"), *sorted(did)],
    }
    for table, rows in lines.items():
        with (folder / f"{table}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    done = run(folder, database_url)
    assert (done.counts.ads, done.counts.users, done.counts.impressions) == (len(ads), len(profiles), 60)
    assert done.rejected == {}
