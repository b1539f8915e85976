"""Made-up lists for the tests of derivation: every shape, names of any alphabet, ties and zeros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from leadre.derivation import Lists
from leadre.derivation.user_side import derive

NAMES = ("", "toys", "tea", "茶", "a" * 300, "Zoë")


@st.composite
def facts(draw: st.DrawFn, lists: int | None = None) -> dict[str, Any]:
    """What `derive` takes: a few lists, one index."""
    counts = draw(st.lists(st.integers(0, 6), max_size=5) if lists is None else st.just([draw(st.integers(0, 6))]))
    total, levels, width = sum(counts), draw(st.integers(1, 6)), draw(st.integers(0, 4))

    def column(values: st.SearchStrategy[Any], size: int = total) -> list[Any]:
        return draw(st.lists(values, min_size=size, max_size=size))

    return {
        "counts": counts,
        "ad_ids": column(st.integers(0, draw(st.sampled_from([255, 256, 2**16, 2**32, 2**63 - 1])))),
        "log_probabilities": column(st.floats(-700, 0, width=32)),
        "codes": np.array(column(st.integers(0, 3) | st.just(300), total * levels)).reshape(total, levels),
        "first_categories": column(st.integers(0, len(NAMES) - 1)),
        "second_categories": column(st.integers(0, len(NAMES) - 1)),
        "category_names": NAMES,
        "advertiser_ids": column(st.integers(0, 3) | st.sampled_from([256, 2**32, 2**63 - 1])),
        "embeddings": np.array(column(st.floats(-9, 9, width=32), total * width), np.float32).reshape(total, width),
        "ecpms": column(st.floats(0, 1e6)),
        "generated_at_s": column(st.floats(0, 2e9), len(counts)),
        "behavior_at_s": column(st.floats(0, 2e9) | st.just(float("nan")), len(counts)),
        "release": column(st.sampled_from(["", "r1", "2026-03-01 ☀"]), len(counts)),
        "index_version": column(st.sampled_from(["", "v1", "v2"]), len(counts)),
        "release_epochs": column(st.integers(0, 2**32 - 1), len(counts)),
        "behavior_sequences": column(st.integers(0, 2**32 - 1), len(counts)),
        "source": column(st.sampled_from(["llm", "covisitation", "popular"]), len(counts)),
    }


def plain(lists: Lists, u: int) -> dict[str, Any]:
    """Return one list as plain Python values, however the lists beside it made the arrays."""
    ads = slice(int(lists.offsets[u]), int(lists.offsets[u + 1]))
    names = lists.category_names
    return {
        "present": bool(lists.present[u]),
        "ad_ids": lists.ad_ids[ads].tolist(),
        "log_probabilities": lists.log_probabilities[ads].tolist(),
        "shares": lists.shares[ads].tolist(),
        "codes": lists.codes[ads, : lists.levels[u]].tolist(),
        "directions": lists.directions[ads, : lists.widths[u]].tolist(),
        "first_categories": [names[number] for number in lists.first_categories[ads].tolist()],
        "second_categories": [names[number] for number in lists.second_categories[ads].tolist()],
        "advertiser_ids": lists.advertiser_ids[ads].tolist(),
        "generated_at_s": float(lists.generated_at_s[u]),
        "behavior_at_s": None if np.isnan(lists.behavior_at_s[u]) else float(lists.behavior_at_s[u]),
        "entropy": float(lists.entropy[u]),
        "expected_ecpm": float(lists.expected_ecpm[u]),
        "mean_embedding": lists.mean_embedding[u, : lists.widths[u]].tolist(),
        "release": lists.releases[u],
        "index_version": lists.index_versions[u],
        "release_epoch": int(lists.release_epochs[u]),
        "behavior_sequence": int(lists.behavior_sequences[u]),
        "source": lists.sources[u],
    }


def all_plain(lists: Lists) -> Sequence[dict[str, Any]]:
    """Return every list as plain Python values."""
    return [plain(lists, u) for u in range(len(lists))]


def derived(of_lists: dict[str, Any]) -> Lists:
    """Derive lists from what `facts` draws."""
    return derive(**of_lists)


@st.composite
def target_facts(draw: st.DrawFn, most: int = 6) -> list[dict[str, Any] | None]:
    """Ads as an index has them, over the same few values as `facts`; None is an ad that no index knows."""
    versions = {name: (draw(st.integers(1, 6)), draw(st.integers(0, 4))) for name in ("", "v1", "v2")}

    def ad() -> dict[str, Any]:
        version = draw(st.sampled_from(["", "v1", "v1", "v2"]))
        levels, width = versions[version]
        return {
            "codes": draw(st.lists(st.integers(0, 3), min_size=levels, max_size=levels)),
            "embedding": draw(st.lists(st.floats(-9, 9, width=32), min_size=width, max_size=width)),
            "first_category": draw(st.sampled_from([*NAMES, "elsewhere"])),
            "second_category": draw(st.sampled_from([*NAMES, "elsewhere"])),
            "advertiser_id": draw(st.integers(0, 3)),
            "version": version,
        }

    return [ad() if draw(st.integers(0, 9)) else None for _ in range(draw(st.integers(0, most)))]
