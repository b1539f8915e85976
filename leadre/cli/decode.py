"""`leadre decode`: ads for named users without storing anything, and how fast that goes. LEADRE §3.4, §4.4.2."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Literal, get_args

import click

from leadre.cli.console import console, print_json, print_table
from leadre.cli.session import now_option, settings
from leadre.settings import EngineKind

if TYPE_CHECKING:
    from leadre.pipelines.bench_decoding import Measured
    from leadre.pipelines.decode import Prepared

_WAYS = {"one_by_one": "one by one", "batcher": "batcher", "one_batch": "one big batch"}


@click.command()
@click.argument("user_ids", metavar="[USER]...", type=int, nargs=-1)
@click.option("--beam-width", type=click.IntRange(1, 1024), help="Ads a user. Default: LEADRE_BEAM_WIDTH.")
@click.option("--filter/--all", "filtered", default=True, help="Only ads that run and accept the user, or every ad.")
@click.option("--engine", type=click.Choice(get_args(EngineKind)), help="Default: LEADRE_ENGINE.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True, help="Of weights.")
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads of the engine. Default: torch's.")
@click.option("--bench", is_flag=True, help="Measure decoding under load instead of printing ads.")
@click.option("--users", type=click.IntRange(1), default=256, show_default=True, help="--bench: different prompts.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="--bench: requests a second, at random instants.")
@click.option(
    "--closed", type=click.IntRange(1, 1024), help="--bench: clients that ask one after another.  [default: 32]"
)
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, help="--bench: each."
)
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
    bench: bool,
    users: int,
    rate: float | None,
    closed: int | None,
    seconds: float,
    now: datetime,
    as_json: bool,
) -> None:
    """Decode users with the live release, in this process; nothing is stored.

    Prompts are made of what the feature store holds. With --bench, prompts of named users or of those with the newest
    behaviors go through the micro-batcher at --rate or from --closed clients, beside decoding them one by one and all
    at once.

    Example: leadre decode 7 8 9 --all

    Example: leadre decode --bench --rate 50 --threads 1
    """
    if not bench and not user_ids:
        raise click.UsageError("name users, or add --bench")
    if rate is not None and closed is not None:
        raise click.UsageError("--rate and --closed exclude each other: requests come at random, or from clients")
    import torch

    from leadre.pipelines.decode import prepare

    found = settings()
    if threads is not None:
        torch.set_num_threads(threads)
    kind, width = engine or found.engine, beam_width or found.beam_width
    named = list(dict.fromkeys(user_ids)) or users
    prepared = prepare(found, named, now=now, kind=kind, precision=precision, filtered=filtered)
    if not bench:
        _print_ads(prepared, beam_width=width, as_json=as_json)
        return
    from leadre.pipelines.bench_decoding import Load, measure

    load = Load(clients=closed or Load().clients, per_s=rate, seconds=seconds)
    ways = measure(prepared, beam_width=width, load=load)
    lengths = sorted(len(prompt) for prompt in prepared.prompts)
    facts = {
        "release": prepared.release,
        "engine": kind,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "beam_width": width,
        "filtered": filtered,
        "prompts": len(lengths),
        "prompt_tokens": {"least": lengths[0], "mean": sum(lengths) / len(lengths), "most": lengths[-1]},
        "load": {"rate_per_s": rate} if rate is not None else {"clients": load.clients},
        "seconds": seconds,
    }
    if as_json:
        print_json({**facts, "ways": {name: asdict(way) for name, way in ways.items()}})
    else:
        _print_ways(ways, f"{rate:g} requests/s" if rate is not None else f"{load.clients} clients")
        console.print(
            f"[dim]{len(lengths)} prompts of {lengths[0]} to {lengths[-1]} tokens, {width} beams, release "
            f"{prepared.release}, engine {kind}, {precision}, {torch.get_num_threads()} threads[/]"
        )


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


def _print_ways(ways: dict[str, Measured], load: str) -> None:
    rows = [
        (
            _WAYS[name],
            f"{way.users_per_s:.1f}",
            f"{way.cpu_ms_per_user:.2f}",
            f"{way.p50_ms:.1f}",
            f"{way.p95_ms:.1f}",
            f"{way.p99_ms:.1f}",
            f"{way.mean_batch:.1f}",
            f"{way.padding:.1%}",
            way.refused,
        )
        for name, way in ways.items()
    ]
    columns = ("way", "users/s", "CPU ms/user", "p50 ms", "p95 ms", "p99 ms", "mean batch", "padding", "refused")
    print_table(f"Decoding, {load}", columns, rows)
