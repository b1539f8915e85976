"""The simulated fleet: it loses nothing, never does more than it can, and shows what a counter is for."""

from __future__ import annotations

import importlib
import math
from random import Random
from typing import Any

import pytest


@pytest.fixture
def sim() -> Any:
    return importlib.import_module("simulated_fleet")


def ran(sim: Any, policy: str, *, load: float, scenario: Any = None, **crash: Any) -> list[Any]:
    scenario = scenario or sim.scenarios(4)["homogeneous"]
    made = sim.POLICIES[policy](Random(1))
    found: list[Any] = sim.simulate(scenario, made, load=load, requests=600, seed=2, **crash)
    return found


def test_every_policy_answers_every_request_after_its_own_service_time(sim: Any) -> None:
    for policy in sim.POLICIES:
        for request in ran(sim, policy, load=0.5):
            assert request.finished - request.arrived > sim.SETUP_S
            assert math.isfinite(request.finished)


def test_no_policy_does_more_than_the_theoretical_load(sim: Any) -> None:
    scenario = sim.scenarios(4)["heterogeneous"]
    for policy in sim.POLICIES:
        asked = ran(sim, policy, load=3.0, scenario=scenario)
        last = max(request.finished for request in asked)
        work = sum(request.work for request in asked) / sim.MEAN_WORK / len(asked)
        assert len(asked) / last <= scenario.capacity * 1.01 / min(1.0, work)


def test_counters_of_work_carry_what_turns_do_not(sim: Any) -> None:
    scenario = sim.scenarios(4)["heterogeneous"]
    assert sim.in_slo(ran(sim, "global_work", load=0.9, scenario=scenario)) > 0.99
    assert sim.in_slo(ran(sim, "round_robin", load=0.9, scenario=scenario)) < 0.9


def test_who_dies_loses_what_is_its_own_and_no_more(sim: Any) -> None:
    by_instance = ran(sim, "global_work", load=0.6, crash=(5.0, "instance"))
    assert all(math.isfinite(request.finished) for request in by_instance)

    by_proxy = ran(sim, "global_work", load=0.6, crash=(5.0, "proxy"))
    lost = [request for request in by_proxy if not math.isfinite(request.finished)]
    assert all(request.arrived <= 5.0 and request.proxy == 0 for request in lost)


def test_a_filter_costs_its_name_once_it_is_known() -> None:
    figures = importlib.import_module("bench_balancer").filters(100_000)
    assert figures["filter_first_bytes"] < figures["filter_bitmap_bytes"]
    assert figures["filter_again_bytes"] < 40
    assert figures["filter_one_ad_paused_bytes"] < 100
