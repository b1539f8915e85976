"""The online side of the replay: whatever happens, what is online is what the rows say, now and in retrospect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

import pytest
from sqlalchemy import Engine

from leadre.store.features.client import FeatureClient
from leadre.store.records.database import transaction
from leadre.store.records.known.given import summarize_given
from tests.store.replay import USERS, Content, Replay, Stored, Summary
from tests.store.replay import Sequence as BehaviorSequence

FEATURES = (
    *("categories", "counts", "disliked_categories", "disliked_counts"),
    *("spus", "spu_counts", "disliked_spus", "disliked_spu_counts"),
)
LISTS = ("item_ids", "actions", "titles", "occurred_at_s", "ordinals")


class OnlineReplay(Replay):
    """The stream with materializations in it, and refreshes of some users, as before their lists are made."""

    STEPS = (*Replay.STEPS, ("materialize", 4), ("serve", 4), ("serve_everybody", 1))

    def __init__(self, engine: Engine, features: FeatureClient, *, seed: int) -> None:
        super().__init__(engine, seed=seed)
        self.features = features
        self.served: dict[tuple[int, datetime], Content] = {}
        """What was online when it had been brought up to date, for good."""

    def materialize(self) -> None:
        """What is new goes online; nobody was summarized for it."""
        self.features.materialize(
            now=self.now, views=("interest_summary", "ad_behavior_sequence", "content_behavior_sequence")
        )
        self._check_online(USERS)

    def serve(self) -> None:
        """Some users are summarized and refreshed online."""
        users = self.random.sample(USERS, 3)
        with transaction(self.engine) as connection:
            summarize_given(connection, users, now=self.now, **self._sizes())
        known = [user for user in users if any(row.user_id == user for row in self.world.rows)]
        self._summarized(known)  # of others nothing is settled, for nothing is written: an import may still tell
        self.features.refresh_user_features(users, now=self.now)
        self._serve(known)

    def serve_everybody(self) -> None:
        """Everybody is summarized, and what is new goes online."""
        self.summarize_everybody()
        self.materialize()
        self._serve(USERS)

    def check_everything(self) -> None:
        """Compare what was served with the rows of then, too."""
        super().check_everything()
        for (user, at), content in self.served.items():
            assert shown(self.stored.at(user, at)) == content, (user, at)

    def _serve(self, users: Iterable[int]) -> None:
        users = list(users)
        self._check_online(users)
        for user, content in zip(users, online(self.features, users), strict=True):
            assert content == shown(self.world.known(user, self.now))
            self.served[user, self.now] = content

    def _check_online(self, users: Sequence[int]) -> None:
        stored = Stored(self.engine)
        for user, content in zip(users, online(self.features, users), strict=True):
            assert content == shown(stored.at(user, self.now)), (user, self.now)


def online(features: FeatureClient, users: Sequence[int]) -> list[Content]:
    """Return what is online of each user."""
    if not users:
        return []
    names = [f"interest_summary:{name}" for name in FEATURES]
    names += [f"{domain}_behavior_sequence:{domain}_{name}" for domain in ("ad", "content") for name in LISTS]
    read = features.store.get_online_features(names, [{"user_id": user} for user in users]).to_dict()
    found = []
    for place, _ in enumerate(users):
        row = {name: values[place] or () for name, values in read.items()}
        pairs = [
            tuple(zip(row[one], row[other], strict=True))
            for one, other in zip(FEATURES[::2], FEATURES[1::2], strict=True)
        ]
        sequences = [
            BehaviorSequence(behaviors=tuple(zip(*(row[f"{domain}_{name}"] for name in LISTS), strict=True)))
            for domain in ("ad", "content")
        ]
        summary = Summary(liked=pairs[0], disliked=pairs[1], liked_spus=pairs[2], disliked_spus=pairs[3])
        found.append((summary, sequences[0], sequences[1]))
    return found


def shown(content: Content) -> Content:
    """Leave out what is no feature."""
    summary, ads, others = content
    return replace(summary, newest_at=None), replace(ads, newest_at=None), replace(others, newest_at=None)


@pytest.mark.parametrize("seed", range(2))
def test_whatever_happens_what_is_served_is_what_was_known(
    features: FeatureClient, database: Engine, seed: int
) -> None:
    replay = OnlineReplay(database, features, seed=seed)
    replay.run(instants=1500)
    assert len(replay.served) > 10
