"""The ranker example: does a strong ranker become better with LEADRE's features, and are they the same online?

LEADRE §5.3. `python -m examples.ranker.run --data synthetic|beauty|taobao`; examples/ranker/README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from examples.ranker import baseline, walk, worlds
from examples.ranker.lists import Ready, Say, newest_users
from examples.ranker.measures import auc, compare, gauc, log_loss
from examples.ranker.rankers import Ranker, boosted, deep_cross
from leadre.store.features.client import FeatureClient
from leadre.store.features.ranking import RankingFeatures
from leadre.store.records.database import connect

USER_SIDE = tuple(name for name in walk.NAMES if name not in walk.ITEM_SIDE)
PLACEBO = tuple(f"other_{name}" for name in USER_SIDE)
"""User-side features of another user: a lift of these would be no merit of the lists."""
SETS: dict[str, tuple[str, ...]] = {
    "without": baseline.NAMES,
    "user_side": (*baseline.NAMES, *USER_SIDE),
    "item_side": (*baseline.NAMES, *walk.ITEM_SIDE),
    "with": (*baseline.NAMES, *walk.NAMES),
    "placebo": (*baseline.NAMES, *PLACEBO),
}
"""Columns of the rankers that are compared."""
AsOf = Literal["row", "list"]
SHARES = (0.6, 0.15)
"""Of the rows, by time: for training and for validation; the rest is the test (ours)."""
SKEW_ROWS, CANDIDATES = 10_000, 20


def measure(
    ready: Ready, *, seed: int, networks: bool, skew_rows: int, say: Say, baseline_as_of: AsOf = "row"
) -> dict[str, Any]:
    """Return all figures of a world: rankers with and without LEADRE's features, and the skew.

    Args:
        ready: the world.
        seed: of trainings and draws.
        networks: train the networks too.
        skew_rows: rows whose features are compared offline and online.
        say: told what is being done.
        baseline_as_of: until when the baseline's features see what happened: the row's own instant, or its list's.
    """
    settings, rows = ready.settings, ready.rows.sort_values("event_timestamp", kind="stable", ignore_index=True)
    client = FeatureClient(settings.feature_repo, settings.feast_environment())
    database = connect(settings.database_url, application_name="leadre ranker example")
    ranking = RankingFeatures(settings.redis_url, index=ready.index, poll_s=None, deadline_s=5.0)
    try:
        say(f"features of {len(rows):,} rows, each as of its own time")
        past = baseline.read_past(database, until=rows["event_timestamp"].iloc[-1].to_pydatetime())
        features = walk.historical(client, rows)
        others = _of_others(rows, features[list(USER_SIDE)], seed=seed)
        at = rows["event_timestamp"] if baseline_as_of == "row" else rows["event_timestamp"].dt.floor(ready.every)
        own = baseline.features(past, rows.assign(event_timestamp=at))
        table = pd.concat([rows, own, features, others], axis=1)
        say("rankers")
        trained, figures = _rankers(table, seed=seed, networks=networks)
        say("online")
        walk.go_online(client, at=ready.serve_at)
        candidates = _candidates(client, rows, count=skew_rows // CANDIDATES, seed=seed)
        skew = walk.skew(client, ranking, candidates, at=ready.serve_at)
        served = _served(client, ranking, past, trained, candidates, ready)
    finally:
        client.close()
        ranking.close()
        database.dispose()
    listed = table["retrieved_count"] > 0
    return {
        **figures,
        "skew": skew["feast"] + skew["in_process"],
        "skew_of": skew,
        "scores_that_differ": served,
        "lists": ready.lists,
        "releases": list(ready.releases),
        "rows_with_a_list": float(listed.mean()),
        "hits_of_positives": float(table.loc[table["label"] == 1, "hit"].mean()),
        "hits_of_negatives": float(table.loc[table["label"] == 0, "hit"].mean()),
    }


def _rankers(table: pd.DataFrame, *, seed: int, networks: bool) -> tuple[Ranker, dict[str, Any]]:
    """Train and compare; return the LightGBM ranker with all features, and the figures."""
    cuts = [table["event_timestamp"].iloc[int(len(table) * share)] for share in (SHARES[0], sum(SHARES))]
    train = table[table["event_timestamp"] < cuts[0]]
    valid = table[(table["event_timestamp"] >= cuts[0]) & (table["event_timestamp"] < cuts[1])]
    test = table[table["event_timestamp"] >= cuts[1]]
    labels, users = test["label"].to_numpy(np.float64), test["user_id"].to_numpy(np.int64)
    kinds: dict[str, Callable[..., Ranker]] = {"lightgbm": boosted, **({"dcn": deep_cross} if networks else {})}
    figures: dict[str, Any] = {
        "rows": {"train": len(train), "validation": len(valid), "test": len(test)},
        "users": {"test": len(np.unique(users))},
        "positives": {"train": int(train["label"].sum()), "test": int(labels.sum())},
    }
    ranker: Ranker | None = None
    for kind, make in kinds.items():
        scores = {}
        for name, columns in SETS.items():
            if kind == "lightgbm" or name in ("without", "with"):
                ranker_of = make(train, valid, columns, baseline.CODES, seed=seed)
                scores[name] = ranker_of.predict(test)
                ranker = ranker_of if kind == "lightgbm" and name == "with" else ranker
        figures[kind] = {
            "by_set": {
                name: {"auc": auc(of, labels), "gauc": gauc(of, labels, users), "log_loss": log_loss(of, labels)}
                for name, of in scores.items()
            },
            "lift": {
                name: {
                    of: asdict(figure)
                    for of, figure in compare(scores[name], scores["without"], labels, users, seed=seed).items()
                }
                for name in scores
                if name != "without"
            },
        }
    best, lift = figures["lightgbm"], figures["lightgbm"]["lift"]["with"]["auc"]
    assert ranker is not None  # noqa: S101 - LightGBM is always trained
    return ranker, {
        "auc_without": best["by_set"]["without"]["auc"],
        "auc_with": best["by_set"]["with"]["auc"],
        "lift": lift["value"],
        "lift_low": lift["low"],
        "lift_high": lift["high"],
        **figures,
    }


def _of_others(rows: pd.DataFrame, features: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return for each row the features that another user, always the same one, has first: columns `PLACEBO`."""
    users, first = np.unique(rows["user_id"], return_index=True)
    other = np.random.default_rng(seed).permutation(first)
    of_row = other[np.searchsorted(users, rows["user_id"])]
    return features.iloc[of_row].set_axis(list(PLACEBO), axis=1).reset_index(drop=True)


