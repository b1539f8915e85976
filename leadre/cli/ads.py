"""`leadre ads`: what the catalog says of ads' states, and changing it while workers serve. LEADRE §3.3."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leadre.cli.frame.command import group
from leadre.cli.session import Instant, connection, named, now_option, settings
from leadre.cli.terminal import console, json_option, print_json, print_table
from leadre.domain.identity import ids_of, outward

if TYPE_CHECKING:
    from leadre.domain.ads import Ad


@group()
def ads() -> None:
    """Pause and resume ads, say when they run and whether their budget lasts.

    Workers obey within ten seconds; nothing is rebuilt.

    Example: leadre ads pause SKU-1 90
    """


_named_ads = named("ad_names", metavar="AD...")


@ads.command()
@_named_ads
@now_option
@json_option
def show(ad_names: Sequence[int | str], *, now: datetime, as_json: bool) -> None:
    """Print whether ads run, from when to when, and whom they target.

    Example: leadre ads show SKU-1 90
    """
    from leadre.store.records.catalog import read_ads, refuse_unknown

    with connection(settings()) as connected:
        refuse_unknown(connected, ad_names)
        found = {ad.ad_id: ad for ad in read_ads(connected, ad_ids=ids_of(ad_names))}
    shown = [_facts(found[ad_id], now) for ad_id in ids_of(ad_names)]
    if as_json:
        print_json(shown)
        return
    columns = ("ad_id", "name", "state", "bid", "starts_at", "ends_at", "targeting")
    headings = ("ad", "name", "state", "bid", "starts", "ends", "targeting")
    for fact in shown:
        fact["ad_id"] = str(fact["ad_id"])  # not a number to be grouped by thousands
        fact["bid"] = f"{fact['bid']:g}{' (simulated)' * fact['bid_simulated']}"
        fact["targeting"] = json.dumps(fact["targeting"], ensure_ascii=False)
    rows = [[fact[column] or "" for column in columns] for fact in shown]
    print_table("Ads", headings, rows)


@ads.command()
@_named_ads
@json_option
def pause(ad_names: Sequence[int | str], *, as_json: bool) -> None:
    """Stop ads until they are resumed.

    Example: leadre ads pause SKU-1 90
    """
    from leadre.store.records.catalog import set_live

    with connection(settings()) as connected:
        _say("paused", set_live(connected, ad_names, live=False), ad_names, as_json=as_json)


@ads.command()
@_named_ads
@json_option
def resume(ad_names: Sequence[int | str], *, as_json: bool) -> None:
    """Let paused ads run again.

    Example: leadre ads resume SKU-1
    """
    from leadre.store.records.catalog import set_live

    with connection(settings()) as connected:
        _say("resumed", set_live(connected, ad_names, live=True), ad_names, as_json=as_json)


@ads.command()
@_named_ads
@json_option
def exhaust(ad_names: Sequence[int | str], *, as_json: bool) -> None:
    """Say that ads have run out of budget.

    Example: leadre ads exhaust SKU-1
    """
    from leadre.store.records.catalog import set_budget_exhausted

    with connection(settings()) as connected:
        _say("out of budget", set_budget_exhausted(connected, ad_names, exhausted=True), ad_names, as_json=as_json)


@ads.command()
@_named_ads
@json_option
def refill(ad_names: Sequence[int | str], *, as_json: bool) -> None:
    """Say that ads have budget again.

    Example: leadre ads refill SKU-1
    """
    from leadre.store.records.catalog import set_budget_exhausted

    with connection(settings()) as connected:
        _say("refilled", set_budget_exhausted(connected, ad_names, exhausted=False), ad_names, as_json=as_json)


@ads.command()
@_named_ads
@click.option("--from", "starts_at", type=Instant(), help="From when; no bound without it.")
@click.option("--until", "ends_at", type=Instant(), help="From when not any more; no bound without it.")
@json_option
def schedule(
    ad_names: Sequence[int | str], *, starts_at: datetime | None, ends_at: datetime | None, as_json: bool
) -> None:
    """Let ads run between two instants, instead of when they ran so far; without either, always.

    Example: leadre ads schedule SKU-1 --from 2026-06-01 --until 2026-07-01T12:00:00+02:00
    """
    from leadre.store.records.catalog import set_schedule

    with connection(settings()) as connected:
        _say(
            "scheduled",
            set_schedule(connected, ad_names, starts_at=starts_at, ends_at=ends_at),
            ad_names,
            as_json=as_json,
        )


@ads.command()
@click.option("--prices", "path", required=True, type=click.Path(path_type=Path), help="A file of market prices.")
@click.option("--seed", default=0, help="Another one draws other bids.")
@json_option
def price(path: Path, *, seed: int, as_json: bool) -> None:
    """Draw a simulated bid for every ad without a real one, from the prices of a real market.

    The file: lines of click, price per 1,000 impressions and predicted click rate, or a histogram of prices as JSON
    (docs/data_format.md). What is measured with such bids says that it is simulated.

    Example: leadre ads price --prices market_prices.txt --seed 1
    """
    from leadre.store.importers.bids import simulate_bids
    from leadre.store.importers.prices import read_market_prices

    prices = read_market_prices(path)
    with connection(settings()) as connected:
        priced = simulate_bids(connected, prices, seed=seed)
    if as_json:
        print_json({"simulated": priced.simulated, "changed": priced.changed, "real": priced.real})
        return
    real = f"; {priced.real} have real ones and keep them" if priced.real else ""
    console.print(f"[green]✓[/] simulated bids: {priced.simulated} ads, {priced.changed} of them changed{real}")


def _facts(ad: Ad, now: datetime) -> dict[str, Any]:
    """Return what is shown of an ad; the state is the first reason why it does not run."""
    state = "running"
    if not ad.live:
        state = "paused"
    elif ad.budget_exhausted:
        state = "out of budget"
    elif ad.ends_at is not None and ad.ends_at <= now:
        state = "ended"
    elif ad.starts_at is not None and ad.starts_at > now:
        state = "not started"
    return {
        "ad_id": outward(ad.source_id),
        "name": ad.name,
        "state": state,
        "bid": ad.bid,
        "bid_simulated": ad.bid_simulated,
        "starts_at": ad.starts_at and ad.starts_at.isoformat(),
        "ends_at": ad.ends_at and ad.ends_at.isoformat(),
        "targeting": ad.targeting.plain(),
    }


def _say(what: str, changed: int, ad_names: Sequence[int | str], *, as_json: bool) -> None:
    others = len(ad_names) - changed
    if as_json:
        print_json({"state": what, "changed": changed, "were_so_already": others})
        return
    console.print(f"[green]✓[/] {what}: {changed} ads{f'; {others} were so already' if others else ''}")
