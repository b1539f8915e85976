"""What the User Server takes and gives, as types: decoding is strict, and the OpenAPI document is made of them.

LEADRE §4.4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from leadre.domain.retrieval import Source
from leadre.serving.http.limits import DEFAULT_LIMIT, MAX_LIMIT

MAX_USERS = 500
"""Users whose lists one request reads at most (ours: a ranker's batch)."""


class ListedAd(msgspec.Struct, frozen=True, kw_only=True):
    """An ad of a list: its id as the owner writes it, its S-ID, and the logarithm of its probability."""

    ad_id: int | str
    sid: str
    log_probability: float


class UserAds(msgspec.Struct, frozen=True, kw_only=True):
    """A user's list, best ad first.

    `degraded` says that the list is not what the online store has: it is empty, or an earlier one, because Redis or
    PostgreSQL do not answer.
    """

    user_id: int | str
    release: str | UnsetType = UNSET
    index_version: str | UnsetType = UNSET
    generated_at: str | UnsetType = UNSET
    source: Source | UnsetType = UNSET
    ads: Sequence[ListedAd] = ()
    degraded: bool = False


class UsersWanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a request that reads many lists; `limit` bounds the ads of each."""

    user_ids: Annotated[list[int | str], Meta(min_length=1, max_length=MAX_USERS)]
    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT


class ManyLists(msgspec.Struct, frozen=True, kw_only=True):
    """The lists of many users, in the order in which they were asked for."""

    lists: Sequence[UserAds]


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """Behaviors that will not be lost.

    `stored`: they are in PostgreSQL; otherwise they are in the stream that leads there. `queued`: the user waits for a
    new list already. How many are of items that the catalog does not hold is known of stored ones.
    """

    accepted: int
    stored: bool
    queued: bool | UnsetType = UNSET
    unknown_ads: int | UnsetType = UNSET
    unknown_content_items: int | UnsetType = UNSET
