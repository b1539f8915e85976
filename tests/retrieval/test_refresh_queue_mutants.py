"""Faults put into the scripts on purpose: the queue's own tests see each. Many more: tests/retrieval/mutants.py."""

from __future__ import annotations

import pytest

from leadre.retrieval import refresh_queue_keys
from tests.retrieval.mutants import PARTS, Mutant, killer, mutants

FAULTS = {
    "a new request loses the place in time": ("common", "since = math.min(", "since = math.max("),
    "a lease that ran out may be settled": ("common", "call('HDEL', CLAIMS, users)", ""),
    "a budget that refills without end": ("common", "math.min(burst, ", "math.max(burst, "),
    "requests of dead users only": ("mark", "if not dead[i]", "if dead[i]"),
    "the least valuable user first": ("order", "one.value > other.value", "one.value < other.value"),
    "a poison user takes others along": ("claim", ">= FAILURE", "> 2 * FAILURE"),
    "one user too many": ("claim", "< 2 * limit", "<= 2 * limit"),
    "anybody's token settles": ("settle", "if token == ", "if token ~= "),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_script_is_seen(redis_url: str, fault: str) -> None:
    part, was, now = FAULTS[fault]
    lines = refresh_queue_keys.source(part).splitlines(keepends=True)
    ((number, line),) = [(number, line) for number, line in enumerate(lines, start=1) if was in line]
    assert killer(Mutant(part=part, line=number, was=line, now=line.replace(was, now)), redis_url, examples=0)


def test_the_scripts_without_a_fault_pass_the_same_tests(redis_url: str) -> None:
    assert killer(Mutant(part="none", line=1, was="", now=""), redis_url, examples=0) is None


def test_every_script_has_mutants() -> None:
    found = list(mutants())
    assert {mutant.part for mutant in found} == set(PARTS)
    assert len(found) >= 30
