"""Where marks are: always inside their area, and in the order of the figures."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from leadre.report.plots import chart, nice, shares, whiskers

numbers = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))
triples = st.lists(numbers, min_size=3, max_size=3).map(sorted).map(lambda v: (v[1], v[0], v[2]))


@given(st.lists(triples, min_size=1, max_size=6))
def test_whiskers_lie_on_their_scale_with_the_mean_inside(values) -> None:
    placed, zero = whiskers(values, zero=False)
    assert zero is not None
    assert 0 <= zero <= 100
    for mark in placed:
        assert -0.01 <= mark.left <= mark.at + 0.01 <= mark.left + mark.width + 0.05 <= 100.1


@given(st.lists(st.tuples(st.floats(0, 1e5), numbers), min_size=1, max_size=20))
@example([(5e-324, 0.0)])
@example([(0.0, 0.0), (5e-324, 1.0)])
def test_lines_stay_in_their_area(points) -> None:
    made = chart({"one": points})
    assert all(0 <= x <= 100 and -0.01 <= y <= 100.01 for x, y in made.lines[0].dots)
    assert all(-0.01 <= at <= 100.01 for at, _ in (*made.x_ticks, *made.y_ticks))


@given(numbers, numbers)
def test_ticks_are_few_rising_and_hold_the_span(one, other) -> None:
    low, high = sorted((one, other))
    ticks = nice(low, high)
    assert ticks == sorted(set(ticks))
    assert 2 <= len(ticks) <= 9
    assert ticks[0] <= low + 1e-6 * max(1, abs(low))
    assert ticks[-1] >= high - 1e-6 * max(1, abs(high))


def test_bars_are_shares_of_the_limit() -> None:
    assert shares([1.0, 2.0], limit=4.0) == [25.0, 50.0]
    assert shares([0.0, 3.0]) == [0.0, 100.0]
    assert shares([]) == []
