"""All arms in all worlds, and the lifts put together. LEADRE §5.3."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leadre.evaluation.bootstrap import Interval
from leadre.recipe import Recipe
from leadre.simulation.arms import ADAPTIVE, AGAIN, ARMS, ARRIVAL, BRANCH, CONTROL, FEATURES, SFT, Arm, Measured
from leadre.simulation.kept import measured_once
from leadre.simulation.measure.result import ArmRow, Simulation, SweepRow
from leadre.simulation.measure.statistics import paired_lift, randomised_lift
from leadre.simulation.nature import make_nature
from leadre.simulation.parameters import SWEPT, Parameters
from leadre.simulation.release import RECIPE, Progress
from leadre.simulation.servers import own_servers
from leadre.simulation.worlds import World, make_world, run_in, spent_before

Floats = NDArray[np.float64]


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
            world = _Lazily(
                partial(
                    make_world,
                    base,
                    seed=seed,
                    home=home,
                    database_url=lambda: servers().database_url,
                    recipe=recipe,
                    progress=progress,
                )
            )

            def brought(arm: Arm, parameters: Parameters, *, seed: int = seed, world: _Lazily = world) -> Measured:
                return measured_once(
                    home / "arms",
                    arm,
                    seed=seed,
                    parameters=parameters,
                    base=base,
                    recipe=recipe,
                    measure=lambda: run_in(world(), arm, parameters),
                )

            if seed in seeds:
                spent.append(spent_before(make_nature(base, seed=seed)[1]))
                for arm in ARMS:
                    measured[arm.name].append(brought(arm, base))
                    done += 1
                    _tell(progress, done, total)
            if seed in sweep_seeds:
                for name, value, arm in _sweep():
                    of_value = swept.setdefault((name, value), {})
                    of_value.setdefault(arm.name, []).append(brought(arm, base.changed(name, value)))
                    done += 1
                    _tell(progress, done, total)
    return tell(base, measured, spent, seeds=seeds, sweep_seeds=sweep_seeds, swept=swept)


def tell(
    parameters: Parameters,
    measured: Mapping[str, Sequence[Measured]],
    spent: Sequence[Floats],
    *,
    seeds: Sequence[int],
    sweep_seeds: Sequence[int],
    swept: Mapping[tuple[str, float], Mapping[str, Sequence[Measured]]],
) -> Simulation:
    """Return what arms brought as figures and lifts.

    Args:
        parameters: of the simulation.
        measured: name of an arm -> what it brought in each world.
        spent: of each world, what each user's clicks were worth before.
        seeds: of the worlds.
        sweep_seeds: of those that were swept.
        swept: parameter and value -> name of an arm -> what it brought in each world that was swept.
    """
    return Simulation(
        parameters=parameters,
        seeds=tuple(seeds),
        sweep_seeds=tuple(sweep_seeds),
        arms=tuple(_row(arm, measured) for arm in ARMS),
        lifts=_lifts(measured),
        aa_randomised=_aa(measured, spent, seeds),
        ab_randomised=_ab(measured, spent, seeds),
        sweep=tuple(_sweep_row(name, value, arms) for (name, value), arms in swept.items()),
    )


class _Lazily:
    """A world that is made when the first arm needs it: of a run that was stopped, most are not."""

    def __init__(self, make: Callable[[], World]) -> None:
        self._make, self._made = make, list[World]()

    def __call__(self) -> World:
        if not self._made:
            self._made.append(self._make())
        return self._made[0]


def _sweep() -> Iterator[tuple[str, float, Arm]]:
    for name, values in SWEPT.items():
        arms = (CONTROL, ARRIVAL, ADAPTIVE) if name == "llm_budget" else (CONTROL, BRANCH, FEATURES)
        for value in values:
            for arm in arms:
                yield name, value, arm


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
    ours, second = (ADAPTIVE, (ADAPTIVE, ARRIVAL)) if limited else (BRANCH, (FEATURES, BRANCH))
    fields = ("gmv", "expected_gmv", "revenue")
    return SweepRow(
        parameter=name,
        value=value,
        branch={field: _paired(arms, ours, CONTROL, field) for field in fields},
        other={field: _paired(arms, *second, field) for field in fields},
        other_is="ARD over first come first served" if limited else "features over the branch",
        consumption_ratio=float(np.mean([each.summary()["consumption_ratio"] for each in arms[ours.name]])),
    )
