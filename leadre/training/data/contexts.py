"""Contexts of the past: what was known of a user before one of his behaviors.

LEADRE §4.2.1, §5.1.1. Training and offline evaluation ask for a user as of a target's time; the interest summary is
counted over the behaviors before the target only, so that no target is in its own prompt. It counts and orders as
leadre.store.records.summaries does for serving.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from leadre.domain.behavior import Action, Behavior, Domain, window_start
from leadre.domain.users import Context, ContextBehavior, InterestSummary, Profile
from leadre.errors import InvalidInput
from leadre.recipe import PromptRecipe
from leadre.store.records import catalog

if TYPE_CHECKING:
    from sqlalchemy import Connection

DOMAINS = tuple(Domain)
"""By domain code: ads, then content."""
ACTIONS = tuple(Action)
"""By action code."""

ItemTexts = tuple[Mapping[int, str], Mapping[int, str]]
"""Texts of ads by ad id, and of content items by content id: two id spaces."""


class BehaviorArrays(Protocol):
    """Positive behaviors of all users in flat arrays (leadre.store.records.events reads them).

    User number u owns positions offsets[u] to offsets[u + 1], ordered by (occurred_at, ordinal), both domains merged.
    """

    @property
    def users(self) -> NDArray[np.int64]:
        """User ids, int64[U]."""
        ...

    @property
    def offsets(self) -> NDArray[np.int64]:
        """First position of each user, then the end: int64[U + 1]."""
        ...

    @property
    def item_ids(self) -> NDArray[np.int64]:
        """Ad or content ids, int64[B]."""
        ...

    @property
    def domains(self) -> NDArray[np.uint8]:
        """Positions in `DOMAINS`, uint8[B]."""
        ...

    @property
    def actions(self) -> NDArray[np.uint8]:
        """Positions in `ACTIONS`, uint8[B]."""
        ...

    @property
    def occurred_at_s(self) -> NDArray[np.float64]:
        """Unix seconds, float64[B]."""
        ...

    @property
    def ordinals(self) -> NDArray[np.int64]:
        """Order within one instant, int64[B]."""
        ...


class ContextBuilder:
    """Makes the context of any user as of any of his behaviors.

    Args:
        sequences: positive behaviors of all users.
        profiles: by user id; a user without one gets an empty profile.
        titles: of ads and content items, as prompts show them; an unknown item has the title "".
        categories: under which the summary counts them; "" is not counted.
        spus: their standard product units, counted likewise; None where the recipe has none in prompts.
        recipe: its window bounds sequence and summary, `summary_categories` and `summary_spus` the summary.
    """

    def __init__(
        self,
        sequences: BehaviorArrays,
        profiles: Mapping[int, Profile],
        titles: ItemTexts,
        categories: ItemTexts,
        spus: ItemTexts | None = None,
        *,
        recipe: PromptRecipe,
    ) -> None:
        self._sequences, self._profiles, self._recipe = sequences, profiles, recipe
        self._texts = titles, categories, spus
        items = list(zip(sequences.domains.tolist(), sequences.item_ids.tolist(), strict=True))
        self._titles = [titles[domain].get(item, "") for domain, item in items]
        self._categories = [categories[domain].get(item, "") for domain, item in items]
        self._spus = [spus[domain].get(item, "") for domain, item in items] if spus else []

    @property
    def sequences(self) -> BehaviorArrays:
        """The behaviors that contexts are made of."""
        return self._sequences

    def over(self, sequences: BehaviorArrays) -> ContextBuilder:
        """Return a builder with the same catalog over other behaviors."""
        return ContextBuilder(sequences, self._profiles, *self._texts, recipe=self._recipe)

    def behaviors(self, user: int) -> list[Behavior]:
        """Return all behaviors of the user with this number, oldest first."""
        user_id = int(self._sequences.users[user])
        return [self._behavior(user_id, at) for at in range(*self._range(user))]

    def context(self, user: int, upto: int, now: datetime) -> Context:
        """Return what was known of a user at `now` from his first `upto` behaviors.

        Args:
            user: number of the user (not the id).
            upto: the position that is not seen any more, 0 to the user's number of behaviors.
            now: the instant; later behaviors, and those before the window of `recipe.window_days`, are left out.

        Raises:
            InvalidInput: `upto` is beyond the user's behaviors.
        """
        first, end = self._range(user)
        if not 0 <= upto <= end - first:
            raise InvalidInput(f"user number {user} has {end - first} behaviors, upto={upto} is not within")
        user_id = int(self._sequences.users[user])
        times = self._sequences.occurred_at_s[first : first + upto]
        start = window_start(now, days=self._recipe.window_days)
        oldest = first + int(np.searchsorted(times, start.timestamp(), "left"))
        end = first + int(np.searchsorted(times, now.timestamp(), "right"))
        return Context(
            profile=self._profiles.get(user_id) or Profile(user_id=user_id),
            summary=InterestSummary(
                liked=self._liked(self._categories, oldest, end, most=self._recipe.summary_categories),
                liked_spus=self._liked(self._spus, oldest, end, most=self._recipe.summary_spus),
            ),
            behaviors=tuple(
                ContextBehavior(behavior=self._behavior(user_id, at), title=self._titles[at])
                for at in range(oldest, end)
            ),
            now=now,
        )

    def _range(self, user: int) -> tuple[int, int]:
        offsets = self._sequences.offsets
        return int(offsets[user]), int(offsets[user + 1])

    def _liked(self, names: Sequence[str], first: int, end: int, *, most: int) -> tuple[tuple[str, int], ...]:
        if not names:
            return ()
        counts: Counter[str] = Counter()
        newest: dict[str, float] = {}
        times = self._sequences.occurred_at_s[first:end].tolist()
        for name, time_s in zip(names[first:end], times, strict=True):
            if name:
                counts[name] += 1
                newest[name] = time_s
        ranked = sorted(counts.items(), key=lambda pair: (-pair[1], -newest[pair[0]], pair[0]))
        return tuple(ranked[:most])

    def _behavior(self, user_id: int, at: int) -> Behavior:
        arrays = self._sequences
        return Behavior(
            user_id=user_id,
            domain=DOMAINS[arrays.domains[at]],
            action=ACTIONS[arrays.actions[at]],
            item_id=int(arrays.item_ids[at]),
            occurred_at=datetime.fromtimestamp(float(arrays.occurred_at_s[at]), UTC),
            ordinal=int(arrays.ordinals[at]),
        )


def read_contexts(
    connection: Connection,
    sequences: BehaviorArrays,
    *,
    recipe: PromptRecipe,
    items: Literal["all", "named"] = "all",
) -> ContextBuilder:
    """Return the builder over `sequences` with the catalog's profiles, titles and categories.

    Args:
        connection: in a transaction.
        sequences: as leadre.store.records.events.read_sequences gives them, positive behaviors only.
        recipe: the release's.
        items: of which titles and categories are read: all, or only those that `sequences` names.
    """
    named = [None, None] if items == "all" else [sequences.item_ids[sequences.domains == code] for code in (0, 1)]
    ads, content = (
        catalog.item_labels(connection, domain, item_ids=None if ids is None else np.unique(ids).tolist())
        for domain, ids in zip(DOMAINS, named, strict=True)
    )

    def texts(name: str) -> ItemTexts:
        each = [{item: getattr(label, name) for item, label in of.items()} for of in (ads, content)]
        return each[0], each[1]

    return ContextBuilder(
        sequences,
        catalog.profiles(connection, sequences.users.tolist()),
        texts("title"),
        texts("category"),
        texts("spu") if recipe.summary_spus else None,
        recipe=recipe,
    )
