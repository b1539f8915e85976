from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx
import hypothesis.strategies as st
import pytest
from hypothesis import given

from leadre.errors import InvalidInput, Unavailable
from leadre.serving.ad_catalog import Shown
from leadre.serving.mixer.branches import FixedBranch, Retrieved
from leadre.serving.mixer.merging import MixedAd, consumption, merge
from leadre.serving.mixer.mix import Mixer
from leadre.serving.mixer.server import application


def showing(*live: int) -> Callable[[Sequence[int]], Shown]:
    """Ads 7, 8 and 9 are known, the last by a text; some of them may be shown."""
    names = {7: 7, 8: 8, 9: "SKU-9"}

    def shown(ads: Sequence[int]) -> Shown:
        return Shown(
            names=[names[ad] if ad in live else None for ad in ads],
            unnamed=sum(ad not in names for ad in ads),
            until_s=2**31,
        )

    return shown


@dataclass(frozen=True)
class SlowBranch:
    name: str = "slow"

    async def retrieve(self, user_id: int, k: int) -> Retrieved:
        await asyncio.sleep(30)
        return Retrieved([1])


@dataclass(frozen=True)
class BrokenBranch:
    name: str = "broken"

    async def retrieve(self, user_id: int, k: int) -> Retrieved:
        raise RuntimeError("no")


def everything(ad: int) -> bool:
    return True


def ids(ads: Sequence[MixedAd]) -> list[int]:
    return [ad.ad_id for ad in ads]


def test_branches_take_turns_by_their_quotas() -> None:
    retrieved = {"leadre": [1, 2, 3, 4, 5], "popular": [10, 11, 12]}
    merged = merge(retrieved, quotas={"leadre": 2, "popular": 1}, live=everything, limit=7)
    assert ids(merged) == [1, 2, 10, 3, 4, 11, 5]


def test_an_ad_of_two_branches_comes_once_and_carries_both() -> None:
    retrieved = {"leadre": [1, 2], "popular": [2, 3]}
    merged = merge(retrieved, quotas={"leadre": 1, "popular": 1}, live=everything, limit=9)
    assert [(ad.ad_id, ad.branches) for ad in merged] == [
        (1, ("leadre",)),
        (2, ("leadre", "popular")),
        (3, ("popular",)),
    ]


def test_dead_ads_are_left_out_and_others_take_their_places() -> None:
    merged = merge({"leadre": [1, 2, 3]}, quotas={"leadre": 1}, live={1, 3}.__contains__, limit=2)
    assert ids(merged) == [1, 3]


@given(
    st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(0, 12), max_size=9), min_size=1),
    st.sets(st.integers(0, 12)),
    st.integers(1, 3),
    st.integers(1, 20),
)
def test_merging_loses_no_live_ad_but_by_the_limit(
    retrieved: dict[str, list[int]], live: set[int], quota: int, limit: int
) -> None:
    merged = merge(retrieved, quotas=dict.fromkeys(retrieved, quota), live=live.__contains__, limit=limit)
    wanted = {ad for ads in retrieved.values() for ad in ads} & live
    assert len(ids(merged)) == len(set(ids(merged))) == min(limit, len(wanted))
    assert set(ids(merged)) <= wanted
    for ad in merged:
        assert ad.branches == tuple(name for name, ads in retrieved.items() if ad.ad_id in ads)


def test_a_branch_consumes_what_it_alone_brings() -> None:
    mixed = {("leadre", True): 3, ("leadre", False): 2, ("popular", False): 2, ("visits", True): 1}
    assert consumption(mixed, 8) == {"leadre": 3 / 8, "visits": 1 / 8}
    assert consumption({}, 0) == {}


def test_late_and_broken_branches_are_left_out_and_named() -> None:
    popular = FixedBranch(name="popular", ads=lambda: [7, 8])
    branches = [(SlowBranch(), 1), (BrokenBranch(), 1), (popular, 1)]
    mixer = Mixer(branches, shown=showing(7, 8), deadline_s=0.02)
    mix = asyncio.run(mixer.mix(1, limit=5))
    assert ids(mix.ads) == [7, 8]
    assert mix.failed == ("slow", "broken")
    assert mixer.counters["failed_slow"] == 1
    assert mixer.consumption == {"popular": 1.0}


