"""`leadre keys`: API keys of the servers. docs/operations.md, "Keys"."""

from __future__ import annotations

import click

from leadre.cli.command import group


@group()
def keys() -> None:
    """Make API keys. The servers read whose they are from the file LEADRE_API_KEYS_FILE.

    Example: leadre keys new shop --rate 500 >> keys.txt
    """


@keys.command()
@click.argument("name")
@click.option("--rate", type=float, metavar="N", help="Requests a second, of each server process; default: no limit.")
def new(name: str, *, rate: float | None) -> None:
    """Make a key for NAME: it is shown this once, on standard error; its line for the file goes to standard output.

    Example: leadre keys new shop --rate 500 >> keys.txt
    """
    from leadre.serving.keys import new_key

    key, line = new_key(name, requests_per_s=rate)
    click.echo(f"The key, which is shown this once: {key}", err=True)
    click.echo(line)
