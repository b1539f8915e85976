"""`leadre dataset lists`: lists as of past instants, so that a ranker can be trained on history. LEADRE §5.3."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from leadre.cli.frame.command import OneOf, command
from leadre.cli.session import Instant, connection, settings
from leadre.cli.terminal import ProgressCall, aside, console, json_option, print_json, progress_bars
from leadre.errors import ConfigError, LeadreError
from leadre.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sqlalchemy import Engine

    from leadre.pipelines.dataset.backfill import Chosen
    from leadre.recipe import Recipe

_UNITS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_POLL_S = 0.5


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic to type checkers only
    """A length of time on the command line: a whole number with d, h, m or s behind it."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read the duration."""
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"([1-9][0-9]*)([dhms])", value)
        if not found:
            self.fail(f"{value!r} is no length of time; write one like 1d, 12h, 30m or 90s", param, ctx)
        return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


class Users(click.ParamType):  # type: ignore[type-arg]
    """Whose lists: "shown", "all", or a number."""

    name = "shown|all|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | int:
        """Read the choice."""
        if value in ("shown", "all") or isinstance(value, int):
            return value  # type: ignore[no-any-return]
        if not str(value).isascii() or not str(value).isdigit() or int(value) < 1:
            self.fail(f"{value!r} is not shown, all, or a number of users", param, ctx)
        return int(value)


