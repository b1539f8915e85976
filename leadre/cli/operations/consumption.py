"""`leadre consumption`: what share of the ads that were shown LEADRE alone retrieved. LEADRE §5.3."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta

import click

from leadre.cli.command import command
from leadre.cli.session import Instant, connection, settings
from leadre.cli.terminal import json_option, print_json, print_table


@command()
@click.option("--from", "since", type=Instant(), required=True, help="Impressions from this instant on count.")
@click.option("--to", "until", type=Instant(), required=True, help="Up to this instant, which does not count.")
@json_option
def consumption(since: datetime, until: datetime, *, as_json: bool) -> None:
    """Say what share of the shown ads was in the users' lists, and not among the popular ads.

    From impressions and the log of lists. The Mixer's own count, of candidates and of all its branches, is the metric
    leadre_consumption_ratio.

    Example: leadre consumption --from 2025-06-01 --to 2025-06-08
    """
    from leadre.store.records.distribution.consumption import read_consumption

    found = settings()
    with connection(found) as connected:
        read = read_consumption(connected, since=since, until=until, list_ttl=timedelta(seconds=found.list_ttl_s))
    figures = {**asdict(read), "leadre_consumption": read.leadre, "popular_consumption": read.popularity}
    if as_json:
        print_json(figures)
        return
    rows = [(name, f"{value:.4f}" if isinstance(value, float) else f"{value:,}") for name, value in figures.items()]
    print_table("Impressions", ("what", "how many"), rows)
