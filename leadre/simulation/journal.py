"""What users have done so far in one arm, and the contexts that follow from it. LEADRE §4.2.1.

The same `ContextBuilder` that training and evaluation use; in production the feature store holds the same rows.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leadre.domain.behavior import Behavior, Domain
from leadre.domain.users import Context
from leadre.evaluation.baselines import Histories
from leadre.recipe import PromptRecipe
from leadre.simulation.observed import Observed
from leadre.store.records.events import ACTIONS, DOMAINS, Sequences
from leadre.training.data.contexts import ContextBuilder


class Journal:
    """Positive behaviors of all users, in order of time.

    Args:
        observed: the world; the journal begins with its history.
        recipe: how contexts are made.
        until: behaviors of the history from this instant on are left out; None: none is.
    """

    def __init__(self, observed: Observed, *, recipe: PromptRecipe, until: datetime | None = None) -> None:
        self._users = len(observed.profiles)
        self._rows = _rows(each for each in observed.behaviors if until is None or each.occurred_at < until)
        named = [(ad.name, ad.second_category or ad.first_category, ad.spu) for ad in observed.ads]
        watched = [(item.title or item.category, item.category, item.spu) for item in observed.content_items]
        texts = [
            (dict(enumerate(of_ads)), dict(enumerate(of_content)))
            for of_ads, of_content in zip(zip(*named, strict=True), zip(*watched, strict=True), strict=True)
        ]
        self._builder = ContextBuilder(
            self.sequences,
            {profile.user_id: profile for profile in observed.profiles},
            texts[0],
            texts[1],
            texts[2] if recipe.summary_spus else None,
            recipe=recipe,
        )
        self._fresh = True

    @property
    def sequences(self) -> Sequences:
        """The behaviors as arrays."""
        rows = self._rows[np.lexsort((self._rows["ordinal"], self._rows["at"], self._rows["user"]))]
        return Sequences(
            users=np.arange(self._users),
            offsets=np.searchsorted(rows["user"], np.arange(self._users + 1)),
            item_ids=rows["item"].copy(),
            domains=rows["domain"].copy(),
            actions=rows["action"].copy(),
            occurred_at_s=rows["at"].copy(),
            ordinals=rows["ordinal"].copy(),
        )

    @property
    def ad_histories(self) -> Histories:
        """The ads that each user clicked or converted, oldest first."""
        found = self.sequences
        of_ads = found.domains == DOMAINS.index(Domain.AD)
        counts = np.append(0, np.cumsum(of_ads))
        return Histories(offsets=counts[found.offsets], items=found.item_ids[of_ads])

    def copy(self, *, without: Sequence[int]) -> Journal:
        """Return a journal that goes on by itself, in which some users have done nothing so far."""
        made = copy.copy(self)
        made._rows, made._fresh = self._rows[~np.isin(self._rows["user"], without)], False
        return made

    def add(self, behaviors: Iterable[Behavior]) -> None:
        """Take behaviors in."""
        self._rows, self._fresh = np.concatenate([self._rows, _rows(behaviors)]), False

    def behaviors(self) -> list[Behavior]:
        """Return all behaviors, user by user in order of time."""
        builder, _ = self._current()
        return [each for user in range(self._users) for each in builder.behaviors(user)]

    def counts(self) -> dict[int, int]:
        """Return how many positive behaviors each user has who has any."""
        users, counts = np.unique(self._rows["user"], return_counts=True)
        return dict(zip(users.tolist(), counts.tolist(), strict=True))

    def contexts(self, users: Sequence[int], *, now: datetime | Sequence[datetime]) -> list[Context]:
        """Return what is known of users at `now`, one instant for all or one each, from behaviors not later than it."""
        builder, lengths = self._current()
        instants = [now] * len(users) if isinstance(now, datetime) else now
        return [builder.context(user, int(lengths[user]), at) for user, at in zip(users, instants, strict=True)]

    def clicks(self) -> tuple[list[Context], NDArray[np.int64]]:
        """Return what was known of the user before each click, and the ads that were clicked, int64[n]."""
        builder, _ = self._current()
        found = self.sequences
        contexts, ads = [], []
        for user in range(self._users):
            first, end = int(found.offsets[user]), int(found.offsets[user + 1])
            for at in range(first, end):
                if found.domains[at] == DOMAINS.index(Domain.AD):
                    now = datetime.fromtimestamp(float(found.occurred_at_s[at]), UTC)
                    contexts.append(builder.context(user, at - first, now))
                    ads.append(int(found.item_ids[at]))
        return contexts, np.array(ads, np.int64)

    def _current(self) -> tuple[ContextBuilder, NDArray[np.int64]]:
        """Return the builder over all behaviors, and how many each user has."""
        if not self._fresh:
            self._builder, self._fresh = self._builder.over(self.sequences), True
        return self._builder, np.bincount(self._rows["user"], minlength=self._users)


_ROW = np.dtype([("user", "i8"), ("at", "f8"), ("ordinal", "i8"), ("item", "i8"), ("domain", "u1"), ("action", "u1")])


def _rows(behaviors: Iterable[Behavior]) -> NDArray[Any]:
    return np.array(
        [
            (
                each.user_id,
                each.occurred_at.timestamp(),
                each.ordinal,
                each.item_id,
                DOMAINS.index(each.domain),
                ACTIONS.index(each.action),
            )
            for each in behaviors
            if each.positive
        ],
        _ROW,
    )
