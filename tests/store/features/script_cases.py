"""What the script that writes online rows has to do, case by case, told by its twin in Python."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from leadre.derivation import pack
from leadre.derivation.user_side import derive
from leadre.store.features import layout
from leadre.store.features.online_rows import place_of
from tests.derivation.first_format import first_format

LIST = layout.field(layout.VIEW, layout.FEATURE)
"""The field of the list record."""
Hash = dict[bytes, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A call: `there` is what the keys hold before, `rows` what is written, fields and values in turn.

    `alive` is the keys' time to live before the call, in seconds; None: they do not expire.
    """

    there: list[Hash]
    rows: list[list[bytes]]
    view: str = layout.VIEW
    ttl_s: int = 0
    replace_equal: bool = False
    alive: int | None = None
    said: str = field(default="", compare=False)


def disagreement(client: Any, script: bytes, case: Case) -> str | None:
    """Run a script on a case; return what differs from what it has to do, or None."""
    keys = [b"case %d" % number for number in range(len(case.rows))]
    pipeline = client.pipeline()
    pipeline.delete(*keys)
    for key, there in zip(keys, case.there, strict=True):
        if there:
            pipeline.hset(key, mapping=there)
            if case.alive:
                pipeline.expire(key, case.alive)
    fenced = LIST if case.view == layout.VIEW else b""
    arguments = [
        case.ttl_s,
        int(case.replace_equal),
        fenced,
        len(case.rows[0]),
        *(part for row in case.rows for part in row),
    ]
    pipeline.eval(script, len(keys), *keys, *arguments)
    for key in keys:
        pipeline.hgetall(key)
        pipeline.ttl(key)
    (*_,) = answers = pipeline.execute(raise_on_error=False)
    answers = answers[-1 - 2 * len(keys) :]
    wanted: list[tuple[Hash, int]] = []
    written = older = 0
    for there, row in zip(case.there, case.rows, strict=True):
        new = dict(zip(row[::2], row[1::2], strict=True))
        time_there = there.get(row[0])
        fence_there, place = place_of([row[0], time_there or b"", LIST, there.get(LIST, b"")]), place_of(row)
        ahead = (place[:2] > fence_there[:2]) - (place[:2] < fence_there[:2])
        if not ahead and time_there != row[1]:
            unread = time_there is None or (time_there and layout.read_timestamp_value(time_there) is None)
            ahead = 1 if unread else (place > fence_there) - (place < fence_there)
        sets = ahead > 0 or (not ahead and case.replace_equal)
        written, older = written + sets, older + (ahead < 0 and bool(fenced))
        alive = case.ttl_s or (case.alive if there and case.alive else -1)
        wanted.append(({**there, **new}, alive) if sets else (there, alive if there else -2))
    if answers[0] != [written, older]:
        return f"answered {answers[0]}, not {[written, older]}"
    for number, (hash_wanted, alive_wanted) in enumerate(wanted):
        found, alive = answers[1 + 2 * number : 3 + 2 * number]
        if found != hash_wanted:
            return f"row {number} is {found}, not {hash_wanted}"
        if not alive_wanted - 2 <= alive <= alive_wanted:
            return f"row {number} lives {alive} s, not {alive_wanted}"
    return None


def record(epoch: int, sequence: int, *, release: str = "r", ads: int = 0) -> bytes:
    """Return a sound list record with a fence."""
    return pack(_lists(epoch, sequence, release=release, ads=ads))[0]


def old_record() -> bytes:
    """Return a sound record of the first format."""
    return first_format(_lists(0, 0), 0)


def broken_records() -> Iterator[bytes]:
    """Yield stored values that hold no record, or one whose fence was altered: none of them fences anything."""
    sound = layout.bytes_value(record(2**32 - 1, 2**32 - 1))
    yield from (
        b"",
        b"\x0a",
        b"\x0a\xff",
        b"\x0a" + b"\xff" * 9,
        b"junk",
        sound[:-1],
        sound + b"\0",
        b"\x12" + sound[1:],
    )
    yield from (layout.bytes_value(content) for content in (b"", b"\x02", b"\x03" * 70, b"\x01" * 51, b"\x02" * 63))
    for place in range(2, 12):  # behind tag and length, format and source
        altered = bytearray(sound)
        altered[2 + place] ^= 1
        yield bytes(altered)
    shortened = record(7, 7)[:63]
    yield layout.bytes_value(shortened)
    yield layout.bytes_value(old_record()[:51])