@command()
@click.option("--from", "since", type=Instant(), required=True, help="The first instant.")
@click.option("--to", "until", type=Instant(), required=True, help="Instants end before this one.")
@click.option("--every", type=Duration(), default="1d", help="From one instant to the next.")
@click.option(
    "--models",
    type=OneOf(["existing", "rolling"]),
    default="existing",
    help="Decode each instant with the newest release that has not seen it, or train releases for the purpose.",
)
@click.option("--release", help="Decode all instants with this release (existing).")
@click.option(
    "--recipe", type=click.Path(path_type=Path), help="What to train (rolling); by default the live release's."
)
@click.option("--retrain-every", type=Duration(), default="7d", help="Between trainings (rolling).")
@click.option("--index", "version", help="Index version (rolling); by default the newest.")
@click.option(
    "--users",
    type=Users(),
    default="shown",
    help="Those shown an ad while a list counts, everybody, or so many of the former, those shown the most.",
)
@click.option(
    "--workers",
    type=click.IntRange(0),
    default=1,
    help="Processes of this machine that decode; 0: leave it to Celery workers of the queue `backfill`, and wait.",
)
@click.option("--batch", type=click.IntRange(1), default=64, help="Users decoded at once.")
@click.option("--dry-run", is_flag=True, help="Say what it would cost, and stop.")
@json_option
def lists(
    *,
    since: datetime,
    until: datetime,
    every: timedelta,
    models: Literal["existing", "rolling"],
    release: str | None,
    recipe: Path | None,
    retrain_every: timedelta,
    version: str | None,
    users: str | int,
    workers: int,
    batch: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make lists as of past instants, and write them into the retrieval log under those instants.

    Each list knows what happened before its instant and nothing else. What is in the log is not made again, so a
    command that was killed goes on when it is called again. The online store is left as it is.

    Example: leadre dataset lists --from 2025-05-01 --to 2025-05-31 --every 1d --models rolling
    """
    from leadre.pipelines.dataset.backfill import PastDecoder, choose_existing, instants_between, plan
    from leadre.store.records.database import connect

    found = settings()
    instants = instants_between(since, until, every=every)
    if instants[-1] > datetime.now(UTC):
        raise ConfigError(f"{instants[-1].isoformat()} has yet to come: lists of the past end before now, set --to")
    user_ids = _user_ids(found, users, since=since, until=instants[-1] + timedelta(seconds=found.list_ttl_s))
    if not len(user_ids):
        raise ConfigError("nobody was shown an ad while these lists count: choose other instants, or --users all")
    database = connect(found.database_url, application_name="leadre dataset")
    try:
        if models == "existing":
            chosen: Chosen = choose_existing(database, instants, release=release)
        else:
            chosen = _rolling(found, instants, recipe=recipe, version=version, every=retrain_every)
        _say_releases(chosen, instants)
        seconds = PastDecoder(found, database=database, batch=batch).seconds_each(chosen, user_ids)
        _say_cost(users=len(user_ids), instants=len(chosen), seconds=seconds, workers=workers)
        plain = {
            "users": len(user_ids),
            "instants": dict(Counter(release.row.release for _, release in chosen)),
            "left_out": sorted({at.isoformat() for at in instants} - {at.isoformat() for at, _ in chosen}),
            "seconds_at_most": len(user_ids) * len(chosen) * seconds / max(1, workers),
        }
        if dry_run:
            if as_json:
                print_json(plain)
            return
        waiting = plan(database, chosen, user_ids=user_ids)
        began = time.monotonic()
        if waiting.lists:
            with progress_bars() as progress:
                _work_off(found, database, total=waiting.lists, workers=workers, batch=batch, progress=progress)
        lists_there, took_s = len(user_ids) * len(chosen), time.monotonic() - began
        if as_json:
            print_json({**plain, "lists": lists_there, "seconds": took_s})
        else:
            console.print(f"[green]✓[/] {lists_there:,} lists in the log, {took_s:.0f} s")
    finally:
        database.dispose()


def _user_ids(found: Settings, users: str | int, *, since: datetime, until: datetime) -> NDArray[np.int64]:
    from leadre.store.past.labels import all_users, shown_users

    with connection(found) as connected:
        if users == "all":
            return all_users(connected)
        return shown_users(connected, since=since, until=until, limit=users if isinstance(users, int) else None)


def _rolling(
    found: Settings, instants: Sequence[datetime], *, recipe: Path | None, version: str | None, every: timedelta
) -> Chosen:
    from leadre.cli.index import chosen_version
    from leadre.pipelines.dataset.rolling import rolling_releases, trainings

    aside.print(f"{trainings(instants, every)} trainings, each on what happened before")
    with progress_bars() as progress:
        return rolling_releases(
            found,
            instants,
            recipe=_recipe(found, recipe),
            index_version=chosen_version(found, version),
            retrain_every=every,
            progress=progress,
        )


def _recipe(found: Settings, path: Path | None) -> Recipe:
    from leadre.recipe import load_recipe
    from leadre.store.release.records import live_release
    from leadre.training.learner.release_folder import load_recipe_of

    if path is not None:
        return load_recipe(path)
    with connection(found) as connected:
        live = live_release(connected)
    if live is None:
        raise ConfigError("no release is live to take the recipe from: name one with --recipe")
    return load_recipe_of(Path(live.uri))


def _say_releases(chosen: Chosen, instants: Sequence[datetime]) -> None:
    covered = {at for at, _ in chosen}
    left_out = [at.isoformat() for at in instants if at not in covered]
    if not chosen:
        raise ConfigError(
            f"every release has seen all of the {len(instants)} instants: train one that has not, or `--models rolling`"
        )
    for name, count in Counter(release.row.release for _, release in chosen).items():
        aside.print(f"  {count:,} instants by [bold]{name}[/]")
    if left_out:
        aside.print(
            f"[yellow]{len(left_out):,} of {len(instants):,} instants are left out[/], {left_out[0]} to {left_out[-1]}:"
            " all releases have seen them; `--models rolling` trains some that have not",
        )


def _say_cost(*, users: int, instants: int, seconds: float, workers: int) -> None:
    whole = timedelta(seconds=round(users * instants * seconds / max(1, workers)))
    aside.print(
        f"{users:,} users x {instants:,} instants x {seconds * 1000:.1f} ms"
        f"{f' / {workers} processes' if workers > 1 else ''}: at most about [bold]{whole}[/]; what is in the log "
        "already is not made again"
    )
    aside.print(
        "[dim]Not known of the past: which ads were paused or out of budget (none counts as such); profiles and bids "
        "are today's.[/]"
    )


def _work_off(
    found: Settings, database: Engine, *, total: int, workers: int, batch: int, progress: ProgressCall
) -> None:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from leadre.pipelines.dataset.backfill import PastDecoder, work_off_here
    from leadre.store.past.shards import waiting
    from leadre.store.records.database import transaction

    if workers == 1:
        done = 0

        def made(count: int) -> None:
            nonlocal done
            done += count
            progress("lists", min(done, total), total)

        PastDecoder(found, database=database, batch=batch).work_off(made=made)
        return
    with ProcessPoolExecutor(max(1, workers), mp_context=get_context("spawn")) as pool:
        running = [pool.submit(work_off_here, found, batch=batch) for _ in range(workers)]
        while True:
            with transaction(database) as connected:
                left = waiting(connected)
            progress("lists", total - left.lists, total)
            if failed := [it.exception() for it in running if it.done() and it.exception() is not None]:
                raise failed[0] or LeadreError("a process that decodes has died")
            if left.failed == left.shards:
                break
            time.sleep(_POLL_S)
    if left.problem is not None:
        raise LeadreError(f"{left.failed:,} shards could not be made: {left.problem}")
