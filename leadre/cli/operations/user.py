"""`leadre user forget`: remove a person's data, and prove it. docs/operations.md, "Forgetting a person"."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from leadre.cli.frame.command import group
from leadre.cli.session import features, settings
from leadre.cli.terminal import console, json_option, print_json, print_table, progress_bars

NOT_REACHED = (
    "backups and write-ahead logs of PostgreSQL and Redis",
    "Parquet files of the retention export and of training sets (`leadre dataset`)",
    "models that were trained on the person's behaviors, until the next training",
    "log files, which hold ids at most",
)
"""What the command cannot reach, in words."""


@group()
def user() -> None:
    """Look after a person's data.

    Example: leadre user forget user_5
    """


@user.command()
@click.argument("user_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def forget(user_id: str, *, yes: bool, as_json: bool) -> None:
    """Remove everything that is stored about a person, by your own ID; it cannot be undone.

    At the end all tables and all keys of Redis are searched for the person, and how often it was found is printed: 0,
    or the exit code is 1. A behavior that arrives later makes the person anew, as somebody unknown.

    Example: leadre user forget user_5 --yes
    """
    found = settings()
    from leadre.pipelines import forget as forgetting
    from leadre.retrieval.refresh_queue import TAG
    from leadre.store.features.online_rows import connect_online
    from leadre.store.person.online import Online
    from leadre.store.person.whom import Person
    from leadre.store.records.database import connect

    person = Person.named(user_id)
    if not yes:
        click.confirm(f"Remove everything about {user_id!r} (64-bit id {person.user_id})?", abort=True, err=True)
    import redis

    client = features(found)
    database = connect(found.database_url, application_name="leadre user forget", statement_timeout_s=0)
    online = connect_online(
        client.servers.online, client.servers.redis_type, sentinel_master=client.servers.sentinel_master
    )
    others = redis.Redis.from_url(found.redis_url, socket_timeout=30, socket_connect_timeout=5)
    try:
        tags = (TAG, "{leadre:behaviors}")
        places = Online(features=online, others=others, project=client.store.project, tags=tags)
        with progress_bars() as progress:
            done = forgetting.forget(
                person, database=database, online=places, settle_s=forgetting.SETTLE_S, progress=progress
            )
    finally:
        client.close()
        database.dispose()
        online.close()
        others.close()
    export = str(found.retention_export) if found.retention_export else None
    if as_json:
        facts = asdict(done) | {"left_in_all": done.left_in_all, "not_reached": NOT_REACHED, "retention_export": export}
        print_json(facts)
    else:
        print_table("Removed", ("place", "count"), list(done.removed.items()))
        for place, count in done.left.items():
            console.print(f"[red]still there:[/] {place}: {count}")
        console.print(f"Found afterwards in {done.looked_at} tables and places: {done.left_in_all}")
        if done.materialization_under_way:
            console.print(
                "A materialization is under way, which may write features that it read before: run this again."
            )
        console.print("Out of reach: " + "; ".join(NOT_REACHED) + (f" ({export})" if export else ""))
    if done.left_in_all:
        sys.exit(1)
