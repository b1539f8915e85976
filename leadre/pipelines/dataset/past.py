"""What was known at an instant of the past: contexts of users, and releases that had not seen what followed.

LEADRE §4.4.1, §5.3. What happens at the very instant is not known yet: where times are whole days, a day's lists must
not see the day's clicks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from leadre.domain.users import Context, InterestSummary, Profile
from leadre.errors import ArtifactIncomplete, ReleaseMismatch
from leadre.recipe import PromptRecipe
from leadre.store.records import catalog
from leadre.store.records.events import read_sequences
from leadre.store.release.records import ReleaseRow, indexes_seen_until, list_releases
from leadre.training.data.contexts import read_contexts
from leadre.training.learner.release_folder import open_release, trained_until

if TYPE_CHECKING:
    from sqlalchemy import Connection

TICK = timedelta(microseconds=1)
"""The last instant before T is T - `TICK`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRelease:
    """A release that lists of the past may be made with, and until when it has seen what happened."""

    row: ReleaseRow
    seen_until: datetime

    def check(self, at: datetime) -> None:
        """Refuse to decode an instant that the release has seen.

        Raises:
            ReleaseMismatch: as it says.
        """
        if self.seen_until >= at:
            raise ReleaseMismatch(
                f"release {self.row.release!r} has seen what happened until {self.seen_until.isoformat()}: lists as of "
                f"{at.isoformat()} would know what they are to foretell; take a release trained before, or "
                "`--models rolling`"
            )


def contexts_before(
    connection: Connection, user_ids: Sequence[int], *, at: datetime, recipe: PromptRecipe
) -> list[Context]:
    """Return users' contexts as of an instant, of behaviors before it alone; profiles are those of today.

    Args:
        connection: in a transaction.
        user_ids: different ones.
        at: the instant.
        recipe: the release's.
    """
    sequences = read_sequences(connection, until=at - TICK, user_ids=user_ids)
    builder = read_contexts(connection, sequences, recipe=recipe, items="named")
    number = {user_id: place for place, user_id in enumerate(sequences.users.tolist())}
    counts = (sequences.offsets[1:] - sequences.offsets[:-1]).tolist()
    strangers = catalog.profiles(connection, [user_id for user_id in user_ids if user_id not in number])
    return [
        builder.context(number[user_id], counts[number[user_id]], at)
        if user_id in number
        else Context(
            profile=strangers.get(user_id) or Profile(user_id=user_id),
            summary=InterestSummary(),
            behaviors=(),
            now=at,
        )
        for user_id in user_ids
    ]


def past_releases(connection: Connection) -> list[PastRelease]:
    """Return the releases that say what they have seen and are whole on disk, those that saw the most first.

    Left out are models before business alignment, and releases that the guard kept back.
    """
    found = []
    for row, until in _seen_until(connection):
        if until is None or row.release.endswith("-sft") or "kept_back" in row.metrics:
            continue
        with contextlib.suppress(ArtifactIncomplete):
            open_release(Path(row.uri))
            found.append(PastRelease(row=row, seen_until=until))
    return sorted(found, key=lambda release: release.seen_until, reverse=True)


def seen_until(connection: Connection) -> dict[str, datetime | None]:
    """Return until when each release has seen what happened; None where nobody knows any more."""
    return {row.release: until for row, until in _seen_until(connection)}


def _seen_until(connection: Connection) -> Iterator[tuple[ReleaseRow, datetime | None]]:
    """Yield the releases, newest first. An index whose codebooks were fitted on behaviors has seen them as well."""
    indexes = indexes_seen_until(connection)
    for row in list_releases(connection):
        until = row.trained_until
        if until is None:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                until = trained_until(Path(row.uri))
        yield row, until and max(until, indexes.get(row.index_version, until))


def newest_before(releases: Sequence[PastRelease], at: datetime) -> PastRelease | None:
    """Return the first of the releases that had not seen the instant; None when all have."""
    return next((release for release in releases if release.seen_until < at), None)
