"""Histories with some behaviors left out, as further users to learn from.

Ours; after data augmentation by item dropout (GRU4Rec's improvements: Tan, Xu & Liu, 2016, arXiv:1606.08117). A log
has one order of each user's behaviors, and a model that goes through it often learns it by heart. A teacher answers
for histories that nobody had as well.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from leadre.store.records.events import Sequences
from leadre.training.data.examples import TrainingData

_FEWEST = 3  # targets of a history that is thinned: what is left of a shorter one is no history


def thinned(data: TrainingData, *, copies: int, share: float) -> TrainingData:
    """Return the data with further users: copies of those there are, with behaviors left out at random.

    A copy ends with its user's last target, so nothing that is held out is in it, and of the targets those are left
    that stay. It has the user's id, profile and times. Users with fewer than three targets are not copied, and nobody
    is validated on a copy.

    Args:
        data: of the users themselves, who come first, as they are.
        copies: of each user.
        share: of the behaviors before the last target that a copy leaves out.
    """
    if not copies:
        return data
    sources = [user for user, targets in enumerate(data.targets) if len(targets) >= _FEWEST] * copies
    random = np.random.default_rng((data.seed, copies))
    arrays = data.contexts.sequences
    rows = [np.arange(*arrays.offsets[user : user + 2]) for user in range(len(arrays.users))]
    targets = [list(positions) for positions in data.targets]
    for user in sources:
        last = data.targets[user][-1]
        stays = random.random(last + 1) >= share
        stays[last] = True
        rows.append(rows[user][: last + 1][stays])
        place = np.cumsum(stays) - 1
        targets.append([int(place[at]) for at in data.targets[user] if stays[at]])
    chosen = np.concatenate(rows)
    users = np.concatenate([np.arange(len(arrays.users)), np.array(sources, np.int64)])
    contexts = data.contexts.over(
        Sequences(
            users=arrays.users[users],
            offsets=np.cumsum([0, *map(len, rows)]),
            item_ids=arrays.item_ids[chosen],
            domains=arrays.domains[chosen],
            actions=arrays.actions[chosen],
            occurred_at_s=arrays.occurred_at_s[chosen],
            ordinals=arrays.ordinals[chosen],
        )
    )
    copied = [contexts.behaviors(user) for user in range(len(arrays.users), len(rows))]
    return replace(data, sequences=[*data.sequences, *copied], targets=targets, contexts=contexts, validation=())
