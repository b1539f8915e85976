"""A world that is ready for the experiment, and one arm's experiment in it. LEADRE §5.3."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leadre.domain.behavior import Action
from leadre.domain.retrieval import RetrievalList
from leadre.recipe import Recipe
from leadre.retrieval.cheap_lane import CheapLists
from leadre.retrieval.loaded_release import LoadedRelease
from leadre.simulation.arms import BRANCH, Arm, Measured
from leadre.simulation.journal import Journal
from leadre.simulation.loop import State, run_arm
from leadre.simulation.nature import Nature, make_nature
from leadre.simulation.nearline import FastNearline, Nearline
from leadre.simulation.observed import Observed
from leadre.simulation.parameters import Parameters
from leadre.simulation.release import RECIPE, Progress, inventory_of, release_of
from leadre.simulation.rivals.system import System, build_system

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
        home: folder of its indexes and releases, as LEADRE_HOME has them.
        journal: what users have done until the rehearsal's end.
        lists: LEADRE's of that time, by user.
    """

    seed: int
    system: System
    releases: Mapping[bool, LoadedRelease]
    home: Path
    journal: Journal
    lists: Mapping[int, RetrievalList]


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
    journal = Journal(observed, recipe=recipe.prompt)
    nearline = _nearline(REHEARSED, system.over(before), releases[True], parameters, journal=journal, lists={})
    state = State(journal=journal, nearline=nearline)
    _, log = run_arm(
        REHEARSED,
        nature,
        system.over(before),
        state,
        parameters=parameters,
        ticks=range(parameters.rehearsal_ticks),
    )
    log = system.log.and_then(log)
    return World(
        seed=seed,
        system=replace(system, log=log, rankers=log.rankers(seed=seed)),
        releases=releases,
        home=trained.folder.parents[1],
        journal=state.journal,
        lists=dict(nearline.kept),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Experiment:
    """One arm's experiment in a world, about to begin.

    Args:
        world: where.
        arm: which.
        parameters: how the world goes on.
        nature: the truth.
        system: branches and rankers, over the ads of the experiment.
        journal: what users have done so far; it goes on with the experiment.
    """

    world: World
    arm: Arm
    parameters: Parameters
    nature: Nature
    system: System
    journal: Journal

    @classmethod
    def of(cls, world: World, arm: Arm, parameters: Parameters) -> Experiment:
        """Return an arm's experiment in a world, which goes on as the parameters say."""
        nature, observed = make_nature(parameters, seed=world.seed, luck=arm.luck)
        return cls(
            world=world,
            arm=arm,
            parameters=parameters,
            nature=nature,
            system=world.system.over(observed),
            journal=world.journal.copy(without=observed.cold),
        )

    def fast_nearline(self) -> FastNearline:
        """Return what keeps the arm's lists on the fast clock, with those of the rehearsal in it."""
        cold = set(self.system.observed.cold)
        known = {user: each for user, each in self.world.lists.items() if user not in cold}
        release = self.world.releases[self.arm.dpo]
        return _nearline(self.arm, self.system, release, self.parameters, journal=self.journal, lists=known)

    def run(self, nearline: Nearline | None) -> Measured:
        """Run it, once. `nearline` keeps the lists of an arm with LEADRE."""
        measured, _ = run_arm(
            self.arm,
            self.nature,
            self.system,
            State(journal=self.journal, nearline=nearline),
            parameters=self.parameters,
            ticks=range(self.parameters.rehearsal_ticks, self.parameters.all_ticks),
        )
        return measured


def run_in(world: World, arm: Arm, parameters: Parameters) -> Measured:
    """Run one arm's experiment in a world on the fast clock."""
    experiment = Experiment.of(world, arm, parameters)
    return experiment.run(experiment.fast_nearline() if arm.leadre else None)


def _nearline(
    arm: Arm,
    system: System,
    release: LoadedRelease,
    parameters: Parameters,
    *,
    journal: Journal,
    lists: Mapping[int, RetrievalList],
) -> FastNearline:
    observed = system.observed
    return FastNearline(
        release,
        journal=journal,
        system=system,
        inventory=inventory_of(release.index, observed.live),
        beam_width=parameters.beam_width,
        policy=arm.policy,
        capacity=parameters.llm_budget * parameters.users * parameters.visits / parameters.ticks,
        unseen_discount=parameters.unseen_discount,
        arpu=spent_before(observed),
        cheap=CheapLists(
            release.index,
            system.branches.visits,
            release=release.release,
            release_epoch=0,
            beam_width=parameters.beam_width,
        ),
        lists=lists,
    )


def spent_before(observed: Observed) -> Floats:
    """Return what each user's clicks were worth before the experiment, float64[U]."""
    spent = np.zeros(len(observed.profiles))
    for each in observed.behaviors:
        if each.action in (Action.CLICK, Action.CONVERSION):
            spent[each.user_id] += observed.bids[each.item_id]
    return spent
