"""A name typed wrongly gets the one that was meant, and how to see all."""

from __future__ import annotations

import pytest

from leadre.names import did_you_mean, nearest, not_there


@pytest.mark.parametrize(
    ("typed", "meant"), [("relase-1", "release-1"), ("release-2", "release-1"), ("RELEASE", None), ("", None)]
)
def test_the_nearest_name_is_found_where_one_is_near(typed: str, meant: str | None) -> None:
    assert nearest(typed, ["other", "release-1"]) == meant
    assert did_you_mean(typed, ["other", "release-1"]) == (f"did you mean '{meant}'? " if meant else "")


def test_what_is_not_there_says_the_near_name_and_the_command_that_lists_all() -> None:
    said = str(not_there("release", "relase-1", ["demo", "release-1"], lists="leadre release list"))
    assert said == (
        "there is no release 'relase-1'; did you mean 'release-1'? `leadre release list` shows those there are"
    )
    said = str(not_there("release", "xyzzy", ["demo"], lists="leadre release list"))
    assert said == "there is no release 'xyzzy'; `leadre release list` shows those there are"


def test_few_names_are_listed_in_the_message_itself() -> None:
    assert str(not_there("view", "adz", ["users", "ads"])) == (
        "there is no view 'adz'; did you mean 'ads'? there are ads, users"
    )


def test_a_long_name_is_cut() -> None:
    assert len(str(not_there("view", "x" * 10_000, ["ads"]))) < 200
