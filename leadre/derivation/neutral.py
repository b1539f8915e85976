"""The ranking features by name, and the value each takes when there is nothing to derive it from.

LEADRE §4.4.1, §5.3. One rule for all: of a list that is missing, empty, no record, older than its ttl or generated
after the request, every feature is neutral. Texts and lists are empty, numbers 0, and the age is -1.
"""

from __future__ import annotations

from collections.abc import Mapping

from leadre.derivation.lists import NO_AGE

LIST_TTL_S = 7 * 86_400.0
"""A list older than this counts as absent (ours); the feature view's ttl and the settings' default are the same."""

PREFIX_LEVELS = 4
"""Levels with a feature of their own: M of the paper. Fewer levels leave the rest 0."""

NEUTRAL: Mapping[str, int | float] = {
    "hit": 0,
    "rank": 0,
    "probability": 0.0,
    **{f"prefix_mass_{depth}": 0.0 for depth in range(1, PREFIX_LEVELS + 1)},
    "longest_shared_prefix": 0,
    "first_category_mass": 0.0,
    "second_category_mass": 0.0,
    "advertiser_mass": 0.0,
    "max_cosine": 0.0,
    "mean_cosine": 0.0,
    "list_age_s": NO_AGE,
}
"""The item-side features: of a target ad and its user's list."""

USER_NEUTRAL: Mapping[str, int | float | str | tuple[()]] = {
    "retrieved_ad_ids": (),
    "retrieved_sids": (),
    "retrieved_log_probabilities": (),
    "retrieved_probabilities": (),
    "retrieved_first_categories": (),
    "retrieved_second_categories": (),
    "retrieved_advertiser_ids": (),
    "retrieved_embeddings": (),
    "retrieved_count": 0,
    "top_probability": 0.0,
    "entropy": 0.0,
    "categories": (),
    "category_probabilities": (),
    "category_concentration": 0.0,
    "mean_embedding": (),
    "expected_ecpm": 0.0,
    "generated_at_s": 0.0,
    "behavior_at_s": 0.0,
    "release": "",
    "index_version": "",
}
"""The user-side features: of a list alone. Feast returns the empty ones as lists."""
