"""`leadre refresh` and `leadre trace`: retrieval for named users, and its every step. LEADRE §4.4.1."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from leadre.cli.console import console, print_json, print_table
from leadre.cli.session import now_option, settings


@click.command()
@click.argument("user_ids", metavar="USER...", type=int, nargs=-1, required=True)
@now_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def refresh(user_ids: tuple[int, ...], *, now: datetime, as_json: bool) -> None:
    """Retrieve ads for users now, in this process, and write their lists and features.

    Workers do the same for everyone in the refresh queue.

    Example: leadre refresh 7 8 9
    """
    from leadre.pipelines.refresh import refresh_users

    lists = refresh_users(settings(), list(dict.fromkeys(user_ids)), now=now)
    if as_json:
        print_json(
            [
                {"user": found.user_id, "release": found.release, "ads": [beam.ad_id for beam in found.beams]}
                for found in lists
            ]
        )
        return
    rows = [
        (found.user_id, len(found.beams), ", ".join(str(beam.ad_id) for beam in found.beams[:8])) for found in lists
    ]
    print_table(f"Retrieval lists, release {lists[0].release}", ("user", "ads", "first"), rows)


@click.command()
@click.argument("user_id", metavar="USER", type=int, required=False)
@click.argument("ad_ids", metavar="AD...", type=int, nargs=-1)
@click.option(
    "--markdown", type=click.Path(path_type=Path, dir_okay=False), help="Write the walk to this file instead."
)
@now_option
def trace(user_id: int | None, ad_ids: tuple[int, ...], *, markdown: Path | None, now: datetime) -> None:
    """Follow one user through every step: events, context, prompt, beams, list, features for the given ads.

    Without arguments: the user with the newest behavior, and some of the ads retrieved. It prints personal data.

    Example: leadre trace 7 12 90
    """
    from rich.markdown import Markdown

    from leadre.report.trace import as_markdown, trace_user

    walk = trace_user(settings(), user_id, ad_ids=ad_ids, now=now)
    command = f"leadre trace {walk.context.profile.user_id} {' '.join(str(ad) for ad in walk.target_ads)}"
    text = as_markdown(walk, command=command)
    if markdown:
        markdown.write_text(text)
        console.print(f"[green]✓[/] wrote {markdown}")
    else:
        console.print(Markdown(text))