def cases(seed: int = 0) -> Iterator[Case]:
    """Yield several hundred cases."""
    rng = random.Random(seed)
    times = [
        0,
        1,
        -1,
        999_999_999,
        10**9,
        -(10**9),
        10**18,
        10**18 + 1,
        10**18 - 1,
        -(10**18),
        4 * 10**18,
        3 * 10**18 + 7,
    ]
    times += [(1 << 49) * 10**9 - 10**9, 127 * 10**9, 128 * 10**9, 16_384 * 10**9 + 128]
    times += [seconds * 10**9 for seconds in (16_400, 3 << 49, 1 << 56, (1 << 56) + (1 << 50), -(1 << 50), -(3 << 56))]
    times += [seconds * 10**9 for seconds in (2 << 56, (1 << 56) + (127 << 49), -(1 << 63))]
    junk = [b"\x08", b"\x08\xff", b"\x18\x01", b"junk", b"\x08" + b"\xff" * 12, b"\x10\x80"]
    for view in ("view", layout.VIEW):
        name = layout.timestamp_field(view)
        new_record = layout.bytes_value(record(3, 4))
        for old in [*times, None]:
            for new in times:
                content = {LIST: new_record} if view == layout.VIEW else {}
                there = {} if old is None else {name: layout.timestamp_value(old), b"content": b"old", **content}
                row = [name, layout.timestamp_value(new), b"content", b"new"]
                row += [LIST, new_record] if view == layout.VIEW else []
                yield Case(there=[there], rows=[row], view=view, replace_equal=rng.random() < 0.3, said=f"{old} {new}")
        for time in junk:
            for new in (layout.timestamp_value(5), layout.timestamp_value(-(10**18)), time):
                row = [name, new, b"content", b"new"]
                yield Case(there=[{name: time, b"content": b"old"}], rows=[row], view=view)
    name = layout.timestamp_field(layout.VIEW)
    fences = [(0, 0), (0, 1), (1, 0), (1, 5), (2, 4), (255, 256), (256, 255), (65_535, 0), (65_536, 3), (2**24, 1)]
    fences += [(2**32 - 1, 2**32 - 1), (2**32 - 1, 0), (5, 2**31), (5, 2**24), (5, 2**16), (5, 2**8), (5, 2**31 - 1)]
    values = [layout.bytes_value(record(*fence)) for fence in fences] + [layout.bytes_value(old_record())]
    values += [layout.bytes_value(it) for it in (record(4, 4, release=""), first_format(_lists(0, 0, release=""), 0))]
    values += [layout.bytes_value(record(9, 9, release="x" * size, ads=size % 3)) for size in (62, 63, 64, 65, 20_000)]
    everything = [*values, *broken_records()]
    for old_value in everything:
        for new_value in [*rng.sample(everything, 6), values[4], old_value]:
            old, new = rng.choice([(1, 2), (2, 1), (7, 7)])
            there = {name: layout.timestamp_value(old), LIST: old_value}
            yield Case(
                there=[there],
                rows=[[name, layout.timestamp_value(new), LIST, new_value]],
                replace_equal=rng.random() < 0.2,
                ttl_s=rng.choice([0, 50]),
                alive=rng.choice([None, 90]),
            )
    for place in (1, 2**8, 2**16, 2**24):  # neighbours, and what differs in one byte
        for old, new in ((place - 1, place), (0, place), (place, 2 * place), (place, 2**8 * place - 1)):
            for one, other in (((old, 0), (new, 0)), ((7, old), (7, new)), ((old, new), (new, old))):
                for there, value in ((one, other), (other, one)):
                    row = [name, layout.timestamp_value(5), LIST, layout.bytes_value(record(*value))]
                    held = {name: layout.timestamp_value(6), LIST: layout.bytes_value(record(*there))}
                    yield Case(there=[held], rows=[row])
    older, newer = values[3], values[4]
    for there in ({LIST: newer}, {name: b"", LIST: newer}, {name: layout.timestamp_value(9)}, {}):
        for value in (older, newer, values[-1]):
            yield Case(there=[there], rows=[[name, layout.timestamp_value(10**18), LIST, value]])
    for row in ([b"more", b"1", LIST, newer], [LIST, newer, b"more", b"1"], [b"more", newer, b"less", older]):
        there = {name: layout.timestamp_value(9), LIST: values[5]}
        for new_there in (there, {**there, LIST: older}):
            yield Case(there=[new_there], rows=[[name, layout.timestamp_value(7), *row]])
    first, least = layout.bytes_value(old_record()), values[0]  # of the first format is as old as without a promotion
    for old_value, new_value in ((first, least), (least, first), (first, first)):
        for old, new in ((5, 4), (5, 5), (5, 6)):
            there = {name: layout.timestamp_value(old), LIST: old_value, b"content": b"old"}
            row = [name, layout.timestamp_value(new), LIST, new_value, b"content", b"new"]
            yield Case(there=[there], rows=[row])
    for row in ([LIST, newer], [b"more", newer]):  # the second has no record, whatever stands before and behind it
        rows = [[name, layout.timestamp_value(7), *part] for part in ([LIST, newer], row, [LIST, values[5]])]
        yield Case(there=[{name: layout.timestamp_value(5), LIST: older}] * 3, rows=rows)
    for size in (2, 3, 32):  # several rows to a call
        there = [
            {name: layout.timestamp_value(5), LIST: rng.choice(values)} if rng.random() < 0.8 else {}
            for _ in range(size)
        ]
        rows = [[name, layout.timestamp_value(rng.randrange(9)), LIST, rng.choice(values)] for _ in range(size)]
        yield Case(there=there, rows=rows, ttl_s=70)
        yield Case(there=there, rows=rows, replace_equal=True, alive=80)


def _lists(epoch: int, sequence: int, *, release: str = "r", ads: int = 0) -> Any:
    zeros = np.zeros(ads, np.int64)
    return derive(
        counts=[ads],
        ad_ids=zeros,
        log_probabilities=zeros,
        codes=np.zeros((ads, 2), np.int64),
        first_categories=zeros,
        second_categories=zeros,
        category_names=("x",),
        advertiser_ids=zeros,
        embeddings=np.zeros((ads, 0)),
        ecpms=zeros,
        generated_at_s=1.0,
        behavior_at_s=np.nan,
        release=release,
        index_version="",
        release_epochs=epoch,
        behavior_sequences=sequence,
    )
