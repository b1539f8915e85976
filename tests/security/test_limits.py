"""A huge body or title is refused before it costs anything. Figures: `python -m tests.security.limits`."""

from __future__ import annotations

import pytest

from tests.security.limits import in_process, over_http

MOST_MIB = 16


@pytest.mark.slow
def test_a_huge_body_is_refused_and_kept_nowhere(environment: dict[str, str]) -> None:
    for case, figures in over_http(environment, rounds=3).items():
        assert figures["grew_mib"] <= MOST_MIB, case


def test_a_huge_title_is_cut_or_refused_everywhere() -> None:
    for case, figures in in_process(rounds=3).items():
        assert figures["grew_mib"] <= MOST_MIB, case
