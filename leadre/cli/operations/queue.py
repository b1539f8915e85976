"""`leadre queue`: who waits for a new retrieval list, and who failed too often. LEADRE §4.4.1."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from leadre.cli.command import group
from leadre.cli.session import connection, settings
from leadre.cli.terminal import console, json_option, print_json, print_table

if TYPE_CHECKING:
    from leadre.retrieval.refresh_queue import RefreshQueue

_SHOWN = 20
"""Dead users in the table; JSON has them all."""


@group(invoke_without_command=True)
@json_option
@click.pass_context
def queue(context: click.Context, *, as_json: bool) -> None:
    """Show the refresh queue: users who wait and the longest wait by ARPU group, claims, budget, dead users.

    Examples:
    leadre queue
    leadre queue --json
    """
    if context.invoked_subcommand:
        return
    asked = _queue()
    stats, dead = asked.stats(), _names(asked.dead())
    if as_json:
        print_json({**asdict(stats), "dead_users": dead})
        return
    rows = [
        (str(group), users, f"{seconds:,.1f}")
        for group, (users, seconds) in enumerate(zip(stats.depth, stats.oldest_s, strict=True))
        if users
    ]
    print_table("Users who wait, by ARPU group", ("group", "users", "longest wait, s"), rows[::-1])
    budget = "no bound" if stats.budget_users is None else f"{stats.budget_users:,.1f} users now"
    console.print(f"{sum(stats.depth):,} wait, {stats.claimed:,} are claimed; cut: group {stats.cut}; budget: {budget}")
    console.print(
        f"since Redis was empty: {stats.claims['llm']:,} claimed for the LLM, {stats.claims['cheap']:,} for a cheap "
        f"list, {stats.expiries:,} leases ran out"
    )
    if dead:
        shown = ", ".join(map(str, dead[:_SHOWN])) + (" ..." if len(dead) > _SHOWN else "")
        console.print(f"[red]{len(dead):,} failed too often[/]: {shown}", soft_wrap=True)
        console.print("  The worker's log names the errors. Once they are mended: leadre queue revive")


@queue.command()
@json_option
def revive(*, as_json: bool) -> None:
    """Give the users who failed too often another chance. Beat does so every day.

    Example: leadre queue revive
    """
    users = _queue().revive()
    if as_json:
        print_json({"users": users})
    else:
        console.print(f"[green]✓[/] {users:,} users wait again")


def _queue() -> RefreshQueue:
    from leadre.retrieval.refresh_queue import RefreshQueue

    return RefreshQueue.connect(settings().redis_url)


def _names(user_ids: list[int]) -> list[int | str]:
    """Return users as their owner names them."""
    if not user_ids:
        return []
    from leadre.store.records.source_ids import user_source_ids

    with connection(settings()) as connected:
        names = user_source_ids(connected, set(user_ids))
    return [names.get(user_id, user_id) for user_id in user_ids]
