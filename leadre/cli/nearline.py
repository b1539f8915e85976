"""`leadre refresh`, `trace`, `ingest`, `rehydrate`: users and their behaviors, by hand. LEADRE §4.4.1."""

from __future__ import annotations

import signal
import threading
from datetime import datetime
from pathlib import Path

import click

from leadre.cli.frame.command import command
from leadre.cli.session import SourceId, connection, features, named, now_option, settings
from leadre.cli.terminal import console, json_option, print_json, print_table, progress_bars
from leadre.domain.identity import ids_of


@command()
@named("users", metavar="USER...")
@now_option
@json_option
def refresh(users: tuple[int | str, ...], *, now: datetime, as_json: bool) -> None:
    """Retrieve ads for users now, in this process, and write their lists and features.

    Workers do the same for everyone in the refresh queue.

    Example: leadre refresh user_5 8
    """
    from leadre.pipelines.refresh import refresh_users
    from leadre.store.records.source_ids import ad_source_ids

    found = settings()
    with progress_bars() as progress:
        lists = refresh_users(found, ids_of(users), now=now, progress=progress)
    with connection(found) as connected:
        names = ad_source_ids(connected, {beam.ad_id for made in lists for beam in made.beams})
    ads = [[names.get(beam.ad_id, beam.ad_id) for beam in made.beams] for made in lists]
    if as_json:
        print_json(
            [
                {"user": user, "release": made.release, "ads": of_user}
                for user, made, of_user in zip(users, lists, ads, strict=True)
            ]
        )
        return
    rows = [(str(user), len(some), ", ".join(map(str, some[:8]))) for user, some in zip(users, ads, strict=True)]
    print_table(f"Retrieval lists, release {lists[0].release}", ("user", "ads", "first"), rows)


@command()
@click.argument("user", metavar="[USER]", type=SourceId(), required=False)
@named("ads", metavar="[AD]...", required=False)
@click.option(
    "--markdown", type=click.Path(path_type=Path, dir_okay=False), help="Write the walk to this file instead."
)
@now_option
@json_option
def trace(
    user: int | str | None, ads: tuple[int | str, ...], *, markdown: Path | None, now: datetime, as_json: bool
) -> None:
    """Follow one user through every step: events, context, prompt, beams, list, features for the given ads.

    Without arguments: the user with the newest behavior, and some of the ads retrieved. It prints personal data.

    Examples:
    leadre trace
    leadre trace user_5 SKU-1 90
    """
    from leadre.report.trace import as_markdown, trace_user

    with progress_bars() as progress:
        walk = trace_user(settings(), user, ads=ads, now=now, progress=progress)
    if as_json:
        retrieved = [
            {"ad": walk.ad_name(beam.ad_id), "sid": str(beam.sid), "log_probability": beam.log_probability}
            for beam in walk.retrieved.beams
        ]
        asked = {"ads": [walk.ad_name(ad) for ad in walk.target_ads], "features": walk.features}
        made = {"release": walk.retrieved.release, "prompt_tokens": walk.prompt_tokens, "retrieved": retrieved}
        print_json({"user": walk.user, "now": walk.now.isoformat(), **made, **asked})
        return
    text = as_markdown(walk)
    if markdown:
        markdown.write_text(text)
        console.print(f"[green]✓[/] wrote {markdown}")
    elif console.is_terminal:
        from rich.markdown import Markdown

        console.print(Markdown(text))
    else:
        click.echo(text)


@command()
@click.option("--follow", is_flag=True, help="Go on until it is stopped (SIGTERM, Ctrl-C).")
@click.option("--revive", is_flag=True, help="First put back the entries that could not be written.")
@json_option
def ingest(*, follow: bool, revive: bool, as_json: bool) -> None:
    """Write reported behaviors from the Redis stream to PostgreSQL, and mark their users for a refresh.

    Workers that serve the queue `ingest` do the same, and any number may work at once.

    Examples:
    leadre ingest
    leadre ingest --follow
    """
    from redis import Redis

    from leadre import logs
    from leadre.pipelines.ingest import revive as put_back
    from leadre.pipelines.persister import persister_of
    from leadre.retrieval.refresh_queue_keys import reachable
    from leadre.serving.behavior_stream import length

    found = settings()
    redis = Redis.from_url(found.redis_url, socket_timeout=5)
    persister = persister_of(found)
    with reachable():
        revived = put_back(redis) if revive else 0
    if revive and not as_json:
        console.print(f"{revived:,} dead entries are back in the stream")
    if follow:
        logs.configure()
        stopping = threading.Event()
        for sign in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sign, lambda *_: stopping.set())
        persister.run(stopping)
        return
    with reachable():
        done = persister.drain()
        waiting = length(redis)
    if as_json:
        counts = {"new": done.new, "repeated": done.repeated, "dead": len(done.dead)}
        print_json({"revived": revived, **counts, "waiting": waiting})
        return
    console.print(
        f"[green]✓[/] {done.new:,} behaviors written, {done.repeated:,} were there; {len(done.dead):,} entries could "
        f"not be written, {waiting:,} wait"
    )


@command()
@now_option
@json_option
def rehydrate(now: datetime, *, as_json: bool) -> None:
    """Bring all lists, features and waiting users back to Redis, whatever is there.

    Workers do so by themselves within seconds where Redis was wiped. This is for a Redis that was restored from an old
    copy. Nothing newer that is there is set back; a killed run goes on where it was.

    Example: leadre rehydrate
    """
    from leadre.pipelines.materialize import materialize
    from leadre.pipelines.rehydrate import Rehydrator
    from leadre.retrieval.refresh_queue import RefreshQueue
    from leadre.store.records.database import connect

    found = settings()
    opened, database = features(found), connect(found.database_url, application_name="leadre rehydrate")
    rehydrator = Rehydrator(
        database=database,
        features=opened,
        queue=RefreshQueue.connect(found.redis_url),
        list_ttl_s=found.list_ttl_s,
    )
    try:
        with progress_bars() as progress:
            rehydrator.distrust()
            done = rehydrator.rehydrate(now=now, report=lambda lists: progress("lists", lists))
            materialize(opened, now=now, full=True, progress=progress)
    finally:
        rehydrator.close()
        opened.close()
        database.dispose()
    if as_json:
        print_json(None if done is None else {"lists": done.lists, "marked": done.marked, "seconds": done.seconds})
        return
    if done is None:
        console.print("[yellow]![/] a worker has begun to bring the lists back, and goes on")
        return
    print_table("Rehydrated", ("lists", "users marked", "seconds"), [(done.lists, done.marked, done.seconds)])
