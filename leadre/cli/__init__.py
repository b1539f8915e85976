"""The command line: `leadre`. Commands load when they are called, so that `leadre --help` answers at once."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import sys
import warnings

import click

from leadre.errors import LeadreError
from leadre.threads import wait_asleep

_COMMANDS = {
    "init": ("leadre.cli.init", "init", "Write a project to work in: feature repository, recipes, settings."),
    "services": ("leadre.cli.services", "services", "Start and stop the embedded PostgreSQL and Redis."),
    "env": ("leadre.cli.services", "env", "Print the environment variables that feast, alembic and celery need."),
    "import": ("leadre.cli.importing", "import_", "Load ads, users and behaviors."),
    "summarize": ("leadre.cli.importing", "summarize", "Turn behaviors into interest summaries and sequences."),
    "materialize": ("leadre.cli.importing", "materialize", "Copy what is new to the online store."),
    "rehydrate": ("leadre.cli.nearline", "rehydrate", "Bring all lists back to an online store that lost them."),
    "retention": ("leadre.cli.importing", "retention", "Drop old months of lists, summaries and sequences."),
    "ads": ("leadre.cli.ads", "ads", "Pause and resume ads, say when they run and whether their budget lasts."),
    "index": ("leadre.cli.index", "index", "Build and inspect the ad index."),
    "train": ("leadre.cli.learning", "train", "Train a release from a recipe."),
    "evaluate": ("leadre.cli.learning", "evaluate", "Measure a release beside the baselines."),
    "experiment": (
        "leadre.cli.experiments.experiment",
        "experiment",
        "Run the paper's offline experiments here.",
    ),
    "simulate": ("leadre.cli.experiments.simulate", "simulate", "Simulate an A/B test of LEADRE on made-up worlds."),
    "release": ("leadre.cli.learning", "release", "List, promote and roll back releases."),
    "ids": ("leadre.cli.ids", "ids", "Your ids as the 64-bit numbers of Feast, and back."),
    "ingest": ("leadre.cli.nearline", "ingest", "Write reported behaviors from the stream to PostgreSQL."),
    "refresh": ("leadre.cli.nearline", "refresh", "Retrieve ads for users now, in this process."),
    "queue": ("leadre.cli.operations.queue", "queue", "Who waits for a new list, and who failed too often."),
    "dataset": ("leadre.cli.dataset", "dataset", "Make training sets for rankers, and lists of the past."),
    "decode": ("leadre.cli.decode", "decode", "Decode users without storing anything."),
    "features": ("leadre.cli.features.check", "features", "Whether the features that rankers read are well."),
    "trace": ("leadre.cli.nearline", "trace", "Follow one user from events to ranker features."),
    "keys": ("leadre.cli.operations.keys", "keys", "Make API keys for the servers."),
    "consumption": ("leadre.cli.operations.consumption", "consumption", "Which shown ads LEADRE alone retrieved."),
    "user": ("leadre.cli.operations.user", "user", "Remove a person's data."),
    "serve": ("leadre.cli.serve", "serve", "Run the User Server, the Mixer or an engine."),
    "report": ("leadre.cli.report", "report", "Write the self-contained report.html."),
    "demo": ("leadre.cli.demo", "demo", "Run the whole pipeline on a made-up ad world."),
}


class _LazyGroup(click.Group):
    """Knows its commands' names and one-line helps; imports a command's module only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and (near := difflib.get_close_matches(args[0], _COMMANDS, n=1)):
            raise click.UsageError(f"No such command {args[0]!r}. Did you mean {near[0]!r}?", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="leadre")
def cli() -> None:
    """LLM-empowered display-ad retrieval, and ranking features from what it retrieves.

    Start with `leadre demo` in an empty folder. With your own data: init, services up, import, index build, train,
    evaluate, release promote.
    """


def main() -> None:
    """Run the command line. An error of ours is one line with a remedy and exit code 1, not a traceback."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # ours are shown instead
    wait_asleep()
    warnings.simplefilter("ignore", FutureWarning)  # libraries talking to each other
    try:
        cli(standalone_mode=True)
    except (LeadreError, FileExistsError) as error:
        click.secho(f"error: {_said(error)}", fg="red", err=True)
        sys.exit(1)


def _said(error: LeadreError | FileExistsError) -> str:
    """Return the message with the owner's ids: what was raised far inside knows 64-bit ones only."""
    if isinstance(error, LeadreError) and (error.ad_ids or error.user_ids):
        from leadre.cli.session import connection, settings
        from leadre.store.records.source_ids import in_owners_words

        with contextlib.suppress(LeadreError), connection(settings()) as connected:
            return in_owners_words(connected, error)
    return str(error)
