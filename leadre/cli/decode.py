"""`leadre decode`: ads for named users, without storing anything. LEADRE §3.4, §4.4.2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal, get_args

import click

from leadre.cli.command import command
from leadre.cli.session import connection, named, now_option, settings
from leadre.cli.terminal import console, json_option, print_json, print_table
from leadre.settings import EngineKind

if TYPE_CHECKING:
    from leadre.domain.retrieval import Beam
    from leadre.pipelines.decode import Prepared


@command()
@named("users", metavar="USER...")
@click.option("--beam-width", type=click.IntRange(1, 1024), help="Ads a user. Default: LEADRE_BEAM_WIDTH.")
@click.option("--filter/--all", "filtered", default=True, help="Only ads that run and accept the user, or every ad.")
@click.option("--engine", type=click.Choice(get_args(EngineKind)), help="Default: LEADRE_ENGINE.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True, help="Of weights.")
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
    import torch

    from leadre.pipelines.decode import prepare
    from leadre.store.records.source_ids import ad_source_ids

    found = settings()
    if threads is not None:
        torch.set_num_threads(threads)
    kind, width = engine or found.engine, beam_width or found.beam_width
    prepared = prepare(found, users, now=now, kind=kind, precision=precision, filtered=filtered)
    answers = prepared.decode(beam_width=width)
    with connection(found) as connected:
        names = ad_source_ids(connected, {beam.ad_id for beams in answers for beam in beams})
    _print_ads(prepared, answers, names, as_json=as_json)


def _print_ads(
    prepared: Prepared, answers: Sequence[Sequence[Beam]], names: Mapping[int, int | str], *, as_json: bool
) -> None:
    lists = [
        {
            "user": user,
            "release": prepared.release,
            "ads": [
                {"ad": names.get(beam.ad_id, beam.ad_id), "sid": str(beam.sid), "log_probability": beam.log_probability}
                for beam in beams
            ],
        }
        for user, beams in zip(prepared.users, answers, strict=True)
    ]
    if as_json:
        print_json(lists)
        return
    rows = [
        (str(user), str(rank), str(names.get(beam.ad_id, beam.ad_id)), str(beam.sid), beam.log_probability)
        for user, beams in zip(prepared.users, answers, strict=True)
        for rank, beam in enumerate(beams, start=1)
    ]
    print_table(f"Decoded, release {prepared.release}", ("user", "rank", "ad", "S-ID", "log-probability"), rows)
    for user, beams in zip(prepared.users, answers, strict=True):
        if not beams:
            console.print(f"user {user!r}: no ad may be shown", markup=False)
