"""What both clocks said of one arm, visit by visit. LEADRE §4.4.1, simulated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np

from leadre.domain.behavior import Behavior, Domain
from leadre.simulation.arms import Arm, Measured
from leadre.simulation.nearline import Nearline, Stored
from leadre.simulation.real.nearline import Seen


@dataclass(frozen=True, slots=True, kw_only=True)
class BothClocks:
    """One arm on both clocks.

    Args:
        arm: its name.
        fast, real: its figures, as `Measured.summary`; the real clock's `lists_llm` counts lists after clicks as well.
        visits: how many there were.
        due: visits of users who had done anything that a list could know.
        fresh: of these, with a list that knew all of it when the ads were retrieved.
        equal: of the fresh, with the very list that the fast clock had, ad by ad.
        after_other_clicks: of the fresh and unequal, by users who had clicked something else by then.
        common: share of the fast clock's ads that the real lists have too, a mean over the fresh.
        visible_s: p50 and p95 of the seconds from an accepted content behavior until a list that knows it was online;
            None where none was in time.
        unanswered: reads of the online store that took too long.
    """

    arm: str
    fast: Mapping[str, float]
    real: Mapping[str, float]
    visits: int
    due: int
    fresh: int
    equal: int
    after_other_clicks: int
    common: float
    visible_s: tuple[float, float] | None
    unanswered: int

    @property
    def fresh_share(self) -> float:
        """Share of the visits that are due."""
        return self.fresh / max(self.due, 1)

    @property
    def equal_share(self) -> float:
        """Share of the fresh ones."""
        return self.equal / max(self.fresh, 1)

    def to_json(self) -> dict[str, Any]:
        """Return the plain form, with shares."""
        visible = dict(zip(("p50", "p95"), self.visible_s, strict=True)) if self.visible_s else None
        shares = {"fresh_share": self.fresh_share, "equal_share": self.equal_share}
        return {**asdict(self), "visible_s": visible, **shares}


class Noted:
    """A nearline that notes what it gave for every visit, and after which clicks.

    Args:
        nearline: of either clock.
    """

    def __init__(self, nearline: Nearline) -> None:
        self._nearline = nearline
        self._clicks: defaultdict[int, list[int]] = defaultdict(list)
        self.visits: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = []
        """User, ads, and the ads clicked in the experiment by then."""

    @property
    def made(self) -> Mapping[str, int]:
        """Its own."""
        return self._nearline.made

    def report(self, behaviors: Sequence[Behavior], *, visitors: Sequence[int] = ()) -> None:
        """Report to it."""
        for each in behaviors:
            if each.domain is Domain.AD:
                self._clicks[each.user_id].append(each.item_id)
        self._nearline.report(behaviors, visitors=visitors)

    def lists(self, visitors: Sequence[int], *, now: datetime) -> Stored:
        """Return its lists."""
        stored = self._nearline.lists(visitors, now=now)
        for user, ads in zip(visitors, stored.ads, strict=True):
            self.visits.append((user, tuple(ads), tuple(self._clicks[user])))
        return stored


def compare(
    arm: Arm,
    fast: tuple[Measured, Noted],
    real: tuple[Measured, Noted],
    *,
    seen: Sequence[Seen],
    unanswered: int,
) -> BothClocks:
    """Put both clocks beside each other.

    Args:
        arm: of both.
        fast: what it brought by the fast clock, and what was noted of its visits.
        real: the same by the real one.
        seen: what was there for each visit on the real clock.
        unanswered: reads of the online store that took too long.
    """
    pairs = list(zip(fast[1].visits, real[1].visits, seen, strict=True))
    compared = [(ours, theirs) for ours, theirs, there in pairs if there.due and there.fresh]
    unequal = [(ours, theirs) for ours, theirs in compared if ours[1] != theirs[1]]
    common = [len(set(ours[1]) & set(theirs[1])) / max(len(ours[1]), 1) for ours, theirs in compared]
    visible = [there.visible_s for there in seen if there.visible_s is not None]
    return BothClocks(
        arm=arm.name,
        fast=fast[0].summary(),
        real=real[0].summary(),
        visits=len(seen),
        due=sum(there.due for there in seen),
        fresh=len(compared),
        equal=len(compared) - len(unequal),
        after_other_clicks=sum(ours[2] != theirs[2] for ours, theirs in unequal),
        common=float(np.mean(common)) if common else 0.0,
        visible_s=(float(np.quantile(visible, 0.5)), float(np.quantile(visible, 0.95))) if visible else None,
        unanswered=unanswered,
    )