def test_what_each_branch_brought_alone_is_counted_for_prometheus() -> None:
    one = FixedBranch(name="one", ads=lambda: [7, 8])
    other = FixedBranch(name="other", ads=lambda: [8, 9])
    mixer = Mixer([(one, 1), (other, 1)], shown=showing(7, 8, 9))
    mix = asyncio.run(mixer.mix(1, limit=3))
    assert [(ad.branches, source) for ad, source in zip(mix.ads, mix.sources, strict=True)] == [
        (("one",), "one"),
        (("one", "other"), "one"),
        (("other",), "other"),
    ]
    samples = {
        (sample.name, *sample.labels.values()): sample.value for metric in mixer.collect() for sample in metric.samples
    }
    assert samples == {
        ("leadre_mixed_ads_total", "one", "true"): 1,
        ("leadre_mixed_ads_total", "one", "false"): 1,
        ("leadre_mixed_ads_total", "other", "true"): 1,
        ("leadre_mixed_ads_total", "other", "false"): 1,
        ("leadre_consumption_ratio", "one"): 1 / 3,
        ("leadre_consumption_ratio", "other"): 1 / 3,
    }


def test_branches_of_one_name_are_refused() -> None:
    branch = FixedBranch(name="popular", ads=list)
    with pytest.raises(InvalidInput, match="different names"):
        Mixer([(branch, 1), (branch, 2)], shown=showing())
    with pytest.raises(InvalidInput, match="quotas of at least 1"):
        Mixer([(branch, 0)], shown=showing())


def test_the_mixer_answers_over_http_and_refuses_bad_ids_and_limits() -> None:
    mixer = Mixer([(FixedBranch(name="popular", ads=lambda: [7, 8, 9]), 1)], shown=showing(7, 9))

    async def talk() -> None:
        transport = httpx.ASGITransport(application(mixer))
        async with httpx.AsyncClient(transport=transport, base_url="http://mixer") as client:
            answer = await client.get("/v1/users/5/candidates", params={"limit": 2})
            assert answer.json() == {
                "user_id": 5,
                "ads": [
                    {"ad_id": 7, "branches": ["popular"], "source": "popular"},
                    {"ad_id": "SKU-9", "branches": ["popular"], "source": "popular"},
                ],
                "degraded": False,
                "failed_branches": [],
            }
            assert (await client.get("/v1/users/b%C3%A4r%2F5/candidates")).json()["user_id"] == "bär/5"
            for path, named in (("%20/candidates", "user_id"), ("5/candidates?limit=0", "limit")):
                refused = await client.get(f"/v1/users/{path}")
                assert refused.status_code == 400
                assert f"column '{named}'" in refused.json()["error"]
            assert (await client.get("/healthz")).json()["status"] == "ok"
            metrics = (await client.get("/metrics")).text
            assert 'leadre_served_total{server="mixer",what="requests"} 2' in metrics
            assert 'leadre_mixed_ads_total{branch="popular",only="true"} 4' in metrics

    asyncio.run(talk())


def test_an_ad_without_a_name_is_left_out_counted_and_replaced() -> None:
    popular = FixedBranch(name="popular", ads=lambda: [6, 7, 8])
    mixer = Mixer([(popular, 1)], shown=showing(7, 8))
    assert asyncio.run(mixer.mix(1, limit=2)).source_ids == (7, 8)
    assert mixer.counters["unnamed"] == 1


def test_nothing_is_shown_before_the_catalog_was_read() -> None:
    def not_yet(_: Sequence[int]) -> Shown:
        raise Unavailable("not read yet")

    mixer = Mixer([(FixedBranch(name="popular", ads=lambda: [7]), 1)], shown=not_yet)
    mix = asyncio.run(mixer.mix(1, limit=2))
    assert (mix.ads, mix.degraded) == ((), True)
