"""`leadre dataset`: training sets for rankers, from lists as of past instants to Parquet. LEADRE §5.3."""

import click

from leadre.cli.dataset.lists import lists
from leadre.cli.dataset.sets import check, export, ranking


@click.group()
def dataset() -> None:
    """Make training sets for rankers: lists of the past, impressions joined to them, checks for leakage."""


for _command in (lists, ranking, check, export):
    dataset.add_command(_command)
