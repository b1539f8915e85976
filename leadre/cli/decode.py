"""`leadre decode`: ads for named users, without storing anything. LEADRE §3.4, §4.4.2."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal, get_args

import click

from leadre.cli.console import console, print_json, print_table
from leadre.cli.session import now_option, settings
from leadre.settings import EngineKind

if TYPE_CHECKING:
    from leadre.pipelines.decode import Prepared


@click.command()
@click.argument("user_ids", metavar="[USER]...", type=int, nargs=-1, required=True)
@click.option("--beam-width", type=click.IntRange(1, 1024), help="Ads a user. Default: LEADRE_BEAM_WIDTH.")
@click.option("--filter/--all", "filtered", default=True, help="Only ads that run and accept the user, or every ad.")
@click.option("--engine", type=click.Choice(get_args(EngineKind)), help="Default: LEADRE_ENGINE.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True, help="Of weights.")
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads of the engine. Default: torch's.")
@now_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def decode(
    user_ids: tuple[int, ...],
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

    Example: leadre decode 7 8 9 --all
    """
    import torch

    from leadre.pipelines.decode import prepare

    found = settings()
    if threads is not None:
        torch.set_num_threads(threads)
    kind, width = engine or found.engine, beam_width or found.beam_width
    named = list(dict.fromkeys(user_ids))
    prepared = prepare(found, named, now=now, kind=kind, precision=precision, filtered=filtered)
    _print_ads(prepared, beam_width=width, as_json=as_json)


def _print_ads(prepared: Prepared, *, beam_width: int, as_json: bool) -> None:
    answers = prepared.decode(beam_width=beam_width)
    lists = [
        {
            "user": user,
            "release": prepared.release,
            "ads": [
                {"ad": beam.ad_id, "sid": str(beam.sid), "log_probability": beam.log_probability} for beam in beams
            ],
        }
        for user, beams in zip(prepared.users, answers, strict=True)
    ]
    if as_json:
        print_json(lists)
        return
    rows = [
        (str(user), str(rank), str(beam.ad_id), str(beam.sid), beam.log_probability)
        for user, beams in zip(prepared.users, answers, strict=True)
        for rank, beam in enumerate(beams, start=1)
    ]
    print_table(f"Decoded, release {prepared.release}", ("user", "rank", "ad", "S-ID", "log-probability"), rows)
    for user, beams in zip(prepared.users, answers, strict=True):
        if not beams:
            console.print(f"user {user}: no ad may be shown")
