"""A healthy world is well, and each planted fault is found, with its line and exit code."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import timedelta

import numpy as np
import pytest
from click.testing import CliRunner, Result

from leadre.cli import cli
from leadre.cli.features.check import check as command
from leadre.derivation import pack
from leadre.pipelines.feature_quality.check import Bounds, FeatureQuality, _neutral

from .conftest import ADS, DAY, HOUR, NOW, USER_IDS, USERS, World, append_lists, make_lists


def run(*arguments: str, now: str = NOW.isoformat()) -> Result:
    return CliRunner().invoke(cli, ["features", "check", "--now", now, "--min-rows", "100", *arguments])


def out(checked: FeatureQuality) -> set[str]:
    return {figure.title for figure in checked.out}


def value(checked: FeatureQuality, title: str) -> float | None:
    return next(figure.value for figure in checked.figures if figure.title == title)


def test_a_healthy_world_is_well(world: World) -> None:
    done = run()
    assert done.exit_code == 0, done.output
    assert "all features are within their bounds" in done.output
    assert f"{USERS} of {USERS} users" in done.output
    done = run("--json")
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    values = {(figure["name"], *figure["of"].values()): figure["value"] for figure in told["figures"]}
    assert values["age_seconds", "retrieved_ads"] == 3600
    assert values["list_coverage_ratio",] == values["lists_ratio", "index-2", "release-2"] == 1
    assert values["retrieved_count", "0.5"] == 12
    assert all(figure["value"] is not None for figure in told["figures"])
    assert {figure["of"]["view"] for figure in told["figures"] if figure["name"] == "age_seconds"} >= {
        "user_profile",
        "interest_summary",
        "ad_index",
        "retrieved_ads",
    }


def test_a_stale_online_store_is_found(world: World) -> None:
    repeat = "INSERT INTO interest_summaries (user_id, event_at, categories, counts) SELECT user_id, :at, '{}', '{}'"
    world.do(f"{repeat} FROM users WHERE user_id <= 150", at=NOW - HOUR)
    done = run()
    assert done.exit_code == 1
    assert "online_behind_ratio of interest_summary is 0.5, at most 0.01: run `leadre materialize`" in done.output
    checked = world.check()
    assert out(checked) == {"online_behind_ratio of interest_summary"}
    assert value(checked, "online_lag_seconds of interest_summary") == 2 * 3600
    assert out(world.check(grace_s=7000)) == set()  # so young a row need not be online yet


def test_half_of_the_users_without_lists_are_found(world: World) -> None:
    world.do("DELETE FROM retrieval_log WHERE user_id % 2 = 0")
    done = run()
    assert done.exit_code == 1
    assert "list_coverage_ratio is 0.5, at least 0.9: start nearline workers" in done.output


def test_lists_of_an_old_index_are_found(world: World) -> None:
    world.do("UPDATE retrieval_log SET index_version = 'index-1', release = 'release-1' WHERE user_id % 3 = 0")
    checked = world.check()
    assert out(checked) == {"live_index_ratio"}
    assert value(checked, "lists_ratio of index-1, release-1") == pytest.approx(1 / 3)
    assert "live_index_ratio is 0.6667, at least 0.8" in checked.out[0].line()
    world.do("UPDATE releases SET status = 'retired'")
    assert value(world.check(), "live_index_ratio") == 0


def test_shifted_scores_are_found(world: World) -> None:
    world.do("DELETE FROM retrieval_log WHERE event_at > :at", at=NOW - DAY)
    with world.database.begin() as connection:
        append_lists(connection, USER_IDS, make_lists(USER_IDS, at=NOW - HOUR, spread=5))
    found = out(world.check())
    assert {"psi of top_probability", "psi of entropy"} <= found
    assert not found & {"psi of retrieved_count", "psi of hit", "psi of rank", "psi of list_age_s"}
    done = run()
    assert done.exit_code == 1
    assert "psi of entropy is" in done.output
    assert "at most 0.25: look what changed" in done.output


def test_ads_that_are_not_retrieved_any_more_are_found_on_the_item_side(world: World) -> None:
    world.do("UPDATE impressions SET ad_id = 0 WHERE occurred_at > :at", at=NOW - DAY)
    found = out(world.check())
    assert {"psi of hit", "psi of rank", "psi of first_category_mass", "psi of max_cosine"} <= found
    assert not found & {"psi of entropy", "psi of list_age_s"}


def test_short_lists_and_missing_summaries_are_found(world: World) -> None:
    world.do("DELETE FROM retrieval_log WHERE event_at > :at AND user_id % 2 = 0", at=NOW - 8 * DAY)
    world.do("DELETE FROM interest_summaries WHERE user_id % 10 = 0")
    with world.database.begin() as connection:
        append_lists(connection, USER_IDS[1::2], make_lists(USER_IDS[1::2], at=NOW - HOUR, ads=3))
    checked = world.check()
    assert {"short_lists_ratio", "summary_coverage_ratio"} <= out(checked)
    assert value(checked, "short_lists_ratio") == 0.5
    assert value(checked, "summary_coverage_ratio") == 0.9
    assert out(world.check(min_length=3, min_summaries=0.9, max_psi=99)) == set()


def test_an_online_store_that_lost_everything_or_holds_other_bytes_is_found(world: World) -> None:
    for key in [key for key in world.online.scan_iter() if b"user_id" in key][:60]:
        record = max(world.online.hgetall(key).items(), key=lambda item: len(item[1]))
        world.online.hset(key, record[0], record[1].replace(b"release", b"realese"))
    checked = world.check()
    assert value(checked, "neutral_ratio of corrupted") == value(checked, "neutral_users_ratio") == 0.2
    assert out(checked) == set()
    assert out(world.check(max_neutral=0.19)) == {"neutral_users_ratio"}
    world.online.flushall()
    checked = world.check()
    assert value(checked, "neutral_ratio of no_list") == 1
    assert {"neutral_users_ratio", "online_behind_ratio of user_profile", "online_behind_ratio of ad_index"} < out(
        checked
    )


def test_time_that_passes_without_new_rows_is_found(world: World) -> None:
    found = out(world.check(now=NOW + 3 * DAY))
    assert {"age_seconds of interest_summary", "age_seconds of retrieved_ads"} <= found
    assert not found & {"age_seconds of user_profile", "age_seconds of ad_index"}


def test_what_cannot_be_checked_is_told_apart_from_what_is_out_of_bounds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run(now="2027-01-01")
    assert done.exit_code == 3
    assert "nobody had a positive behavior in the 7 days before 2027-01-01" in done.output
    monkeypatch.setenv("LEADRE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    done = run()
    assert done.exit_code == 3
    assert "PostgreSQL does not answer" in done.output


def test_too_few_rows_are_not_judged(world: World) -> None:
    checked = world.check(min_rows=USERS + 1)
    assert {figure.value for figure in checked.of("psi")} == {None}
    assert "301 are needed" in checked.of("psi")[0].note


def test_every_reason_for_neutral_values_is_told_apart() -> None:
    ids = USER_IDS[:2]
    records = [
        None,
        b"",
        *pack(make_lists(ids, at=NOW, ads=0)),
        *pack(make_lists(ids, at=NOW - timedelta(days=8))),
        *pack(make_lists(ids, at=NOW + HOUR)),
        *pack(make_lists(ids, at=NOW - timedelta(days=7))),
    ]
    shares = {figure.of.get("why", ""): figure.value for figure in _neutral(records, now=NOW, bounds=Bounds())}
    assert shares == {
        "": 0.8,
        "no_list": 0.1,
        "corrupted": 0.1,
        "empty": 0.2,
        "expired": 0.2,
        "from_the_future": 0.2,
    }


def test_the_options_are_the_bounds_with_their_defaults() -> None:
    options = {option.name: option.default for option in command.params}
    bounds = {field.name: field.default for field in fields(Bounds)}
    assert {name: options.get(name) for name in bounds} == bounds


def test_gauges_name_no_user(world: World) -> None:
    gauges = world.check().gauges("state")
    assert {label for _, labels, _ in gauges for label, _ in labels} == {
        *("what", "view", "quantile", "index_version", "release", "why", "feature")
    }
    assert ("leadre_feature_age_seconds", (("view", "retrieved_ads"),), 3600.0) in gauges
    assert np.isfinite([number for _, _, number in gauges]).all()
    assert ADS == 40
