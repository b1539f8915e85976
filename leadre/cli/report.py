"""`leadre report`: one page on a release."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from leadre.cli.command import command
from leadre.cli.session import SourceId, now_option, settings
from leadre.cli.terminal import console, json_option, print_json
from leadre.settings import Settings


@command()
@click.argument("release", required=False)
@click.option("--user", type=SourceId(), help="Whose story to show; by default a user with many behaviors.")
@click.option(
    "--benchmarks",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="A folder of what `benchmarks/bench_X.py --json` printed, a file bench_X.json of each; LEADRE_HOME/benchmarks "
    "if it is there.",
)
@now_option
@json_option
def report(
    release: str | None, *, user: int | str | None, benchmarks: Path | None, now: datetime, as_json: bool
) -> None:
    """Write report.html on a release (the live one unless named): what it brings, how it comes about, is all well.

    One page that needs no network: quality beside baselines, the release before, simulated A/B tests, one user's story
    with the beam tree, training, index, the paper's tables that were run, features, benchmarks, services.

    Example: leadre report --user user_5
    """
    path = make_report(settings(), release, user=user, benchmarks=benchmarks, now=now)
    if as_json:
        print_json({"path": path})
    else:
        console.print(f"[green]✓[/] wrote {path}", soft_wrap=True)


def make_report(
    found: Settings,
    release: str | None,
    *,
    user: int | str | None,
    benchmarks: Path | None = None,
    now: datetime,
) -> Path:
    """Write the report on a release.

    Raises:
        ConfigError: no such release, or none is live.
        Unavailable: a server does not answer.
    """
    from leadre.report import write_report
    from leadre.report.gather import gather

    usual = found.home / "benchmarks"
    path = found.home / "report.html"
    folder = benchmarks or (usual if usual.is_dir() else None)
    write_report(gather(found, release, user=user, benchmarks=folder, now=now), path)
    return path
