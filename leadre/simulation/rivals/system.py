"""One world's ad system before the experiment: what the branches and rankers have learned from its history. Ours.

The two-tower model and the LLM learn from what is before `observed.learn_until`; the rankers from the impressions after
it, each with features as of its visit: rates, co-visitation and lists that know nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from leadre.derivation import Lists
from leadre.domain.retrieval import RetrievalList
from leadre.indexing.ad_table import AdTable
from leadre.recipe import PromptRecipe
from leadre.retrieval.cheap_lane import Visits
from leadre.retrieval.loaded_release import LoadedRelease
from leadre.simulation.journal import Journal
from leadre.simulation.observed import Observed
from leadre.simulation.release import inventory_of
from leadre.simulation.rivals.branches import Branches
from leadre.simulation.rivals.ranker import BaseFeatures, Ranker, leadre_features
from leadre.simulation.rivals.two_tower import TwoTower
from leadre.store.features.list_writer import derive_lists

_SAME_VISIT = timedelta(hours=1)
_AT_ONCE = 64
_JUST_BEFORE = timedelta(microseconds=1)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Log:
    """Impressions with the features that a ranker had, or could have had, when they were shown.

    Args:
        base: float64[n, m], without LEADRE.
        leadre: float64[n, k], LEADRE's; k is 0 where the world has no release.
        clicked: bool[n].
    """

    base: Floats
    leadre: Floats
    clicked: NDArray[np.bool_]

    def and_then(self, other: Log) -> Log:
        """Return both."""
        return Log(
            base=np.concatenate([self.base, other.base]),
            leadre=np.concatenate([self.leadre, other.leadre]),
            clicked=np.concatenate([self.clicked, other.clicked]),
        )

    def rankers(self, *, seed: int) -> dict[bool, Ranker]:
        """Return a ranker without LEADRE's features, and one with them where there are any."""
        found = {False: Ranker(self.base, self.clicked, seed=seed)}
        if self.leadre.shape[1]:
            found[True] = Ranker(np.hstack([self.base, self.leadre]), self.clicked, seed=seed)
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class System:
    """What is the same in every arm.

    Args:
        observed: the world.
        branches: besides LEADRE.
        features: of every ranker.
        rankers: without LEADRE's features, and with them where the world has a release.
        log: what they have learned from.
        table: of the release's index.
        ecpm: what each ad earned, float64[A], for the expected eCPM of lists.
    """

    observed: Observed
    branches: Branches
    features: BaseFeatures
    rankers: Mapping[bool, Ranker]
    log: Log
    table: AdTable
    ecpm: Floats

    def over(self, observed: Observed) -> System:
        """Return the system, with all it has learned, over another inventory of the same ads."""
        towers = self.branches.two_tower.over(observed)
        return replace(
            self, observed=observed, branches=Branches(observed, visits=self.branches.visits, two_tower=towers)
        )


def build_system(
    observed: Observed, *, recipe: PromptRecipe, release: LoadedRelease | None, beam_width: int, seed: int
) -> System:
    """Train branches and rankers on a world's history.

    Args:
        observed: the world.
        recipe: of prompts; says how far back contexts go.
        release: LEADRE's; None: the world does without.
        beam_width: ads of a list.
        seed: of what is trained.
    """
    early = Journal(observed, recipe=recipe, until=observed.learn_until)
    two_tower = TwoTower.train(*early.clicks(), observed=observed, seed=seed)
    journal = Journal(observed, recipe=recipe)
    learning = Branches(observed, visits=Visits.count(early.ad_histories), two_tower=two_tower)
    serving = Branches(observed, visits=Visits.count(journal.ad_histories), two_tower=two_tower)
    users, instants, visit_of_row, ads, clicked = _logged(observed)
    contexts = journal.contexts(users, now=instants)
    learned_by = BaseFeatures(observed, learning, rates_until_s=observed.learn_until.timestamp())
    features = learned_by(contexts, two_tower.users(contexts, observed), visit_of_row, ads)
    more = np.empty((len(ads), 0))
    table, ecpm = AdTable.of(release.index) if release else AdTable.empty(), _earned(observed)
    if release is not None:
        inventory = inventory_of(release.index, observed.launched)
        lists: list[RetrievalList] = []
        for start in range(0, len(contexts), _AT_ONCE):
            part = contexts[start : start + _AT_ONCE]
            lists += release.lists(part, inventory=inventory, beam_width=beam_width, now=instants[start])
        derived = derived_lists(lists, release, ecpm=ecpm)
        more = leadre_features(derived, table, users=visit_of_row, ads=ads, now_s=np.nan)
    log = Log(base=features, leadre=more, clicked=clicked)
    return System(
        observed=observed,
        branches=serving,
        features=BaseFeatures(observed, serving, rates_until_s=observed.now.timestamp()),
        rankers=log.rankers(seed=seed),
        log=log,
        table=table,
        ecpm=ecpm,
    )


def derived_lists(lists: Sequence[RetrievalList], release: LoadedRelease, *, ecpm: Floats) -> Lists:
    """Return lists with their user-side features, as a nearline worker writes them."""
    return derive_lists(lists, index=release.index, ecpm_of=lambda rows: ecpm[release.index.ad_ids[rows]])


def _logged(
    observed: Observed,
) -> tuple[list[int], list[datetime], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return the visits that rankers learn from, users and instants, and their impressions: visit, ad, clicked."""
    shown = sorted(
        (each for each in observed.impressions if each.occurred_at >= observed.learn_until),
        key=lambda each: (each.user_id, each.occurred_at),
    )
    users: list[int] = []
    instants: list[datetime] = []
    visit_of_row = []
    for each in shown:
        if not users or users[-1] != each.user_id or each.occurred_at - instants[-1] > _SAME_VISIT:
            users.append(each.user_id)
            instants.append(each.occurred_at - _JUST_BEFORE)  # a click on the first ad is not known yet
        visit_of_row.append(len(users) - 1)
    ads = np.array([each.ad_id for each in shown], np.int64)
    return users, instants, np.array(visit_of_row), ads, np.array([each.clicked for each in shown], np.bool_)


def _earned(observed: Observed) -> Floats:
    """Return the mean logged eCPM of each ad; of one that was never shown, its bid at the mean click rate."""
    ads = np.array([each.ad_id for each in observed.impressions], np.int64)
    ecpm = np.array([each.ecpm for each in observed.impressions])
    clicked = np.mean([each.clicked for each in observed.impressions])
    shown = np.bincount(ads, minlength=len(observed.ads))
    mean = np.bincount(ads, ecpm, len(observed.ads)) / np.maximum(shown, 1)
    return np.where(shown > 0, mean, 1000 * clicked * observed.bids)
