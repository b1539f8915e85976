"""Worlds and arms: train what is needed, run every arm in every world, and put the lifts together. LEADRE §5.3."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leadre.domain.behavior import Action
from leadre.domain.retrieval import RetrievalList
from leadre.evaluation.bootstrap import Interval
from leadre.recipe import Recipe
from leadre.retrieval.cheap_lane import CheapLists
from leadre.retrieval.loaded_release import LoadedRelease
from leadre.simulation.arms import ADAPTIVE, AGAIN, ARMS, ARRIVAL, BRANCH, CONTROL, FEATURES, SFT, Arm, Measured
from leadre.simulation.journal import Journal
from leadre.simulation.loop import State, run_arm
from leadre.simulation.nature import make_nature
from leadre.simulation.nearline import Nearline
from leadre.simulation.observed import Observed
from leadre.simulation.parameters import SWEPT, Parameters
from leadre.simulation.release import RECIPE, Progress, inventory_of, own_servers, release_of
from leadre.simulation.result import ArmRow, Simulation, SweepRow
from leadre.simulation.statistics import paired_lift, randomised_lift
from leadre.simulation.system import System, build_system

Floats = NDArray[np.float64]

REHEARSED = BRANCH
"""The arm that everybody is in during the rehearsal."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class World:
    """A world that is ready: its system has learned, its releases are in memory.

    Args:
        seed: of the world.
        system: branches and rankers.
        releases: after DPO and before it, by `Arm.dpo`.
        spent: float64[U], what each user's clicks were worth in the history: what CUPED takes out.
        journal: what users have done until the rehearsal's end.
        lists: LEADRE's of that time, by user.
    """

    seed: int
    system: System
    releases: Mapping[bool, LoadedRelease]
    spent: Floats
    journal: Journal
    lists: Mapping[int, RetrievalList]


def simulate(
    *,
    home: Path,
    parameters: Parameters | None = None,
    seeds: Sequence[int] = (1, 2, 3, 4, 5),
    sweep_seeds: Sequence[int] = (),
    recipe: Recipe = RECIPE,
    progress: Progress | None = None,
) -> Simulation:
    """Run the simulated experiment.

    Args:
        home: the simulation's folder: releases of worlds are kept there, and its own servers live there.
        parameters: of the system; the defaults unless given.
        seeds: of the worlds.
        sweep_seeds: of the worlds in which parameters are swept as well; none: no sweep.
        recipe: of the worlds' releases.
        progress: called with what is being done, how much of it is done, and how much there is.

    Raises:
        ConfigError, Unavailable, InvalidInput: as `release_of`.
    """
    base = parameters or Parameters()
    measured: dict[str, list[Measured]] = {arm.name: [] for arm in ARMS}
    swept: dict[tuple[str, float], dict[str, list[Measured]]] = {}
    spent: list[Floats] = []
    total = len(seeds) * len(ARMS) + len(sweep_seeds) * len(list(_sweep()))
    done = 0
    with own_servers(home) as servers:
        for seed in dict.fromkeys([*seeds, *sweep_seeds]):
            world = make_world(
                base,
                seed=seed,
                home=home,
                database_url=lambda: servers().database_url,
                recipe=recipe,
                progress=progress,
            )
            if seed in seeds:
                spent.append(world.spent)
                for arm in ARMS:
                    measured[arm.name].append(run_in(world, arm, base))
                    done += 1
                    _tell(progress, done, total)
            if seed in sweep_seeds:
                for name, value, arm in _sweep():
                    changed = replace(base, **{name: value})
                    of_value = swept.setdefault((name, value), {})
                    of_value.setdefault(arm.name, []).append(run_in(world, arm, changed))
                    done += 1
                    _tell(progress, done, total)
    return Simulation(
        parameters=base,
        seeds=tuple(seeds),
        sweep_seeds=tuple(sweep_seeds),
        arms=tuple(_row(arm, measured) for arm in ARMS),
        lifts=_lifts(measured),
        aa_randomised=_aa(measured, spent, seeds),
        ab_randomised=_ab(measured, spent, seeds),
        sweep=tuple(_sweep_row(name, value, arms) for (name, value), arms in swept.items()),
    )


def make_world(
    parameters: Parameters,
    *,
    seed: int,
    home: Path,
    database_url: Callable[[], str],
    recipe: Recipe = RECIPE,
    progress: Progress | None = None,
) -> World:
    """Make a world: its releases trained or found, its rankers through the rehearsal."""
    _, observed = make_nature(parameters, seed=seed)
    trained = release_of(observed, home=home, database_url=database_url, recipe=recipe, progress=progress)
    releases = {dpo: trained.loaded(dpo=dpo) for dpo in (True, False)}
    system = build_system(
        observed, recipe=recipe.prompt, release=releases[True], beam_width=parameters.beam_width, seed=seed
    )
    before = replace(observed, live=observed.launched)
    nature, _ = make_nature(parameters, seed=seed)
    state = State(
        journal=Journal(observed, recipe=recipe.prompt),
        nearline=_nearline(REHEARSED, system.over(before), releases[True], parameters, lists={}),
    )
    _, log = run_arm(
        REHEARSED,
        nature,
        system.over(before),
        state,
        parameters=parameters,
        ticks=range(parameters.rehearsal_ticks),
        release=releases[True],
    )
    log = system.log.and_then(log)
    return World(
        seed=seed,
        system=replace(system, log=log, rankers=log.rankers(seed=seed)),
        releases=releases,
        spent=_spent(observed),
        journal=state.journal,
        lists=dict(state.nearline.lists) if state.nearline else {},
    )


