"""Every number of a simulation, each with its source. LEADRE §5.3."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from leadre.errors import InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What is simulated. "Ours" means that no source gives the number; the sweep says how much depends on it.

    Args:
        users: of each world (ours).
        ads: of each world, the new ones included (ours).
        history_visits: visits of a user before the experiment, over 85 days (ours, the demo's world).
        shown_a_visit: ads shown in a visit of the history (ours, the demo's world).
        cold: share of users who have no history when the experiment begins (ours; swept).
        churn: share of the launched ads that has ended by then, and of the inventory's new ads that nobody has seen
            yet and that begin with it (ours; swept). They have S-IDs from the frozen codebooks.
        new_ads: share of `ads` that is not launched before the experiment (ours); what `churn` can bring.
        rehearsal: visits of a user between history and experiment, with LEADRE as a branch for all and a ranker that
            has seen the history alone (ours). All arms' rankers learn from what it shows as well: what a ranker
            learns from is what its own system showed, and the paper's features came after the branch.
        visits: of a user in the experiment (ours).
        ticks: instants of the simulated clock at which the experiment's visits happen; a user visits at most once in a
            tick (ours).
        days: length of the experiment (the paper: several weeks; ours is shorter, because visits cost LLM time).
        slots: auctions of a visit (ours).
        limit: ads of the Mixer's merged list (ours).
        beam_width: ads of LEADRE's list (ours, as `LEADRE_BEAM_WIDTH`).
        noise: share of visits whose intent comes out of nowhere: no interest and no earlier intent explains it, and no
            content shows it (ours; swept). The history has none.
        bid_spread: standard deviation of the logarithm of bids. 1.16: of price / (1,000 x predicted click rate) in the
            156,063 rows of iPinYou's campaign 2997.
        market_spread: the same of competing prices per 1,000 impressions. 0.96: the mean of iPinYou's nine campaigns,
            which lie between 0.84 and 1.15.
        competition: the median competing price, as a multiple of the median eCPM of the ads shown in the history
            (ours; swept): with 8, an arm without LEADRE wins some seven slots of ten. iPinYou's currency has no meaning
            in a made-up world; its spread does.
        llm_budget: lists that the LLM can make, as a share of visits, in the arms with a limited budget (ours; swept).
        unseen_discount: as `LEADRE_UNSEEN_DISCOUNT` (ours).
        ranker_share: the last share of the history. The ranker learns from its impressions; the two-tower model and the
            LLM learn from what is before it (ours).
    """

    users: int = 300
    ads: int = 320
    history_visits: int = 9
    shown_a_visit: int = 6
    cold: float = 0.15
    churn: float = 0.1
    new_ads: float = 0.25
    rehearsal: int = 2
    visits: int = 3
    ticks: int = 12
    days: float = 10.0
    slots: int = 4
    limit: int = 24
    beam_width: int = 20
    noise: float = 0.0
    bid_spread: float = 1.16
    market_spread: float = 0.96
    competition: float = 8.0
    llm_budget: float = 0.3
    unseen_discount: float = 0.8
    ranker_share: float = 0.3

    def __post_init__(self) -> None:
        for name in ("cold", "noise", "llm_budget", "ranker_share", "new_ads"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidInput(f"{name}={getattr(self, name)}: it is a share, at least 0 and below 1")
        if not 0 <= self.churn <= self.new_ads:
            raise InvalidInput(f"churn={self.churn}: at least 0 and at most new_ads={self.new_ads}, which it draws on")
        if self.visits > self.ticks:
            raise InvalidInput(f"visits={self.visits} of a user need as many ticks, there are {self.ticks}")
        if min(self.users, self.rehearsal, self.visits, self.slots, self.limit, self.beam_width) < 1:
            raise InvalidInput("users, rehearsal, visits, slots, limit and beam_width are at least 1")
        if min(self.bid_spread, self.market_spread, self.competition, self.days) <= 0:
            raise InvalidInput("bid_spread, market_spread, competition and days are above 0")

    def changed(self, name: str, value: float) -> Parameters:
        """Return the parameters with one of them changed; raises InvalidInput as when they are made."""
        return Parameters(**{**self.to_json(), name: value})

    @property
    def all_ticks(self) -> int:
        """Ticks of rehearsal and experiment; the rehearsal's come first, a tick for each of two visits of a user."""
        return self.rehearsal_ticks + self.ticks

    @property
    def rehearsal_ticks(self) -> int:
        """Ticks of the rehearsal."""
        return 2 * self.rehearsal

    @property
    def pace(self) -> float:
        """How long a visit takes: 1 is its half hour from content to ads. Ticks less than an hour apart shorten it."""
        return min(1.0, 24 * self.days / self.ticks)

    def to_json(self) -> dict[str, Any]:
        """Return the plain form."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


SWEPT: dict[str, tuple[float, ...]] = {
    "cold": (0.0, 0.5),
    "competition": (1.0, 32.0),
    "llm_budget": (0.1, 0.6),
    "noise": (0.3, 0.7),
    "churn": (0.0, 0.25),
}
"""Which parameters `--sweep` changes, one at a time, and to what; the default of each is measured anyway."""
