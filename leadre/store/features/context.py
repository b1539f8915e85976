"""From a row of the feature store to the context a prompt is made of. LEADRE §4.2.1."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from leadre.domain.behavior import Action, Behavior, Domain
from leadre.domain.users import Context, ContextBehavior, InterestSummary, Profile
from leadre.errors import FeatureRowMismatch

PROFILE_FIELDS = ("age", "sex", "residence", "education_level", "occupation", "consumption_level", "arpu", "device")

SUMMARY_FIELDS = {
    "liked": ("categories", "counts"),
    "disliked": ("disliked_categories", "disliked_counts"),
    "liked_spus": ("spus", "spu_counts"),
    "disliked_spus": ("disliked_spus", "disliked_spu_counts"),
}
"""The two features that each field of an interest summary is made of."""


def context_of(row: Mapping[str, Any], *, user_id: int, now: datetime) -> Context:
    """Return the context that a row of `prompt_context_v1` holds.

    Args:
        row: the service's features by name; a value that the store does not have is None.
        user_id: whose row it is.
        now: later behaviors are left out.

    Raises:
        FeatureRowMismatch: the lists of a sequence are not equally long.
    """
    # A registry that was applied before a field existed has no column for it: the user's value is unknown.
    profile = {name: row[name] for name in PROFILE_FIELDS if row.get(name) is not None}
    behaviors = []
    for domain in Domain:
        lists = [
            row[f"{domain}_{name}"] or () for name in ("item_ids", "actions", "titles", "occurred_at_s", "ordinals")
        ]
        if len({len(values) for values in lists}) > 1:
            raise FeatureRowMismatch(
                f"the {domain} sequence of user {user_id} has lists of {[len(values) for values in lists]} entries; "
                "write its summary again"
            ).about(users=[user_id])
        for item_id, action, title, occurred_at_s, ordinal in zip(*lists, strict=True):
            behavior = Behavior(
                user_id=user_id,
                domain=domain,
                action=Action(action),
                item_id=item_id,
                occurred_at=datetime.fromtimestamp(occurred_at_s, UTC),
                ordinal=ordinal,
            )
            if behavior.occurred_at <= now:
                behaviors.append(ContextBehavior(behavior=behavior, title=title))
    behaviors.sort(key=lambda known: (known.behavior.occurred_at, known.behavior.ordinal))
    return Context(
        profile=Profile(user_id=user_id, **profile),
        summary=InterestSummary(
            **{
                name: tuple(zip(row.get(names) or (), row.get(counts) or (), strict=False))
                for name, (names, counts) in SUMMARY_FIELDS.items()
            }
        ),
        behaviors=tuple(behaviors),
        now=now,
    )
