"""Look-ups in the catalog by the owner's ids. LEADRE §3.1."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from leadre.domain.ads import Ad
from leadre.domain.identity import id_of
from leadre.domain.semantic_id import SemanticId
from leadre.domain.users import Profile
from leadre.errors import InvalidInput, UnknownAd
from leadre.indexing.ad_index import AdIndex
from leadre.store.records import catalog
from leadre.store.records.database import transaction
from leadre.store.records.events import recent_users
from leadre.store.records.source_ids import ad_source_ids, user_source_ids

if TYPE_CHECKING:
    from sqlalchemy import Engine as Database


class Users:
    """The catalog's users: `users["u-17"]` is a profile."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __len__(self) -> int:
        """Return how many there are."""
        with transaction(self._database) as connection:
            return catalog.row_counts(connection)["users"]

    def __getitem__(self, user: int | str) -> Profile:
        """Return a user's profile.

        Raises:
            InvalidInput: the catalog does not hold the user, or it is no id.
        """
        user_id = id_of(user)
        with transaction(self._database) as connection:
            found = catalog.profiles(connection, [user_id])
        if user_id not in found:
            raise InvalidInput(f"user {user!r} is not in the catalog; `leadre import` loads users")
        return found[user_id]

    def recent(self, count: int = 10, *, now: datetime | None = None) -> list[int | str]:
        """Return those with the newest positive behaviors, newest first, as their owner names them.

        Args:
            count: how many at most (default ours).
            now: later behaviors are not seen; None: the present.
        """
        with transaction(self._database) as connection:
            user_ids = recent_users(connection, now=now or datetime.now(UTC), limit=count)
            names = user_source_ids(connection, user_ids)
        return [names[user_id] for user_id in user_ids]


class Ads:
    """The catalog's ads: `ads["SKU-1"]` is an ad, `ads.sid("SKU-1")` its S-ID in the release's index."""

    def __init__(self, database: Database, index: AdIndex) -> None:
        self._database, self._index = database, index

    def __len__(self) -> int:
        """Return how many there are."""
        with transaction(self._database) as connection:
            return catalog.row_counts(connection)["ads"]

    def __getitem__(self, ad: int | str) -> Ad:
        """Return an ad.

        Raises:
            UnknownAd: the catalog does not hold it.
            InvalidInput: it is no id.
        """
        with transaction(self._database) as connection:
            found = catalog.read_ads(connection, ad_ids=[id_of(ad)])
        if not found:
            raise UnknownAd(f"ad {ad!r} is not in the catalog; `leadre import` loads ads")
        return found[0]

    def ids(self) -> list[int | str]:
        """Return those of the index in the order of their S-IDs, as their owner names them."""
        ad_ids = self._index.ad_ids.tolist()
        with transaction(self._database) as connection:
            names = ad_source_ids(connection, ad_ids)
        return [names.get(ad_id, ad_id) for ad_id in ad_ids]

    def sid(self, ad: int | str) -> SemanticId:
        """Return an ad's S-ID.

        Raises:
            UnknownAd: the index does not hold it.
            InvalidInput: it is no id.
        """
        return self._index.sid(id_of(ad))
