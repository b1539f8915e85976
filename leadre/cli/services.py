"""`leadre services` and `leadre env`: the servers, and how other commands find them."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from leadre.cli.command import command, group
from leadre.cli.terminal import console, json_option, print_json, print_table


def home() -> Path:
    """Return the folder of artifacts and embedded servers (`LEADRE_HOME`, default `.leadre`)."""
    return Path(os.environ.get("LEADRE_HOME", ".leadre")).absolute()


@group()
def services() -> None:
    """Start and stop the embedded PostgreSQL and Redis.

    They listen on loopback only, keep their data in LEADRE_HOME, and need no root. To use your own servers, set
    LEADRE_DATABASE_URL and LEADRE_REDIS_URL instead.

    Example: leadre services up
    """


@services.command()
def up() -> None:
    """Start both servers (does nothing to those that run) and bring the database schema up to date.

    Example: leadre services up
    """
    from leadre import services as embedded
    from leadre.settings import Settings
    from leadre.store.records.database import migrate

    folder = embedded.up(home()).folder
    settings = Settings.from_environment()
    migrate(settings.database_url)
    console.print(f"[green]✓[/] PostgreSQL and Redis are up, data in {folder}")
    console.print('  In a shell:  eval "$(leadre env)"   then feast, alembic and celery find them.')


@services.command()
def down() -> None:
    """Stop both servers; their data stays.

    Example: leadre services down
    """
    from leadre import services as embedded

    embedded.down(home())
    console.print("[green]✓[/] PostgreSQL and Redis are down")


@services.command()
@json_option
def status(*, as_json: bool) -> None:
    """Say which servers run, and where their data is.

    Example: leadre services status
    """
    from leadre import services as embedded

    state = embedded.status(home())
    if as_json:
        print_json({"folder": state.folder, "postgres_process": state.postgres_pid, "redis_process": state.redis_pid})
        return
    rows = [
        (name, f"up, process {pid}" if pid else "down")
        for name, pid in (("PostgreSQL", state.postgres_pid), ("Redis", state.redis_pid))
    ]
    print_table("Embedded servers", ("server", "state"), rows)
    console.print(f"Their data: {state.folder}")


@command()
def env() -> None:
    """Print the environment variables that feast, alembic and celery need. They hold passwords.

    Example: eval "$(leadre env)"
    """
    from leadre.settings import Settings

    settings = Settings.from_environment()
    variables = {
        "LEADRE_HOME": str(settings.home),
        "LEADRE_DATABASE_URL": settings.database_url,
        "LEADRE_REDIS_URL": settings.redis_url,
        "LEADRE_FEATURE_REPO": str(settings.feature_repo),
        **settings.feast_environment(),
    }
    for name, value in variables.items():
        click.echo(f"export {name}={shlex.quote(value)}")
