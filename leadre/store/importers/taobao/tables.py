"""The four tables of the public Taobao display-ad log: their columns, and what a row of each becomes.

LEADRE §5.1's public stand-in. The data holds numbers alone, so that names are made of them: `category 6406`.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from datetime import UTC, datetime
from typing import Any

from leadre.domain.ads import Ad, ContentItem
from leadre.domain.behavior import EARLIEST, LATEST_AHEAD, Action, Behavior, Domain, Impression
from leadre.domain.identity import MAX_ID, stable_id
from leadre.domain.users import Profile
from leadre.store.importers.tabular.columns import ColumnRule, RowCheck
from leadre.store.importers.tabular.rejected import BadValue, Kind
from leadre.store.importers.tabular.times import TimeReader
from leadre.store.importers.tabular.values import number, shown, whole

BID = 1.0
"""The data has no bids: every ad gets this one, marked as simulated; `leadre ads price` draws them from a market."""
TABLES = ("raw_sample", "ad_feature", "user_profile", "behavior_log")
"""The files, without .csv."""
COLUMNS = {"new_user_class_level": "new_user_class_level "}
"""Names in the published files that are not those in their description: this one ends in a space."""

_BTAGS = ("pv", "ipv", "cart", "fav", "buy")  # published files say pv, their description ipv
_SEX = {1: "male", 2: "female"}
_CONSUMPTION = {1: "low", 2: "medium", 3: "high"}
_DEPTH = {1: "shallow", 2: "moderate", 3: "deep"}
_STUDENT = {0: "", 1: "college student"}
_id = whole(0, MAX_ID)


def columns_of(*, now: datetime) -> dict[str, tuple[ColumnRule, ...]]:
    """Return the columns of each table; times are Unix seconds, from 2000 to a day after `now`."""

    def time() -> TimeReader:
        latest = (now + LATEST_AHEAD).astimezone(UTC)
        bounds = f"from {EARLIEST:%Y-%m-%d} to {latest:%Y-%m-%dT%H:%M}Z, a day after now"
        return TimeReader(unit="s", first=EARLIEST, last=latest, bounds=bounds)

    def ids(*names: str) -> tuple[ColumnRule, ...]:
        return tuple(ColumnRule(name=name, parse=_id) for name in names)

    def levels(*names: str) -> tuple[ColumnRule, ...]:
        return tuple(ColumnRule(name=name, parse=whole(0, 1000), default=None) for name in names)

    return {
        "raw_sample": (
            *ids("user", "adgroup_id"),
            ColumnRule(name="time_stamp", parse=time()),
            ColumnRule(name="pid", parse=str, default=""),
            *(ColumnRule(name=name, parse=whole(0, 1)) for name in ("nonclk", "clk")),
        ),
        "ad_feature": (
            *ids("adgroup_id", "cate_id", "campaign_id", "customer"),
            ColumnRule(name="brand", parse=_brand, default=None),
            ColumnRule(name="price", parse=number(0, 1e12), default=None),
        ),
        "user_profile": (
            *ids("userid"),
            *levels("cms_segid", "cms_group_id", "final_gender_code", "age_level", "pvalue_level"),
            *levels("shopping_level", "occupation", "new_user_class_level"),
        ),
        "behavior_log": (
            *ids("user", "cate"),
            ColumnRule(name="time_stamp", parse=time()),
            ColumnRule(name="btag", parse=_btag),
            ColumnRule(name="brand", parse=_brand, default=None),
        ),
    }


def checks_of(*, ads: Container[int], users: Container[int], twice: Callable[[str, int], bool]) -> dict[str, RowCheck]:
    """Return what may be wrong with a row as a whole.

    Args:
        ads: the ads that ad_feature has.
        users: the users that raw_sample or user_profile has.
        twice: tells whether a table had a row of this id before, and notes it.
    """

    def shown_ad(nonclk: int, clk: int, ad_id: int) -> tuple[Kind, str] | None:
        if nonclk == clk:
            return Kind.BAD_YES_NO, f"nonclk and clk are both {clk}; one of them is 1"
        if ad_id not in ads:
            return Kind.UNKNOWN_AD, f"{ad_id} is not in ad_feature; add it there, or give --on-bad-row skip"
        return None

    def of_a_user(user_id: int) -> tuple[Kind, str] | None:
        if user_id not in users:
            return Kind.UNKNOWN_USER, f"{user_id} is neither in raw_sample nor in user_profile"
        return None

    def once(table: str, column: str) -> RowCheck:
        def find(key: int) -> tuple[Kind, str] | None:
            return (Kind.DUPLICATE_ID, f"{key} has a row already; the first counts") if twice(table, key) else None

        return RowCheck(columns=(column,), find=find, blamed=column)

    return {
        "raw_sample": RowCheck(columns=("nonclk", "clk", "adgroup_id"), find=shown_ad),
        "ad_feature": once("ad_feature", "adgroup_id"),
        "user_profile": once("user_profile", "userid"),
        "behavior_log": RowCheck(columns=("user",), find=of_a_user, blamed="user"),
    }


def ad_of(row: dict[str, Any], *, created_at: datetime) -> Ad:
    """Return an ad: its category is the first level, there is no second; the price is told by its power of ten."""
    category, brand, price = _category(row["cate_id"]), row["brand"], row["price"]
    named = [f"brand {brand}"] if brand is not None else []
    attributes = [f"campaign_{row['campaign_id']}"]
    attributes += [f"brand_{brand}"] if brand is not None else []
    if price is not None:
        attributes.append(f"price_{_power_of_ten(price)}")
    return Ad(
        ad_id=row["adgroup_id"],
        source_id=str(row["adgroup_id"]),
        name=", ".join([category, *named, f"advertiser {row['customer']}"]),
        ad_type="product",
        first_category=category,
        second_category="",
        attributes=tuple(attributes),
        advertiser_id=row["customer"],
        bid=BID,
        bid_simulated=True,
        created_at=created_at,
    )


def profile_of(row: dict[str, Any]) -> Profile:
    """Return a profile. Ages are levels without a unit and segments have no meaning that is published: left out."""
    consumption = [_CONSUMPTION.get(row["pvalue_level"], "")]
    consumption += [f"shops {depth}" for depth in [_DEPTH.get(row["shopping_level"])] if depth]
    city = row["new_user_class_level"]
    return Profile(
        user_id=row["userid"],
        sex=_SEX.get(row["final_gender_code"], ""),
        residence=f"city tier {city}" if city else "",
        occupation=_STUDENT.get(row["occupation"], ""),
        consumption_level=", ".join(part for part in consumption if part),
    )


def impression_of(row: dict[str, Any]) -> Impression:
    """Return an impression. Its eCPM is what it brought by the simulated bid: the mean is bid x click rate."""
    return Impression(
        user_id=row["user"],
        ad_id=row["adgroup_id"],
        occurred_at=row["time_stamp"],
        ecpm=1000 * BID * row["clk"],
        clicked=row["clk"] == 1,
        converted=False,
        simulated=True,
    )


def click_of(row: dict[str, Any]) -> Behavior:
    """Return the click of an impression that was clicked."""
    return Behavior(
        user_id=row["user"],
        domain=Domain.AD,
        action=Action.CLICK,
        item_id=row["adgroup_id"],
        occurred_at=row["time_stamp"],
    )


def content_of(cate: int, brand: int | None) -> ContentItem:
    """Return what users look at in the shop: things of a category and a brand, the content domain's item."""
    name = _content_name(cate, brand)
    title = "" if brand is None else f"brand {brand}"
    return ContentItem(content_id=stable_id(name), source_id=name, title=title, category=_category(cate))


def behavior_of(row: dict[str, Any]) -> Behavior:
    """Return a behavior of the content domain: page views, carts, favourites and purchases all show interest."""
    return Behavior(
        user_id=row["user"],
        domain=Domain.CONTENT,
        action=Action.WATCH,
        item_id=stable_id(_content_name(row["cate"], row["brand"])),
        occurred_at=row["time_stamp"],
        ordinal=_BTAGS.index(row["btag"]),
    )


def _category(cate: int) -> str:
    return f"category {cate}"


def _content_name(cate: int, brand: int | None) -> str:
    return _category(cate) if brand is None else f"{_category(cate)}, brand {brand}"


def _power_of_ten(price: float) -> str:
    digits = max(0, len(str(int(price))) - 1)
    return f"{10**digits}" if price >= 1 else "0"


def _brand(value: object) -> int | None:
    return None if value == "NULL" else _id(value)


def _btag(value: object) -> str:
    if value not in _BTAGS:
        raise BadValue(Kind.UNKNOWN_CHOICE, f"{shown(value)} is unknown; known are {', '.join(_BTAGS)}")
    return str(value)
