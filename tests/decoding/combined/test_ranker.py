"""The ranker: what its scores are, what its fit finds, and how a release keeps it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.decoding.combined.features import AD_FEATURES, USER_FEATURES, Candidates
from leadre.decoding.combined.ranker import FILE, PENALTIES, Ranker
from leadre.errors import ArtifactIncomplete

EACH = 12


def drawn(requests: int, *, seed: int = 0) -> Candidates:
    """Two distributions over as many ads for each request, and random features."""
    random = np.random.default_rng(seed)
    both = random.normal(scale=1.5, size=(2, requests, EACH))
    both -= np.log(np.exp(both).sum(axis=2, keepdims=True))
    return Candidates(
        request=np.repeat(np.arange(requests), EACH),
        leaf=np.tile(np.arange(EACH), requests),
        by_llm=both[0].ravel(),
        by_signal=both[1].ravel(),
        user=random.random((requests, len(USER_FEATURES))),
        ad=random.random((requests * EACH, len(AD_FEATURES))),
    )


def chosen_by(ranker: Ranker, candidates: Candidates, *, scale: float, seed: int = 1) -> np.ndarray:
    """The leaf that each request's user takes, drawn by the ranker's scores."""
    odds = scale * ranker.scores(candidates).reshape(-1, EACH)
    shares = np.exp(odds - odds.max(axis=1, keepdims=True)).cumsum(axis=1)
    taken: np.ndarray = (np.random.default_rng(seed).random((len(odds), 1)) * shares[:, -1:] > shares).sum(axis=1)
    return taken


COEFFICIENTS = st.floats(-4, 4)


@given(
    bias=COEFFICIENTS,
    user=st.lists(COEFFICIENTS, min_size=len(USER_FEATURES), max_size=len(USER_FEATURES)),
    ad=st.lists(COEFFICIENTS, min_size=len(AD_FEATURES), max_size=len(AD_FEATURES)),
)
def test_scores_are_at_most_the_weighted_geometric_mean_and_never_above_0(
    bias: float, user: list[float], ad: list[float]
) -> None:
    candidates = drawn(5)
    ranker = Ranker(bias=bias, user=np.array(user), ad=np.array(ad))
    scores, weight = ranker.scores(candidates), ranker.weights(candidates.user)[candidates.request]
    assert ((weight >= 0) & (weight <= 1)).all()
    assert (scores <= (1 - weight) * candidates.by_llm + weight * candidates.by_signal + 1e-9).all()
    assert (scores <= 0).all()


@pytest.mark.parametrize(("weight", "name"), [(0.0, "by_llm"), (1.0, "by_signal")])
def test_a_weight_of_0_or_1_is_one_of_the_two_alone(weight: float, name: str) -> None:
    candidates = drawn(4)
    assert np.array_equal(Ranker.of_weight(weight).scores(candidates), getattr(candidates, name))


def test_one_weight_for_all_is_the_order_of_the_fusion() -> None:
    candidates = drawn(4)
    found = Ranker.of_weight(0.3).scores(candidates)
    assert found == pytest.approx(0.7 * candidates.by_llm + 0.3 * candidates.by_signal)


def test_the_fit_finds_who_trusts_which_list_and_which_feature_counts() -> None:
    truth = Ranker(bias=-2.0, user=np.array([4.0, 0.0, 0.0]), ad=np.array([0, 2.0, 0, 0, 0, -1.0]))
    candidates = drawn(4000)
    found = Ranker.fit(candidates, chosen_by(truth, candidates, scale=1.5), seed=0)
    assert found.penalty in PENALTIES[:-1]
    assert found.bias == pytest.approx(-2.0, abs=0.5)
    assert found.user == pytest.approx([4.0, 0.0, 0.0], abs=0.8)
    assert found.ad == pytest.approx(truth.ad, abs=0.3)
    assert found.scale == pytest.approx(1.5, abs=0.2)


def test_where_features_say_nothing_the_fit_gives_nearly_one_weight() -> None:
    candidates = drawn(400)
    found = Ranker.fit(candidates, chosen_by(Ranker.of_weight(0.75), candidates, scale=1.0), seed=0)
    assert found.weights(candidates.user).mean() == pytest.approx(0.75, abs=0.15)
    assert abs(found.ad).max() < 0.8
    assert found.scale == pytest.approx(1.0, abs=0.3)


def test_ads_outside_the_candidates_and_too_few_users_teach_nothing() -> None:
    candidates = drawn(30)
    wanted = np.full(30, -1)
    wanted[:9] = 3
    found = Ranker.fit(candidates, wanted, seed=0)
    assert found.weights(candidates.user) == pytest.approx(0.5)
    assert found.penalty is None


def test_joined_candidates_are_those_of_the_parts() -> None:
    one, other = drawn(3), drawn(2, seed=5)
    both = Candidates.joined([one, other])
    assert both.request.tolist() == [*one.request.tolist(), *(other.request + 3).tolist()]
    ranker = Ranker(bias=0.3, user=np.array([1.0, -1.0, 0.5]), ad=np.arange(6) / 3)
    assert ranker.scores(both) == pytest.approx(np.concatenate([ranker.scores(one), ranker.scores(other)]))


def test_a_release_keeps_its_ranker_and_refuses_one_of_other_features(tmp_path: Path) -> None:
    assert Ranker.load(tmp_path) is None
    kept = Ranker(bias=0.5, user=np.array([1.0, 2.0, 3.0]), ad=np.arange(6.0), scale=1.3, penalty=1e-2)
    (tmp_path / FILE).write_text(json.dumps(kept.to_json()))
    found = Ranker.load(tmp_path)
    assert found is not None
    assert found.to_json() == kept.to_json()
    (tmp_path / FILE).write_text(json.dumps({**kept.to_json(), "user": {"history": 1.0}}))
    with pytest.raises(ArtifactIncomplete, match="train the release again"):
        Ranker.load(tmp_path)
