"""The same arms on both clocks, and what differs. LEADRE §4.4.1, §5.3, simulated.

One world, the same users, wants and luck: what the fast clock says is only worth something if servers say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from leadre.recipe import Recipe
from leadre.services import Services
from leadre.simulation.arms import BRANCH, FEATURES, Arm
from leadre.simulation.nature import instant
from leadre.simulation.parameters import Parameters
from leadre.simulation.real.compare import BothClocks, Noted, compare
from leadre.simulation.real.nearline import RealNearline
from leadre.simulation.real.system import real_system
from leadre.simulation.release import RECIPE, Progress
from leadre.simulation.servers import own_servers
from leadre.simulation.worlds import Experiment, World, make_world

DEADLINE_S = 5.0
"""How long the ads of a visit wait for a list that knows its content (ours)."""
TICK_S = 5.0
"""Seconds of the world between two ticks (ours). A machine that needs longer falls behind; ages of behaviors, which
prompts give in whole days, hardly notice."""
ARMS = (BRANCH, FEATURES)


@dataclass(frozen=True, slots=True, kw_only=True)
class RealRun:
    """What both clocks say of one world.

    Args:
        parameters: of the system.
        seed: of the world.
        deadline_s, tick_s: see `DEADLINE_S` and `TICK_S`.
        arms: those with LEADRE.
    """

    parameters: Parameters
    seed: int
    deadline_s: float
    tick_s: float
    arms: tuple[BothClocks, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the plain form: the section `real` of result.json."""
        return {
            "seed": self.seed,
            "deadline_s": self.deadline_s,
            "tick_s": self.tick_s,
            "arms": {each.arm: each.to_json() for each in self.arms},
            "parameters": self.parameters.to_json(),
        }


def run_real(
    *,
    home: Path,
    parameters: Parameters,
    seed: int = 1,
    deadline_s: float = DEADLINE_S,
    tick_s: float = TICK_S,
    arms: Sequence[Arm] = ARMS,
    recipe: Recipe = RECIPE,
    progress: Progress | None = None,
) -> RealRun:
    """Run arms with LEADRE in one world, on the fast clock and on servers.

    Args:
        home: the simulation's folder: releases of worlds are kept there, and its own servers live there.
        parameters: of the system; their `days` become what the ticks take.
        seed: of the world.
        deadline_s: seconds that the ads of a visit wait for a list that knows its content.
        tick_s: seconds of the world between two ticks.
        arms: with LEADRE, and everybody refreshed.
        recipe: of the world's release.
        progress: called with what is being done, how much of it is done, and how much there is.

    Raises:
        ConfigError, InvalidInput: as `release_of`.
        Unavailable: a server does not answer, or a process does not come up.
    """
    parameters = replace(parameters, days=tick_s * parameters.ticks / timedelta(days=1).total_seconds())
    done = []
    with own_servers(home) as servers:
        world = make_world(
            parameters,
            seed=seed,
            home=home,
            database_url=lambda: servers().database_url,
            recipe=recipe,
            progress=progress,
        )
        for number, arm in enumerate(arms):
            if progress is not None:
                progress("arms on the real clock", number, len(arms))
            logs = (home / "real").absolute()
            done.append(_both(world, arm, parameters, servers=servers(), logs=logs, deadline_s=deadline_s))
        if progress is not None:
            progress("arms on the real clock", len(arms), len(arms))
    return RealRun(parameters=parameters, seed=seed, deadline_s=deadline_s, tick_s=tick_s, arms=tuple(done))


def _both(
    world: World, arm: Arm, parameters: Parameters, *, servers: Services, logs: Path, deadline_s: float
) -> BothClocks:
    """Run an arm on both clocks. On both, all who have done anything wait for a list before the first visit."""
    experiment = Experiment.of(world, arm, parameters)
    fast = Noted(experiment.fast_nearline())
    fast.report((), visitors=list(experiment.journal.counts()))
    by_fast = experiment.run(fast)

    experiment = Experiment.of(world, arm, parameters)
    journal, observed = experiment.journal, experiment.system.observed
    first = instant(parameters.rehearsal_ticks - 1, observed=observed, parameters=parameters)
    shift = datetime.now(UTC) - first
    with real_system(
        world.releases[arm.dpo],
        observed,
        journal,
        home=world.home,
        servers=servers,
        shift=shift,
        beam_width=parameters.beam_width,
        logs=logs,
    ) as system:
        nearline = RealNearline(system, known=journal.counts(), shift=shift, deadline_s=deadline_s)
        with closing(nearline):
            nearline.warm_up()
            real = Noted(nearline)
            by_real = experiment.run(real)
            unanswered = nearline.unanswered
    return compare(arm, (by_fast, fast), (by_real, real), seen=nearline.seen, unanswered=unanswered)
