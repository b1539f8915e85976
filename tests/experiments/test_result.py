"""What is said of differences: sizes, intervals, and whether the paper's direction is reproduced."""

from __future__ import annotations

import json

import numpy as np
import pytest

from leadre.errors import InvalidInput
from leadre.experiments.result import Experiment, Measured, compare, tabulate

METRICS = ("HR@8", "NDCG@8", "LTRR@8")
PAPER = {"full": {"HR@8": 0.20, "NDCG@8": 0.14}, "less": {"HR@8": 0.15, "NDCG@8": 0.14}}


def runs(shift: float, *, seeds: int = 3, users: int = 400) -> Measured:
    """Two figures around `shift`, one that nobody has."""
    values = np.full((seeds, users, 3), np.nan)
    own = np.random.default_rng(0).normal(1.0, 0.5, (1, users, 2))
    values[:, :, :2] = own + np.random.default_rng(abs(int(1e6 * shift))).normal(shift, 0.1, (seeds, users, 2))
    return Measured(metrics=METRICS, values=values)


def found(less: float, **more: object) -> Experiment:
    return tabulate(
        {"full": runs(0.0), "less": runs(less)},
        name="t",
        title="T",
        note="made up",
        seeds=(0, 1, 2),
        metrics=("NDCG@8", "HR@8", "LTRR@8"),
        paper=PAPER,
        seed=0,
        **more,  # type: ignore[arg-type]
    )


def test_a_pair_is_compared_by_user_and_seed_and_the_direction_is_the_papers() -> None:
    made = found(-0.2)
    assert (made.users, made.reference, made.metrics) == (400, "full", ("NDCG@8", "HR@8"))  # nobody has LTRR
    ndcg, hits = made.compared("less", "full")
    assert hits.paper == pytest.approx(-0.25)
    assert hits.relative == pytest.approx(hits.difference.mean / made.row("full").figures["HR@8"].mean)
    assert hits.certain
    assert hits.verdict == "reproduced"
    assert (hits.difference.high - hits.difference.low) < 0.05  # far below the users' own spread
    assert ndcg.verdict == "no direction to compare with"  # the paper prints equal figures
    assert made.row("less").seed_sd["HR@8"] > 0


@pytest.mark.parametrize(
    ("less", "verdict"),
    [(0.2, "opposite direction"), (1e-4, "not reproduced, the interval holds zero")],
)
def test_what_is_not_reproduced_is_said(less: float, verdict: str) -> None:
    assert found(less).compared("less", "full")[1].verdict == verdict


def test_a_direction_in_words_stands_in_for_missing_figures() -> None:
    made = found(0.2, directions={("less", "full"): {"NDCG@8": -1}}, pairs=[("full", "less")])
    assert made.compared("less", "full")[0].verdict == "no direction to compare with"  # printed figures come first
    bare = compare(
        {"a": runs(0.2), "b": runs(0.0)}, [("a", "b")], paper={}, seed=0, directions={("a", "b"): {"HR@8": 1}}
    )
    assert bare[0].verdict == "reproduced"
    assert made.compared("full", "less")[1].difference.mean == pytest.approx(
        -made.compared("less", "full")[1].difference.mean
    )


def test_rows_of_other_users_or_seeds_are_not_compared() -> None:
    with pytest.raises(InvalidInput, match="same seeds, users and metrics"):
        compare({"a": runs(0.0), "b": runs(0.0, seeds=2)}, [("a", "b")], paper={}, seed=0)


def test_the_plain_form_is_json_and_holds_the_verdicts() -> None:
    plain = json.loads(json.dumps(found(-0.2).to_json(), allow_nan=False))
    assert plain["comparisons"][1]["verdict"] == "reproduced"
    assert plain["rows"][0]["paper"] == PAPER["full"]
    assert plain["seeds"] == [0, 1, 2]