def _candidates(client: FeatureClient, rows: pd.DataFrame, *, count: int, seed: int) -> dict[int, list[int]]:
    """Return users with candidates each, half of them from the online list: those shown an ad last come first."""
    rng = np.random.default_rng(seed)
    chosen = newest_users(rows)[:count].tolist()
    ad_ids = rows["ad_id"].unique()
    candidates = {}
    for user_id, listed in zip(chosen, client.retrieval_lists(chosen), strict=True):
        first = [int(ad_id) for ad_id in listed.ad_ids[: CANDIDATES // 2]] if listed is not None else []
        others = rng.permutation(ad_ids[~np.isin(ad_ids, first)])
        candidates[user_id] = [*first, *others.tolist()][:CANDIDATES]
    return candidates


def _served(
    client: FeatureClient,
    ranking: RankingFeatures,
    past: baseline.Past,
    ranker: Ranker,
    candidates: dict[int, list[int]],
    ready: Ready,
) -> int:
    """Return for how many candidates the ranker says something else online than offline; it should be none."""
    rows = pd.DataFrame(
        [(user_id, ad_id) for user_id, ad_ids in candidates.items() for ad_id in ad_ids], columns=["user_id", "ad_id"]
    )
    rows["event_timestamp"] = pd.Timestamp(ready.serve_at)
    own = baseline.features(past, rows)
    online = [walk.online(ranking, user_id, ad_ids, now=ready.serve_at) for user_id, ad_ids in candidates.items()]
    offline = walk.historical(client, rows)
    first, second = (
        ranker.predict(pd.concat([own, of], axis=1)) for of in (offline, pd.concat(online, ignore_index=True))
    )
    return int((first != second).sum())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(prog="python -m examples.ranker.run", description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=["synthetic", "beauty", "taobao"], default="synthetic")
    parser.add_argument("--folder", type=Path, help="of amazon_beauty, or of the four Taobao files")
    parser.add_argument("--home", type=Path, help="where everything is kept; default .leadre-ranker-<data>")
    parser.add_argument("--release", help="a release that makes the lists; without it some are trained")
    parser.add_argument("--users", type=int, default=2000, help="of the made-up world, or of Taobao (2000)")
    parser.add_argument("--every-hours", type=int, default=6, help="how old a list may be (6; Beauty: a day)")
    parser.add_argument(
        "--baseline-as-of", choices=["row", "list"], default="row", help="list: it is as stale as lists"
    )
    parser.add_argument("--sets", type=int, default=4000, help="candidate sets of Beauty (4000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-networks", action="store_true", help="LightGBM alone")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    given = parser.parse_args(arguments)
    if given.data != "synthetic" and given.folder is None:
        parser.error(f"--data {given.data} needs --folder, where its files are")
    began, told = time.monotonic(), [0.0]

    def say(what: str) -> None:
        if time.monotonic() - told[0] > 2 or "/" not in what:  # of what is counted, now and then
            told[0] = time.monotonic()
            print(f"[{time.monotonic() - began:5.0f} s] {what}", file=sys.stderr)

    every = timedelta(hours=given.every_hours)
    settings = worlds.open_home(given.home or Path(f".leadre-ranker-{given.data}"))
    if given.data == "synthetic":
        ready = worlds.synthetic(
            settings, users=given.users, seed=given.seed + 7, release=given.release, every=every, say=say
        )
    elif given.data == "taobao":
        ready = worlds.taobao(settings, given.folder, users=given.users, release=given.release, every=every, say=say)
    else:
        ready = worlds.beauty(settings, given.folder, sets=given.sets, seed=given.seed, release=given.release, say=say)
    figures = measure(
        ready,
        seed=given.seed,
        networks=not given.no_networks,
        skew_rows=SKEW_ROWS,
        say=say,
        baseline_as_of=given.baseline_as_of,
    )
    figures = {"data": given.data, "made_up": given.data == "synthetic", **figures, "seconds": time.monotonic() - began}
    _print(figures)
    if given.json:
        print(json.dumps(figures))


def _print(figures: dict[str, Any]) -> None:
    made_up = ", a made-up world" if figures["made_up"] else ""
    print(
        f"\n{figures['data']}{made_up}: {figures['rows']}, {figures['positives']} positives, {figures['lists']:,} lists"
    )
    print(
        f"retrieved: {figures['hits_of_positives']:.3f} of positives, {figures['hits_of_negatives']:.3f} of negatives"
    )
    for kind in ("lightgbm", "dcn"):
        for name, of in figures.get(kind, {}).get("by_set", {}).items():
            lift = figures[kind]["lift"].get(name)
            said = " ".join(f"{what} {value:.4f}" for what, value in of.items())
            more = "" if lift is None else "  AUC {value:+.4f} [{low:+.4f}, {high:+.4f}]".format(**lift["auc"])
            print(f"  {kind:9s} {name:10s} {said}{more}")
    skew = figures["skew_of"]
    print(
        f"skew: {figures['skew']} of {skew['values']:,} values of {skew['rows']:,} rows differ, "
        f"{skew['neutral']:,} of them neutral; {figures['scores_that_differ']} scores differ"
    )


if __name__ == "__main__":
    main()
