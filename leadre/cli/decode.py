"""`leadre decode`: ads for named users, without storing anything. LEADRE §3.4, §4.4.2."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal, get_args

import click

from leadre.cli.frame.command import OneOf, command
from leadre.cli.session import connection, named, now_option, settings
from leadre.cli.terminal import console, json_option, print_json, print_table, progress_bars
from leadre.settings import EngineKind

if TYPE_CHECKING:
    from leadre.api import Retrieval


@command()
@named("users", metavar="USER...")
@click.option("--beam-width", type=click.IntRange(1, 1024), help="Ads a user. Default: LEADRE_BEAM_WIDTH.")
@click.option("--filter/--all", "filtered", default=True, help="Only ads that run and accept the user, or every ad.")
@click.option("--engine", type=OneOf(get_args(EngineKind)), help="Default: LEADRE_ENGINE.")
@click.option("--precision", type=OneOf(["fp32", "bf16"]), default="fp32", help="Of weights.")
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads of the engine. Default: torch's.")
@now_option
@json_option
def decode(
    users: tuple[int | str, ...],
    *,
    beam_width: int | None,
    filtered: bool,
    engine: EngineKind | None,
    precision: Literal["fp32", "bf16"],
    threads: int | None,
    now: datetime,
    as_json: bool,
) -> None:
    """Decode users with the live release, in this process; nothing is stored.

    Prompts are made of what the feature store holds.

    Example: leadre decode user_5 8 --all
    """
    from leadre.store.release.records import named_release

    found = settings()
    with connection(found) as connected:
        release = named_release(connected).release  # before any bar: where none is live, one line says so
    import torch

    import leadre

    if threads is not None:
        torch.set_num_threads(threads)
    answers: list[Retrieval] = []
    with progress_bars() as progress:
        progress("release", 0, 1)
        with leadre.load(release, settings=found, engine=engine, precision=precision) as live:
            progress("release", 1, 1)
            for start in range(0, len(users), found.refresh_batch):
                progress("users", start, len(users))
                some = users[start : start + found.refresh_batch]
                answers += live.retrieve(some, beam_width=beam_width, filtered=filtered, now=now)
            progress("users", len(users), len(users))
    _print_ads(answers, as_json=as_json)


def _print_ads(answers: Sequence[Retrieval], *, as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {
                    "user": of_user.user,
                    "release": of_user.release,
                    "ads": [
                        {"ad": one.ad.ad, "sid": one.sid, "log_probability": one.log_probability} for one in of_user.ads
                    ],
                }
                for of_user in answers
            ]
        )
        return
    rows = [
        (str(of_user.user), str(one.rank), str(one.ad.ad), one.sid, one.log_probability)
        for of_user in answers
        for one in of_user.ads
    ]
    print_table(f"Decoded, release {answers[0].release}", ("user", "rank", "ad", "S-ID", "log-probability"), rows)
    for of_user in answers:
        if not of_user.ads:
            console.print(f"user {of_user.user!r}: no ad may be shown", markup=False)
