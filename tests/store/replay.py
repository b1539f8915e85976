"""A random stream of writes and summary runs, replayed on PostgreSQL and in plain Python.

`World` says in plain sentences what is known of a user at an instant, and so which rows must be found then. `Replay`
does the same things to both; whoever adds something to the stream (a materialization, say) adds a method to `STEPS` of
a subclass, and asks `World.known` what must be there.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, select

from leadre.domain.ads import Ad, ContentItem
from leadre.domain.behavior import POSITIVE, Action, Behavior, Domain, Impression
from leadre.store.records import events, summaries
from leadre.store.records.catalog import upsert_ads, upsert_content_items
from leadre.store.records.database import transaction
from leadre.store.records.known.given import summarize_given
from leadre.store.records.tables import behavior_sequences, interest_summaries

START = datetime(2025, 5, 20, 9, tzinfo=UTC)
TICK = timedelta(microseconds=1)
DAY = timedelta(days=1)
USERS = range(1, 13)
WINDOW_DAYS, TOP, LONGEST = 5, 3, 4
ADS = {  # first category, second category, SPU
    1: ("Beauty", "Skin Care", "cream"),
    2: ("Beauty", "", "soap"),
    3: ("Travel", "Hotels", ""),
    4: ("", "", ""),
    5: ("Travel", "hotels", "ärmel"),
}
CONTENT = {11: ("Skin Care", "cream"), 12: ("Hotels", ""), 13: ("", "soap")}  # category, SPU

Row = Behavior | Impression
Pairs = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Content of a row of interest_summaries."""

    newest_at: datetime | None = None
    liked: Pairs = ()
    disliked: Pairs = ()
    liked_spus: Pairs = ()
    disliked_spus: Pairs = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """Content of a row of behavior_sequences."""

    newest_at: datetime | None = None
    behaviors: tuple[tuple[int, str, str, float, int], ...] = ()


Content = tuple[Summary, Sequence, Sequence]
"""What is known of a user: the summary, then the sequences of the ad and of the content domain."""


def labels(row: Row) -> tuple[str, str, str]:
    """Return the category, SPU and title of a row's item."""
    if isinstance(row, Behavior) and row.domain is Domain.CONTENT:
        category, spu = CONTENT.get(row.item_id, ("", ""))
        return category, spu, category  # content items have no title here: the category stands for it
    item = row.ad_id if isinstance(row, Impression) else row.item_id
    first, second, spu = ADS.get(item, ("", "", ""))
    return second or first, spu, f"ad {item}" if item in ADS else ""


def ranked(rows: Iterable[Row], which: int) -> Pairs:
    """Return the names of rows with their counts: most frequent first, then newest, then by name."""
    counts: Counter[str] = Counter()
    newest: dict[str, datetime] = {}
    for row in rows:
        if name := labels(row)[which]:
            counts[name] += 1
            newest[name] = max(row.occurred_at, newest.get(name, row.occurred_at))
    order = sorted(counts, key=lambda name: (-counts[name], -newest[name].timestamp(), name.encode()))
    return tuple((name, counts[name]) for name in order[:TOP])


