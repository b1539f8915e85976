from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.domain.targeting import ATTRIBUTES, EVERYBODY, NOBODY, Targeting, values_of
from leadre.domain.users import Profile
from leadre.errors import InvalidInput

ANN = Profile(
    user_id=1,
    age=22,
    sex="Female",
    residence="Haidian,  Beijing",
    education_level="master's",
    occupation="retail",
    consumption_level="high",
    device="iOS",
)


@pytest.mark.parametrize(
    ("plain", "admitted"),
    [
        ({}, True),
        ({"age": [22, 22]}, True),
        ({"age": [18, 21]}, False),
        ({"age": [23, 150]}, False),
        ({"sex": [" FEMALE "]}, True),
        ({"sex": ["male"]}, False),
        ({"residence": ["beijing"]}, True),
        ({"residence": ["Haidian"]}, True),
        ({"residence": ["Haidian,Beijing"]}, True),
        ({"residence": ["Beijing, Haidian"]}, False),
        ({"residence": ["Bei"]}, False),
        ({"device": ["android", "ios"], "occupation": ["Retail"], "age": [0, 30]}, True),
        ({"device": ["android", "ios"], "occupation": ["farming"], "age": [0, 30]}, False),
    ],
)
def test_every_restriction_must_hold(plain: dict[str, object], admitted: bool) -> None:
    assert Targeting.of(plain).admits(ANN) is admitted


@pytest.mark.parametrize("plain", [{"age": [0, 150]}, *({name: ["x", "y"]} for name in ATTRIBUTES)])
def test_a_user_whose_value_is_unknown_does_not_see_a_restricted_ad(plain: dict[str, object]) -> None:
    assert not Targeting.of(plain).admits(Profile(user_id=2))
    assert EVERYBODY.admits(Profile(user_id=2))
    assert not NOBODY.admits(ANN)


def test_a_comma_alone_is_no_residence() -> None:
    assert values_of(Profile(user_id=3, residence=" , "), "residence") == frozenset()
    assert values_of(Profile(user_id=3, occupation="a, b"), "occupation") == {"a, b"}


@pytest.mark.parametrize(
    ("plain", "problem"),
    [
        ([], "targeting is an object"),
        ({"residense": ["x"]}, "did you mean 'residence'"),
        ({"zodiac": ["x"]}, "known are age, sex, residence"),
        ({"age": [45, 18]}, r"\[lowest, highest\].*not \[45, 18\]"),
        ({"age": [-1, 18]}, "from 0 to 150"),
        ({"age": [18.0, 45]}, "whole numbers"),
        ({"age": [True, 45]}, "whole numbers"),
        ({"age": 18}, "whole numbers"),
        ({"sex": "female"}, "takes a list of texts"),
        ({"sex": []}, "leave the attribute out"),
        ({"sex": ["female", " "]}, "none of them empty"),
        ({"residence": [","]}, "none of them empty"),
        ({"device": [7]}, r"not \[7\]"),
        ({"device": None}, "takes a list"),
    ],
)
def test_what_cannot_be_a_targeting_is_refused(plain: object, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        Targeting.of(plain)


TEXTS = st.text("abÀß ,", min_size=1).filter(lambda text: text.replace(",", " ").strip())


@given(
    st.none() | st.tuples(st.integers(0, 60), st.integers(60, 150)),
    st.dictionaries(st.sampled_from(ATTRIBUTES), st.lists(TEXTS, min_size=1, max_size=3)),
)
def test_the_plain_form_is_json_and_comes_back(age: tuple[int, int] | None, accepted: dict[str, list[str]]) -> None:
    targeting = Targeting.of({**accepted, **({"age": list(age)} if age else {})})
    assert Targeting.of(json.loads(json.dumps(targeting.plain()))) == targeting
    for name, values in accepted.items():
        assert Targeting.of({name: values}).admits(Profile(user_id=1, **{name: values[0]}))
