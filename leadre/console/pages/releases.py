"""Releases: their figures, and promotion and rollback after a confirmation. LEADRE §4.4.1 (daily updates).

A change goes through the code that the command line calls, with its guard; there is no forcing it from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leadre.console.answers import elsewhere, page
from leadre.console.door import FormGuard
from leadre.console.sight import Show, Sight
from leadre.errors import ConfigError, InvalidInput, ReleaseMismatch
from leadre.serving.http.messages import Answer, Request
from leadre.store.records.database import session, transaction
from leadre.store.release.guard import figure, guard_of, shortfalls
from leadre.store.release.promotion import promote_guarded
from leadre.store.release.records import ReleaseRow, list_releases, rollback


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """A figure that guards promotions: of the candidate, of the live release, and the least that is asked for."""

    name: str
    ours: float
    theirs: float
    least: float


def shown(changes: FormGuard | None) -> Show:
    """Return the page of all releases."""

    def show(sight: Sight, request: Request) -> Answer:
        rows = _rows(sight)
        live = _live(rows)
        return page(
            "releases.html",
            here="releases",
            rows=rows,
            live=live,
            previous=previous_of(rows),
            may_change=changes is not None,
            done=request.asked("done") if live and request.asked("done") == live.release else None,
        )

    return show


def confirmation(changes: FormGuard) -> Show:
    """Return the page that asks before anything changes."""

    def show(sight: Sight, request: Request) -> Answer:
        rows, action = _rows(sight), request.asked("action")
        live = _live(rows)
        if action == "rollback":
            chosen = previous_of(rows)
            if live is None or chosen is None:
                raise ConfigError("no release was live before the one that is; promote another one instead")
        else:
            chosen = next((row for row in rows if row.release == request.asked("release")), None)
            if action != "promote" or chosen is None:
                raise InvalidInput("there is no such release; go back to the list of releases")
        guarded = _guarded(chosen, live)
        return page(
            "change.html",
            here="releases",
            action=action,
            chosen=chosen,
            live=live,
            guarded=guarded,
            problems=shortfalls(chosen.metrics, live.metrics, guard_of(chosen.metrics))
            if live and action == "promote"
            else [],
            token=changes.token,
        )

    return show


def change(sight: Sight, fields: Mapping[str, str]) -> Answer:
    """Do what a confirmed form says.

    Raises:
        ConfigError: the release that was live when the form was shown is not live any more, or there is none before it.
        InvalidInput: the form says neither.
        ReleaseMismatch: the guard forbids it.
    """
    action, was_live = fields.get("action"), fields.get("live", "")
    if action == "rollback":
        with transaction(sight.database) as connection:
            now_live = rollback(connection, from_release=was_live)
    elif action == "promote":
        live = _live(_rows(sight))
        if was_live != (live.release if live else ""):
            raise ConfigError("another release has become live since you were asked; look again")
        try:
            now_live = promote_guarded(sight.database, fields.get("release", ""))
        except ReleaseMismatch as refused:
            raise ConfigError(str(refused)) from None
    else:
        raise InvalidInput("the form says neither promote nor rollback")
    return elsewhere("/releases", done=now_live.release)


def previous_of(rows: Sequence[ReleaseRow]) -> ReleaseRow | None:
    """Return the release that a rollback makes live; None where it would be refused."""
    live = _live(rows)
    if live is None or live.promoted_at is None:
        return None
    earlier = [row for row in rows if row.promoted_at is not None and row.promoted_at < live.promoted_at]
    return max(earlier, key=lambda row: row.promoted_at or live.promoted_at, default=None)  # type: ignore[arg-type,return-value]


def _rows(sight: Sight) -> list[ReleaseRow]:
    with session(sight.database) as connection:
        return list_releases(connection)


def _live(rows: Sequence[ReleaseRow]) -> ReleaseRow | None:
    return next((row for row in rows if row.status == "live"), None)


def _guarded(chosen: ReleaseRow, live: ReleaseRow | None) -> list[Guarded]:
    if live is None:
        return []
    guard = guard_of(chosen.metrics)
    return [
        Guarded(
            name=name,
            ours=figure(chosen.metrics, name),
            theirs=(theirs := figure(live.metrics, name)),
            least=theirs - drop * abs(theirs),
        )
        for name, drop in guard.items()
    ]
