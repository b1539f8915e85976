"""The command line: `leadre`. Commands load when they are called, so that `leadre --help` answers at once."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from leadre.cli.frame.command import Known, LazyGroup
from leadre.threads import wait_asleep

_SECTIONS: dict[str, dict[str, Known]] = {
    "Start": {
        "init": ("leadre.cli.start.init", "init", "Write a project to work in: feature repository, recipes, settings."),
        "demo": ("leadre.cli.start.demo", "demo", "Run the whole pipeline on a made-up ad world."),
        "services": ("leadre.cli.start.services", "services", "Start and stop the embedded PostgreSQL and Redis."),
        "doctor": ("leadre.cli.operations.doctor", "doctor", "Say what is wrong here, and which command to run next."),
        "env": (
            "leadre.cli.start.services",
            "env",
            "Print the environment variables that feast, alembic and celery need.",
        ),
        "completion": (
            "leadre.cli.frame.completion",
            "completion",
            "Print a script that completes commands in a shell.",
        ),
    },
    "Data": {
        "import": ("leadre.cli.importing", "import_", "Load ads, users and behaviors."),
        "summarize": ("leadre.cli.daily", "summarize", "Turn behaviors into interest summaries and sequences."),
        "materialize": ("leadre.cli.daily", "materialize", "Copy what is new to the online store."),
        "ads": ("leadre.cli.ads", "ads", "Pause and resume ads, say when they run and whether their budget lasts."),
        "dataset": ("leadre.cli.dataset", "dataset", "Make training sets for rankers, and lists of the past."),
        "ids": ("leadre.cli.ids", "ids", "Your ids as the 64-bit numbers of Feast, and back."),
        "user": ("leadre.cli.operations.user", "user", "Remove a person's data."),
    },
    "Index": {
        "index": ("leadre.cli.index", "index", "Build, list and inspect ad indexes."),
    },
    "Train": {
        "train": ("leadre.cli.learning", "train", "Train a release from a recipe."),
        "evaluate": ("leadre.cli.learning", "evaluate", "Measure a release beside the baselines."),
        "release": ("leadre.cli.learning", "release", "List, promote, export and roll back releases."),
        "experiment": (
            "leadre.cli.experiments.experiment",
            "experiment",
            "Run the paper's offline experiments here.",
        ),
        "simulate": (
            "leadre.cli.experiments.simulate",
            "simulate",
            "Simulate an A/B test of LEADRE on made-up worlds.",
        ),
    },
    "Serve": {
        "serve": ("leadre.cli.serve", "serve", "Run the User Server, the Mixer or an engine."),
        "refresh": ("leadre.cli.nearline", "refresh", "Retrieve ads for users now, in this process."),
        "ingest": ("leadre.cli.nearline", "ingest", "Write reported behaviors from the stream to PostgreSQL."),
        "keys": ("leadre.cli.operations.keys", "keys", "Make API keys for the servers."),
    },
    "Look": {
        "console": ("leadre.cli.console", "console", "Serve pages on users, ads, the index and releases."),
        "trace": ("leadre.cli.nearline", "trace", "Follow one user from events to ranker features."),
        "decode": ("leadre.cli.decode", "decode", "Decode users without storing anything."),
        "report": ("leadre.cli.report", "report", "Write the self-contained report.html."),
        "consumption": (
            "leadre.cli.operations.consumption",
            "consumption",
            "Which shown ads LEADRE alone retrieved.",
        ),
    },
    "Operate": {
        "queue": ("leadre.cli.operations.queue", "queue", "Who waits for a new list, and who failed too often."),
        "features": ("leadre.cli.features.check", "features", "Whether the features that rankers read are well."),
        "rehydrate": ("leadre.cli.nearline", "rehydrate", "Bring all lists back to an online store that lost them."),
        "retention": ("leadre.cli.daily", "retention", "Drop old months of lists, summaries and sequences."),
    },
}
"""By what one wants to do. A new command needs a line here, and all that tests/cli/test_quality.py asks for."""
_COMMANDS = {name: known for section in _SECTIONS.values() for name, known in section.items()}


class _Leadre(LazyGroup):
    sections = _SECTIONS

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the command line; `--help` writes here."""
        with _unless_the_reader_left():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        with _unless_the_reader_left():
            return super().invoke(ctx)


@contextmanager
def _unless_the_reader_left() -> Iterator[None]:
    """End the command quietly when what it writes is read no more, as by `head`."""
    try:
        yield
    except BrokenPipeError:
        from leadre.cli.frame.ending import READER_LEFT, silence

        silence()
        sys.exit(READER_LEFT)


@click.group(
    cls=_Leadre,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True},
    epilog="Exit codes: 0 done; 1 an error, said in one line, or a check that found something; 2 it was typed wrongly; "
    "3 a check could not look; 130 stopped by Ctrl-C; 141 the reader of a pipe left.",
)
@click.version_option(package_name="leadre", help="Print the version.")
def cli() -> None:
    """LLM-empowered display-ad retrieval, and ranking features from what it retrieves.

    Start with `leadre demo` in an empty folder. With your own data: init, services up, import, summarize, index build,
    train, release promote; `leadre doctor` says what comes next. `leadre COMMAND --help` explains each.

    Examples:
    leadre demo
    """


def main() -> None:
    """Run the command line. An error of ours is one line with a remedy and exit code 1, not a traceback."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # ours are shown instead
    wait_asleep()
    warnings.simplefilter("ignore", FutureWarning)  # libraries talking to each other
    from leadre.cli.frame.ending import ended

    sys.exit(ended(lambda: cli(prog_name="leadre", standalone_mode=False)))
