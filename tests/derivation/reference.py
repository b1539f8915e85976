"""The printed algorithm: docs/features.md in plain Python, one row and one listed ad after the other.

Whole numbers and fractions are exact, so it says to the bit what the fast paths have to give.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from leadre.derivation import NEUTRAL, PREFIX_LEVELS


def item_match(
    of_list: Mapping[str, Any],
    target: Mapping[str, Any] | None,
    *,
    ad_id: int,
    request_time_s: float,
    ttl_s: float,
) -> dict[str, int | float]:
    """Derive one row.

    Args:
        of_list: as `tests.derivation.worlds.plain` gives it.
        target: `codes`, `direction` (whole numbers), names of categories, `advertiser_id`, `version`; None: no index
            knows the ad.
        ad_id: the target ad.
        request_time_s: when the ranker asks; NaN when it does not say.
        ttl_s: a list older than this is absent.
    """
    row = dict(NEUTRAL)
    age = request_time_s - of_list["generated_at_s"]
    if not of_list["present"] or not of_list["ad_ids"] or age > ttl_s or age < 0:
        return row
    if not math.isnan(age):
        row["list_age_s"] = age
    mass = dict.fromkeys(
        ["probability", "first_category", "second_category", "advertiser", "cosine", *range(1, PREFIX_LEVELS + 1)],
        Fraction(0),
    )
    cosines, scale = [], 1.0
    for place, listed in enumerate(of_list["ad_ids"]):
        p = Fraction(of_list["shares"][place], 2**32)
        if listed == ad_id:
            mass["probability"] += p
            row["hit"], row["rank"] = 1, row["rank"] or place + 1
        if target is None:
            continue
        first, second = of_list["first_categories"][place], of_list["second_categories"][place]
        if first and first == target["first_category"]:
            mass["first_category"] += p
            if second and second == target["second_category"]:
                mass["second_category"] += p
        if target["advertiser_id"] and target["advertiser_id"] == of_list["advertiser_ids"][place]:
            mass["advertiser"] += p
        if not target["version"] or target["version"] != of_list["index_version"]:
            continue
        ours, theirs = of_list["codes"][place], target["codes"]
        if len(ours) == len(theirs):
            shared = 0
            while shared < len(ours) - 1 and ours[shared] == theirs[shared]:
                shared += 1
            row["longest_shared_prefix"] = max(row["longest_shared_prefix"], shared)
            for depth in range(1, PREFIX_LEVELS + 1):
                mass[depth] += p * (shared >= depth)
        a, b = of_list["directions"][place], target["direction"]
        if len(a) == len(b) > 0:
            unit = 2 ** (21 - ((127**2 * len(a)).bit_length() + 1) // 2)
            norms = [math.sqrt(sum(x * x for x in vector) or 1) for vector in (a, b)]
            dot = sum(round(x / norms[0] * unit) * y for x, y in zip(a, b, strict=True))  # halves to the even number
            cosines.append(dot)
            mass["cosine"] += p * dot
            scale = unit * norms[1]
    masses = {name: min(float(value), 1.0) for name, value in mass.items()}
    return {
        **row,
        "probability": masses["probability"],
        **{f"prefix_mass_{depth}": masses[depth] for depth in range(1, PREFIX_LEVELS + 1)},
        "first_category_mass": masses["first_category"],
        "second_category_mass": masses["second_category"],
        "advertiser_mass": masses["advertiser"],
        "max_cosine": min(max(max(cosines, default=0) / scale, -1.0), 1.0),
        "mean_cosine": min(max(float(mass["cosine"]) / scale, -1.0), 1.0),
    }
