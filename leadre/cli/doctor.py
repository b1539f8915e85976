"""`leadre doctor`: what is wrong here, what it means, and the one command to run next."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict

from leadre.cli.command import command
from leadre.cli.ending import DONE, FAILED
from leadre.cli.terminal import console, json_option, print_json, progress_bars

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "fault": ("✗", "red")}


@command()
@json_option
def doctor(*, as_json: bool) -> None:
    """Look at this machine, the installation, PostgreSQL, Redis, Feast, data, index, release and workers.

    A line each: ✓ is well, ! works and should be looked at, ✗ does not work; and the command to run next. Nothing is
    changed, and no password is shown. It answers whatever is missing. Exit code 1: there is a ✗.

    Examples:
    leadre doctor
    leadre doctor --json
    """
    from leadre.pipelines.doctor.examine import examine
    from leadre.pipelines.doctor.finding import next_command, well

    with progress_bars() as progress:
        findings, skipped = examine(os.environ, report=progress)
    code = DONE if well(findings) else FAILED
    run = next_command(findings)
    if as_json:
        facts = {"well": well(findings), "next": run or None, "findings": [asdict(it) for it in findings]}
        print_json({**facts, "not_looked_at": skipped})
        sys.exit(code)
    for finding in findings:
        mark, colour = _MARKS[finding.state]
        console.print(f"[{colour}]{mark}[/] [bold]{finding.check}[/]", end="  ")
        console.print(finding.said, markup=False, soft_wrap=True)
        if finding.run and finding.state != "ok":
            console.print(f"    {finding.run}", markup=False, style="cyan", soft_wrap=True)
    if skipped:
        console.print(f"Not looked at before that is mended: {', '.join(skipped)}", soft_wrap=True)
    if run:
        console.print(f"\n[bold]Next:[/]  {run}".replace("[all]", "\\[all]"), soft_wrap=True)
    sys.exit(code)