def run_in(world: World, arm: Arm, parameters: Parameters) -> Measured:
    """Run one arm's experiment in a world, which goes on as the parameters say."""
    nature, observed = make_nature(parameters, seed=world.seed, luck=arm.luck)
    system, release = world.system.over(observed), world.releases[arm.dpo] if arm.leadre else None
    known = {user: each for user, each in world.lists.items() if user not in set(observed.cold)}
    state = State(
        journal=world.journal.copy(without=observed.cold),
        nearline=_nearline(arm, system, release, parameters, lists=known) if release else None,
    )
    measured, _ = run_arm(
        arm,
        nature,
        system,
        state,
        parameters=parameters,
        ticks=range(parameters.rehearsal_ticks, parameters.all_ticks),
        release=release,
    )
    return measured


def _nearline(
    arm: Arm,
    system: System,
    release: LoadedRelease,
    parameters: Parameters,
    *,
    lists: Mapping[int, RetrievalList],
) -> Nearline:
    observed = system.observed
    return Nearline(
        release,
        inventory=inventory_of(release.index, observed.live),
        beam_width=parameters.beam_width,
        policy=arm.policy,
        capacity=parameters.llm_budget * parameters.users * parameters.visits / parameters.ticks,
        unseen_discount=parameters.unseen_discount,
        arpu=_spent(observed),
        cheap=CheapLists(
            release.index,
            system.branches.visits,
            release=release.release,
            release_epoch=0,
            beam_width=parameters.beam_width,
        ),
        lists=lists,
    )


def _sweep() -> Iterator[tuple[str, float, Arm]]:
    for name, values in SWEPT.items():
        arms = (CONTROL, ARRIVAL, ADAPTIVE) if name == "llm_budget" else (CONTROL, BRANCH, FEATURES)
        for value in values:
            for arm in arms:
                yield name, value, arm


def _spent(observed: Observed) -> Floats:
    """Return what each user's clicks were worth before the experiment, float64[U]."""
    spent = np.zeros(len(observed.profiles))
    for each in observed.behaviors:
        if each.action in (Action.CLICK, Action.CONVERSION):
            spent[each.user_id] += observed.bids[each.item_id]
    return spent


def _tell(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress("arms of worlds", done, total)


def _row(arm: Arm, measured: Mapping[str, Sequence[Measured]]) -> ArmRow:
    summaries = [each.summary() for each in measured[arm.name]]
    return ArmRow(
        name=arm.name, figures={name: float(np.mean([one[name] for one in summaries])) for name in summaries[0]}
    )


def _paired(
    measured: Mapping[str, Sequence[Measured]], ours: Arm, theirs: Arm, field: str, *, seed: int = 0
) -> Interval:
    return paired_lift(
        [getattr(each, field) for each in measured[ours.name]],
        [getattr(each, field) for each in measured[theirs.name]],
        seed=seed,
    )


_PAIRS = {
    "branch": (BRANCH, CONTROL),
    "features": (FEATURES, BRANCH),
    "both": (FEATURES, CONTROL),
    "dpo": (BRANCH, SFT),
    "ard": (ADAPTIVE, ARRIVAL),
    "limited_ard": (ADAPTIVE, CONTROL),
    "aa": (AGAIN, CONTROL),
}


def _lifts(measured: Mapping[str, Sequence[Measured]]) -> dict[str, dict[str, Interval]]:
    return {
        name: {
            field: _paired(measured, ours, theirs, field)
            for field in ("gmv", "expected_gmv", "revenue", "clicks", "impressions")
        }
        for name, (ours, theirs) in _PAIRS.items()
    }


def _groups(spent: Sequence[Floats], seeds: Sequence[int]) -> list[NDArray[np.bool_]]:
    """Return who is in the treatment group of each world: half of the users."""
    return [
        np.random.default_rng((seed, 3)).permutation(len(past)) < len(past) // 2
        for seed, past in zip(seeds, spent, strict=True)
    ]


def _randomised(
    ours: Sequence[Measured], theirs: Sequence[Measured], spent: Sequence[Floats], seeds: Sequence[int]
) -> Interval:
    values = [(a.gmv, b.gmv) for a, b in zip(ours, theirs, strict=True)]
    return randomised_lift(values, spent, _groups(spent, seeds), seed=0)


def _aa(measured: Mapping[str, Sequence[Measured]], spent: Sequence[Floats], seeds: Sequence[int]) -> Interval:
    control = measured[CONTROL.name]
    return _randomised(control, control, spent, seeds)


def _ab(
    measured: Mapping[str, Sequence[Measured]], spent: Sequence[Floats], seeds: Sequence[int]
) -> dict[str, Interval]:
    return {
        "branch": _randomised(measured[BRANCH.name], measured[CONTROL.name], spent, seeds),
        "features": _randomised(measured[FEATURES.name], measured[BRANCH.name], spent, seeds),
    }


def _sweep_row(name: str, value: float, arms: Mapping[str, Sequence[Measured]]) -> SweepRow:
    limited = name == "llm_budget"
    first = _paired(arms, ADAPTIVE if limited else BRANCH, CONTROL, "gmv")
    second = _paired(arms, ADAPTIVE, ARRIVAL, "gmv") if limited else _paired(arms, FEATURES, BRANCH, "gmv")
    shown = arms[(ADAPTIVE if limited else BRANCH).name]
    return SweepRow(
        parameter=name,
        value=value,
        branch=first,
        other=second,
        other_is="ARD over first come first served" if limited else "features over the branch",
        consumption_ratio=float(np.mean([each.summary()["consumption_ratio"] for each in shown])),
    )
