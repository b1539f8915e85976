"""`leadre ids`: the owner's ids and the 64-bit numbers that Feast has for them. docs/adr/0001."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice

import click

from leadre.cli.command import group
from leadre.cli.session import connection, settings
from leadre.cli.terminal import print_json

_AT_ONCE = 10_000

_given = click.argument("given", metavar="ID...", nargs=-1, required=True)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON: an object a line.")


@group()
def ids() -> None:
    """Translate between your ids and the 64-bit ids of Feast's entities and of the tables: for joins on your side.

    A whole number is its own id. What prints a table prints tabs between its columns.

    Example: leadre ids encode SKU-1 user_5
    """


@ids.command()
@_given
@_json_option
def encode(given: tuple[str, ...], *, as_json: bool) -> None:
    """Print the 64-bit id of each of your ids, numbers or texts; `-` reads them from standard input, one a line.

    It asks nobody: the text alone decides, on every machine and in every version.

    Example: leadre ids encode SKU-1 user_5
    """
    from leadre.domain.identity import id_of, outward

    show = _printer(("source_id", "id"), as_json=as_json)
    for name in _each(given):
        show((outward(name), id_of(name)))


@ids.command()
@_given
@_json_option
def decode(given: tuple[str, ...], *, as_json: bool) -> None:
    """Print whose 64-bit ids these are: table (ads, users or content_items) and your id; `-` reads standard input.

    It asks the catalog. An id that nobody has there is printed without a table; advertisers' ids are not kept.

    Example: leadre ids decode 5566019728518143210
    """
    from leadre.store.records.source_ids import holders

    show, nobody = _printer(("id", "table", "source_id"), as_json=as_json), (None, None)
    with connection(settings()) as connected:
        asked = map(_id, _each(given))
        while some := list(islice(asked, _AT_ONCE)):
            held = holders(connected, set(some))
            for it in some:
                found: list[tuple[object, ...]] = [
                    (it, table, names[it]) for table, names in held.items() if it in names
                ]
                for row in found or [(it, *nobody)]:
                    show(row)


def _each(given: Iterable[str]) -> Iterator[str]:
    """Yield the arguments, and in place of `-` the lines of standard input."""
    return chain.from_iterable((line.rstrip("\r\n") for line in sys.stdin) if it == "-" else [it] for it in given)


def _id(text: str) -> int:
    from leadre.domain.identity import MAX_ID
    from leadre.errors import InvalidInput

    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= MAX_ID):
        raise InvalidInput(f"{text[:60]!r} is no 64-bit id, a whole number from 0 to {MAX_ID}; `ids encode` makes one")
    return int(text)


def _printer(columns: Sequence[str], *, as_json: bool) -> Callable[[Sequence[object]], None]:
    if as_json:
        return lambda row: print_json(dict(zip(columns, row, strict=True)))
    click.echo("\t".join(columns))
    return lambda row: click.echo("\t".join("" if cell is None else str(cell) for cell in row))
