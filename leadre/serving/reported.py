"""The contract of reported behaviors: the body of a request in, checked behaviors out. LEADRE §4.2.1 (4, 5)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from leadre.domain.behavior import EARLIEST, LATEST_AHEAD, Action, Behavior, Domain
from leadre.domain.identity import MAX_ID, id_of
from leadre.errors import InvalidInput
from leadre.serving.http.limits import shortened

MAX_BEHAVIORS = 100
_ACTIONS = {
    Domain.AD: (Action.IMPRESSION, Action.CLICK, Action.CONVERSION),
    Domain.CONTENT: (Action.WATCH, Action.SEARCH, Action.SKIP),
}
_REMEDIES = {
    "behaviors": f'send {{"behaviors": [...]}} with 1 to {MAX_BEHAVIORS} of them',
    "domain": "write ad or content",
    "action": "write impression, click or conversion of an ad; watch, search or skip of content",
    "item_id": "write the ad's or content item's id, a whole number or a text",
    "occurred_at": "write RFC 3339 with its offset, such as 2025-03-01T12:00:00Z",
    "ordinal": f"write a whole number from 0 to {MAX_ID}, or leave it out",
}
_ITS_FIELDS = "a behavior has domain, action, item_id, occurred_at and, if need be, ordinal"
_REFUSED = re.compile(r"(?P<problem>.*?)(?: - at `\$(?P<path>[^`]*)`)?", re.DOTALL)
_STEP = re.compile(r"\.(?P<name>\w+)|\[(?P<place>\d{1,9})\]")


class NewBehavior(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A behavior as a request writes it; `occurred_at` is RFC 3339 with its time zone."""

    domain: Domain
    action: Action
    item_id: int | str
    occurred_at: Annotated[datetime, Meta(tz=True)]
    ordinal: Annotated[int, Meta(ge=0, le=MAX_ID)] = 0


class NewBehaviors(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a request that reports behaviors."""

    behaviors: Annotated[list[NewBehavior], Meta(min_length=1, max_length=MAX_BEHAVIORS)]


_DECODER = msgspec.json.Decoder(NewBehaviors)
T = TypeVar("T")


def behaviors_in(body: bytes, *, user_id: int, now: datetime) -> list[Behavior]:
    """Return the behaviors that a request's body reports of a user; their times are in UTC.

    Raises:
        InvalidInput: not the JSON that `NewBehaviors` describes, a name twice in one object, an item's id that is
            none, or a time before `EARLIEST` or more than `LATEST_AHEAD` after `now`. Names row, field and remedy.
    """
    try:
        new = decoded(_DECODER, body, strings=_strings, remedy=_REMEDIES["behaviors"])
    except msgspec.ValidationError as error:
        raise _explained(str(error), body) from None
    latest = now + LATEST_AHEAD
    return [_behavior(each, row=row, user_id=user_id, latest=latest) for row, each in enumerate(new.behaviors, 1)]


def decoded(decoder: msgspec.json.Decoder[T], body: bytes, *, strings: Callable[[T], int], remedy: str) -> T:
    """Return the contract that a body holds.

    A field that is named twice is found by counting quotes: what is decoded tells how many strings its JSON has, and a
    repeated name is one more. Where the count does not say (a quote may be escaped, a default may be written out), the
    body is read again, with care.

    Args:
        decoder: of the contract.
        body: of a request.
        strings: says how many strings the contract's JSON has, names included, without those of defaults.
        remedy: what to send instead, for the error.

    Raises:
        InvalidInput: it is not JSON, or an object names a field twice.
        msgspec.ValidationError: it is JSON, but not of this contract.
    """
    try:
        found = decoder.decode(body)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise InvalidInput(f"the body is not JSON: {problem}; {remedy}") from None
    if b"\\" in body or body.count(b'"') != 2 * strings(found):
        json.loads(body, object_pairs_hook=_refuse_repeated, parse_int=len)
    return found


def _strings(new: NewBehaviors) -> int:
    # "behaviors"; of each, four names, domain, action and time.
    return 1 + sum(7 + (type(each.item_id) is str) + (each.ordinal != 0) for each in new.behaviors)


def _behavior(new: NewBehavior, *, row: int, user_id: int, latest: datetime) -> Behavior:
    if new.action not in (actions := _ACTIONS[new.domain]):
        raise InvalidInput(
            f"'{new.action}' is not an action of the {new.domain} domain; it has {', '.join(actions)}",
            row=row,
            column="action",
        )
    try:
        item_id = id_of(new.item_id)
    except InvalidInput as error:
        raise InvalidInput(error.problem, row=row, column="item_id") from None
    return Behavior(
        user_id=user_id,
        domain=new.domain,
        action=new.action,
        item_id=item_id,
        occurred_at=_in_utc(new.occurred_at, row=row, latest=latest),
        ordinal=new.ordinal,
    )


def _in_utc(occurred_at: datetime, *, row: int, latest: datetime) -> datetime:
    # PostgreSQL takes no offset of 16 hours or more, RFC 3339 does.
    try:
        at: datetime | None = occurred_at if occurred_at.tzinfo is UTC else occurred_at.astimezone(UTC)
    except OverflowError:  # 0001-01-01T00:00:00+01:00 has no UTC that could be written
        at = None
    if at is None or not EARLIEST <= at <= latest:
        early = occurred_at.year < latest.year if at is None else at < EARLIEST
        bound = f"before {EARLIEST.isoformat()}" if early else f"after {latest.isoformat()}, a day from now"
        raise InvalidInput(
            f"{occurred_at.isoformat()} lies {bound}; is the clock right, and the unit?", row=row, column="occurred_at"
        )
    return at


def _refuse_repeated(pairs: Sequence[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(f"an object names {shortened(twice)} twice; write every field once")


def _explained(said: str, body: bytes) -> InvalidInput:
    """Return a decoder's refusal with row, field, value and remedy."""
    refused = _REFUSED.fullmatch(said)
    assert refused is not None  # noqa: S101 - every text matches
    steps = [step["name"] or int(step["place"]) for step in _STEP.finditer(refused["path"] or "")]
    row = next((step + 1 for step in steps if isinstance(step, int)), None)
    field = steps[-1] if steps and isinstance(steps[-1], str) else None
    if field in _REMEDIES:
        value, remedy = _at(steps, body), _REMEDIES[str(field)]
    else:  # the body or a behavior as a whole
        value, field, remedy = None, None, _REMEDIES["behaviors"] if row is None else _ITS_FIELDS
    written = f": {shortened(value)}" if isinstance(value, str | int | float) else ""
    return InvalidInput(f"{refused['problem'][:120]}{written}; {remedy}", row=row, column=field)


def _at(steps: Sequence[str | int], body: bytes) -> Any:
    """Return the value at a place in the body; None when it cannot be found."""
    try:
        value: Any = msgspec.json.decode(body)
        for step in steps:
            value = value[step]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError, TypeError):
        return None  # what comes after the refused value is no JSON, or an object has two values of the name
    return value
