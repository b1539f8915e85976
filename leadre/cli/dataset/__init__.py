"""`leadre dataset`: training sets for rankers, from lists as of past instants to Parquet. LEADRE §5.3."""

from leadre.cli.command import group
from leadre.cli.dataset.lists import lists
from leadre.cli.dataset.sets import check, export, ranking


@group()
def dataset() -> None:
    """Make training sets for rankers: lists of the past, impressions joined to them, checks for leakage.

    Example: leadre dataset ranking --from 2025-05-01 --to 2025-05-31 --out training
    """


for _command in (lists, ranking, check, export):
    dataset.add_command(_command)
