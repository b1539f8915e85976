"""One world's ad system before the experiment: what the branches and rankers have learned from its history. Ours.

The two-tower model and the LLM learn from what is before `observed.learn_until`; the rankers from the impressions after
it, each with features as of its visit: rates, co-visitation and lists that know nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from leadre.simulation.branches import Branches
from leadre.simulation.journal import Journal
from leadre.simulation.observed import Observed
from leadre.simulation.ranker import BaseFeatures, Ranker, leadre_features
from leadre.simulation.release import inventory_of
from leadre.simulation.two_tower import TwoTower
from leadre.store.features.list_writer import derive_lists

_SAME_VISIT = timedelta(hours=1)
_AT_ONCE = 64
_JUST_BEFORE = timedelta(microseconds=1)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class System:
    """What is the same in every arm.

    Args:
        observed: the world.
        branches: besides LEADRE.
        features: of every ranker.
        ranker: without LEADRE's features.
        leadre_ranker: with them; None where the world has no release.
        table: of the release's index.
        ecpm: what each ad earned, float64[A], for the expected eCPM of lists.
    """

    observed: Observed
    branches: Branches
    features: BaseFeatures
    ranker: Ranker
    leadre_ranker: Ranker | None
    table: AdTable
    ecpm: Floats

    def over(self, observed: Observed) -> System:
        """Return the system, with all it has learned, over another inventory of the same ads."""
        towers = self.branches.two_tower.over(observed)
        return replace(
            self, observed=observed, branches=Branches(observed, visits=self.branches.visits, two_tower=towers)
        )

    def derived(self, lists: Sequence[RetrievalList], release: LoadedRelease) -> Lists:
        """Return lists with their user-side features, as a nearline worker writes them."""
        return derive_lists(
            lists, index=release.index, ecpm_of=lambda rows: self.ecpm[release.index.ad_ids[rows]]
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
    system = System(
        observed=observed,
        branches=serving,
        features=BaseFeatures(observed, serving, rates_until_s=observed.now.timestamp()),
        ranker=Ranker(features, clicked, seed=seed),
        leadre_ranker=None,
        table=AdTable.of(release.index) if release else AdTable.empty(),
        ecpm=_earned(observed),
    )
    if release is None:
        return system
    inventory = inventory_of(release.index, observed.launched)
    lists: list[RetrievalList] = []
    for start in range(0, len(contexts), _AT_ONCE):
        part = contexts[start : start + _AT_ONCE]
        lists += release.lists(part, inventory=inventory, beam_width=beam_width, now=instants[start])
    derived = system.derived(lists, release)
    more = leadre_features(derived, system.table, users=visit_of_row, ads=ads, now_s=np.nan)
    return replace(system, leadre_ranker=Ranker(np.hstack([features, more]), clicked, seed=seed))


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