@dataclass
class World:
    """All that was written, and from when each row is known."""

    rows: dict[Row, datetime] = field(default_factory=dict)
    """From a row (an impression: `first_seen`) to the instant from which it is known."""
    outcomes: dict[Row, Impression] = field(default_factory=dict)
    ended: dict[Row, datetime] = field(default_factory=dict)
    """From an impression to when it came to be known as clicked."""
    until: dict[int, datetime] = field(default_factory=dict)
    """Up to when a user's rows are settled."""
    everybody: datetime | None = None
    """Up to when those of everybody are."""
    fresh: set[int] = field(default_factory=set)
    """Users with rows that no run has seen."""

    def settled(self, user: int) -> datetime | None:
        """Return up to when what is known of a user stays as it is."""
        return max((at for at in (self.until.get(user), self.everybody) if at is not None), default=None)

    def write(self, rows: Iterable[Row], *, arrived_at: datetime, imported: bool) -> None:
        """Write rows, each once."""
        rows = list(rows)
        for row in rows:
            past = [other.occurred_at for other in rows if other.user_id == row.user_id]
            own = max((at for at in past if at <= arrived_at), default=None)
            settled = self.settled(row.user_id)
            late = settled is not None and own is not None and own <= settled
            base = own if imported and own is not None and not late else arrived_at
            if imported and own is None:
                base = row.occurred_at
            known_at = max(at for at in (base, row.occurred_at, settled and settled + TICK) if at)
            self._add(row, known_at)

    def _add(self, row: Row, known_at: datetime) -> None:
        if isinstance(row, Behavior):
            if row not in self.rows:
                self.rows[row] = known_at
                self.fresh.add(row.user_id)
            return
        key = first_seen(row)
        before = self.outcomes.get(key)
        if before != row:
            self.fresh.add(row.user_id)
            if before is None:
                self.rows[key] = known_at
            elif row.clicked and not before.clicked:
                self.ended[key] = known_at
            self.outcomes[key] = row

    def known(self, user: int, at: datetime) -> Content:
        """Return what is known of a user at an instant."""
        first_day = at.date() - timedelta(days=WINDOW_DAYS)
        known = [
            self.outcomes.get(row, row)
            for row, known_at in self.rows.items()
            if row.user_id == user and known_at <= at and row.occurred_at.date() >= first_day
        ]
        known.sort(key=lambda row: (row.occurred_at, row.ordinal if isinstance(row, Behavior) else 0, row_id(row)))
        liked = [row for row in known if isinstance(row, Behavior) and row.action in POSITIVE]
        disliked = [
            row
            for row in known
            if (isinstance(row, Behavior) and row.action is Action.SKIP)
            or (isinstance(row, Impression) and at < self.disliked_until(row))
        ]
        summary = Summary(
            newest_at=max((row.occurred_at for row in [*liked, *disliked]), default=None),
            liked=ranked(liked, 0),
            disliked=ranked(disliked, 0),
            liked_spus=ranked(liked, 1),
            disliked_spus=ranked(disliked, 1),
        )
        return summary, self._sequence(liked, Domain.AD), self._sequence(liked, Domain.CONTENT)

    def disliked_until(self, row: Impression) -> datetime:
        """Return from when an impression is no dislike any more: never one if it was clicked from the beginning."""
        never = datetime.max.replace(tzinfo=UTC)
        return self.ended.get(first_seen(row), datetime.min.replace(tzinfo=UTC) if row.clicked else never)

    def _sequence(self, liked: list[Behavior], domain: Domain) -> Sequence:
        shown = [row for row in liked if row.domain is domain][-LONGEST:]
        return Sequence(
            newest_at=shown[-1].occurred_at if shown else None,
            behaviors=tuple(
                (row.item_id, row.action.value, labels(row)[2], row.occurred_at.timestamp(), row.ordinal)
                for row in shown
            ),
        )

    def changes(self, user: int, after: datetime | None, now: datetime) -> list[datetime]:
        """Return instants worth a look: when a user's rows became known, midnights, and just before each."""
        start = after or min((at for row, at in self.rows.items() if row.user_id == user), default=now)
        found = {at for table in (self.rows, self.ended) for row, at in table.items() if row.user_id == user}
        midnight = start.replace(hour=0, minute=0, second=0, microsecond=0)
        found |= {midnight + DAY * number for number in range(1, (now - midnight) // DAY + 1)}
        found |= {at - TICK for at in found} | {now}
        return sorted(at for at in found if (after is None or at > after) and at <= now)


def first_seen(row: Impression) -> Impression:
    """Return what stays the same of an impression."""
    return replace(row, clicked=False, ecpm=0.0)


def row_id(row: Row) -> int:
    """Return the id a row has in the database: the last to decide the order."""
    from leadre.store.records.known.staging import behavior_row, impression_row

    return int(str((behavior_row(row) if isinstance(row, Behavior) else impression_row(row))[0]))


class Stored:
    """The rows of the database, by user and then by time."""

    def __init__(self, engine: Engine) -> None:
        self.rows: dict[tuple[object, ...], tuple[object, ...]] = {}
        """Every column of every row, by its key."""
        self.found: dict[tuple[int, int], list[tuple[datetime, Summary | Sequence]]] = {}
        with transaction(engine) as connection:
            for row in connection.execute(select(interest_summaries).order_by("event_at")):
                self.rows["summary", row.user_id, row.event_at] = tuple(map(str, row))
                pairs = (
                    (row.categories, row.counts),
                    (row.disliked_categories, row.disliked_counts),
                    (row.spus, row.spu_counts),
                    (row.disliked_spus, row.disliked_spu_counts),
                )
                lists = (tuple(zip(*pair, strict=True)) for pair in pairs)
                fields = dict(zip(("liked", "disliked", "liked_spus", "disliked_spus"), lists, strict=True))
                summary = Summary(newest_at=row.newest_at, **fields)
                self.found.setdefault((row.user_id, 0), []).append((row.event_at, summary))
            for row in connection.execute(select(behavior_sequences).order_by("event_at")):
                self.rows[row.domain, row.user_id, row.event_at] = tuple(map(str, row))
                lists = (row.item_ids, row.actions, row.titles, row.occurred_at_s, row.ordinals)
                sequence = Sequence(newest_at=row.newest_at, behaviors=tuple(zip(*lists, strict=True)))
                place = 1 if row.domain == "ad" else 2
                self.found.setdefault((row.user_id, place), []).append((row.event_at, sequence))

    def at(self, user: int, at: datetime) -> Content:
        """Return the rows that count at an instant: of each table the newest that is not later."""
        nothing = (Summary(), Sequence(), Sequence())
        parts = [
            next((content for event_at, content in reversed(self.found.get((user, place), ())) if event_at <= at), none)
            for place, none in enumerate(nothing)
        ]
        return parts[0], parts[1], parts[2]  # type: ignore[return-value]


class Replay:
    """One stream.

    Args:
        engine: an empty, migrated database.
        seed: of all its randomness.
    """

    STEPS: tuple[tuple[str, int], ...] = (
        ("report", 8),
        ("report_again", 2),
        ("import_log", 2),
        ("import_impressions", 3),
        ("let_time_pass", 5),
        ("summarize_some", 4),
        ("summarize_everybody", 3),
    )
    """Names of methods, and how often each is taken."""

    def __init__(self, engine: Engine, *, seed: int) -> None:
        self.engine, self.random, self.now = engine, random.Random(seed), START
        self.world = World()
        self.expected: dict[tuple[int, datetime], Content] = {}
        """What must be found at an instant of a user, for good."""
        self.stored = Stored(engine)
        with transaction(engine) as connection:
            blank = {"ad_type": "", "attributes": (), "advertiser_id": 0, "bid": 0.0, "created_at": START}
            upsert_ads(
                connection,
                [
                    Ad(ad_id=n, source_id=str(n), name=f"ad {n}", first_category=f, second_category=s, spu=u, **blank)
                    for n, (f, s, u) in ADS.items()
                ],
            )
            items = [
                ContentItem(content_id=n, source_id=str(n), title="", category=c, spu=u)
                for n, (c, u) in CONTENT.items()
            ]
            upsert_content_items(connection, items)

    def run(self, *, instants: int) -> None:
        """Take random steps, each checked, until so much is expected; then compare all of it."""
        names, weights = zip(*self.STEPS, strict=True)
        while len(self.expected) < instants:
            step: Callable[[], None] = getattr(self, self.random.choices(names, weights)[0])
            step()
        self.summarize_everybody()
        self.check_everything()

    # 1. What happens

    def report(self) -> None:
        """Behaviors arrive: on time, late, far too late, or by a clock that is ahead."""
        self._report([self._behavior(self._ago()) for _ in range(self.random.randint(1, 4))])

    def report_again(self) -> None:
        """A request is sent again, with something new in it or not."""
        known = [row for row in self.world.rows if isinstance(row, Behavior)]
        rows = self.random.sample(known, min(3, len(known)))
        self._report(rows + [self._behavior(self._ago()) for _ in range(self.random.randint(0, 1))])

    def import_log(self) -> None:
        """A log of some past days is imported, of which some is known."""
        end = self.random.choice([timedelta(), timedelta(hours=3), DAY, 3 * DAY, 30 * DAY])
        rows = [self._behavior(end + self.random.random() * 2 * DAY) for _ in range(self.random.randint(1, 12))]
        rows += [row for row in self.world.rows if isinstance(row, Behavior) and self.random.random() < 0.05]
        self.random.shuffle(rows)
        with transaction(self.engine) as connection:
            events.upsert_behaviors(connection, rows, arrived_at=self.now)
        self.world.write(rows, arrived_at=self.now, imported=True)

    def import_impressions(self) -> None:
        """Impressions are imported, and what has become of earlier ones."""
        known = [row for row in self.world.outcomes.values() if self.random.random() < 0.2]
        rows = [
            replace(row, clicked=row.clicked or self.random.random() < 0.5, ecpm=self.random.choice([1.0, 2.0]))
            for row in known
        ]
        rows += [
            Impression(
                user_id=self.random.choice(USERS),
                ad_id=self.random.choice([*ADS, 99]),
                occurred_at=self.now - self.random.random() * DAY,
                ecpm=1.0,
                clicked=self.random.random() < 0.2,
            )
            for _ in range(self.random.randint(1, 4))
        ]
        with transaction(self.engine) as connection:
            events.upsert_impressions(connection, rows, arrived_at=self.now)
        self.world.write(rows, arrived_at=self.now, imported=True)

    def let_time_pass(self) -> None:
        """Minutes pass, or days."""
        self.now += self.random.choice([timedelta(minutes=7), timedelta(hours=5), DAY, DAY, 3 * DAY, 9 * DAY])

    def summarize_some(self) -> None:
        """Some users are summarized, as before their lists are made."""
        users = self.random.sample(USERS, 3)
        with transaction(self.engine) as connection:
            summarize_given(connection, users, now=self.now, **self._sizes())
        with_state = [user for user in users if any(row.user_id == user for row in self.world.rows)]
        self._summarized(with_state)

    def summarize_everybody(self) -> None:
        """Everybody is, in batches."""
        with transaction(self.engine) as connection:
            summaries.settle_everybody(connection, now=self.now)
        for batch in summaries.waiting_batches(lambda: transaction(self.engine), now=self.now, rows=30):
            with transaction(self.engine) as connection:
                summaries.summarize_batch(connection, batch, now=self.now, **self._sizes())
        self.world.everybody = self.now
        self._summarized(USERS)

    # 2. What must be there

    def check_everything(self) -> None:
        """Compare all that was ever expected with the rows there are."""
        self.stored = Stored(self.engine)
        for (user, at), content in self.expected.items():
            assert self.stored.at(user, at) == content, (user, at)
        for key, rows in self.stored.found.items():
            for (event_at, content), (_, before) in zip(rows, [(None, None), *rows], strict=False):
                assert content != before, (key, event_at)
                assert content.newest_at is None or content.newest_at <= event_at
                if isinstance(content, Sequence):
                    assert all(seconds <= event_at.timestamp() for _, _, _, seconds, _ in content.behaviors)

    def _summarized(self, users: Iterable[int]) -> None:
        for user in users:
            after = self.world.until.get(user)
            if after is None or after < self.now:
                instants = self.world.changes(user, after, self.now)
                between = (self.now - instants[0]) * self.random.random()
                for at in [*instants, self.now - between]:
                    self.expected[user, at] = self.world.known(user, at)
                self.world.until[user] = self.now
                self.world.fresh.discard(user)
        before, self.stored = self.stored, Stored(self.engine)
        assert before.rows.items() <= self.stored.rows.items()
        for user in users:
            assert self.stored.at(user, self.now) == self.expected[user, self.now], (user, self.now)

    def _report(self, rows: list[Behavior]) -> None:
        with transaction(self.engine) as connection:
            events.append_behaviors(connection, rows, arrived_at=self.now)
        self.world.write(rows, arrived_at=self.now, imported=False)
        self.now += timedelta(seconds=self.random.choice([0, 1]))

    def _ago(self) -> timedelta:
        return self.random.choice([timedelta(), timedelta(minutes=1), timedelta(hours=9), 2 * DAY, 8 * DAY, -DAY / 2])

    def _behavior(self, ago: timedelta) -> Behavior:
        item = self.random.choice([*ADS, *CONTENT, 98])
        domain = Domain.CONTENT if item in CONTENT else Domain.AD
        return Behavior(
            user_id=self.random.choice(USERS),
            domain=domain,
            action=self.random.choice([Action.CLICK, Action.CONVERSION, Action.WATCH, Action.SKIP, Action.IMPRESSION]),
            item_id=item,
            occurred_at=self.now - ago,
            ordinal=self.random.randint(0, 2),
        )

    def _sizes(self) -> dict[str, int]:
        return {"window_days": WINDOW_DAYS, "top": TOP, "longest": LONGEST}
