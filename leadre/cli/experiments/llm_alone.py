"""`leadre experiment llm-alone`: what the LLM is worth beside the collaborative signal. Ours; see LEADRE §3.4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from leadre.cli.experiments.kept import keep_for_report
from leadre.cli.session import connection
from leadre.cli.terminal import console, print_json, print_table, progress_bars
from leadre.settings import Settings

if TYPE_CHECKING:
    from leadre.evaluation.bootstrap import Interval
    from leadre.experiments.llm_alone import LlmAlone

_SYSTEMS = {"llm": "the LLM alone", "fused": "fused", "signal": "the signal alone"}


def run_llm_alone(
    found: Settings, names: Sequence[str], *, now: datetime, max_users: int | None, as_json: bool
) -> None:
    """Ask releases, keep what was found for the report, and print it.

    Args:
        found: where things run.
        names: of releases; none: the newest.
        now: later behaviors are not read.
        max_users: in place of the recipe's number.
        as_json: print JSON.

    Raises:
        ConfigError: there is no such release, or none at all.
    """
    from leadre.experiments.llm_alone import llm_alone

    folders = _folders(found, names)
    with progress_bars() as progress:
        made = llm_alone(
            folders,
            database_url=found.database_url,
            indexes=found.indexes,
            now=now,
            device=found.device,
            precision=found.precision,
            max_users=max_users,
            progress=progress,
        )
    keep_for_report(found, "llm-alone", made.to_json())
    if as_json:
        print_json(made.to_json())
    else:
        print_llm_alone(made)


def _folders(found: Settings, names: Sequence[str]) -> list[Path]:
    from leadre.store.release.records import named_or_newest

    with connection(found) as connected:
        return [Path(named_or_newest(connected, name).uri) for name in names or (None,)]


def print_llm_alone(made: LlmAlone) -> None:
    """Print the figures of all users, then those of the groups, in every order of ties."""
    shares = ", ".join(f"{share:.0%}" for share in made.llm_shares)
    console.print(
        f"{', '.join(made.releases)}: {made.users:,} users, {made.tied:,} of them with tied held-out ads; "
        f"the LLM's share of the fused score: {shares}\n"
    )
    rows: list[list[object]] = []
    for system, said in _SYSTEMS.items():
        means = [{name: interval.mean for name, interval in view.means.items()} for view in made.views.values()]
        rows.append([said, *(_pair(of_view, system) for of_view in means)])
        if len(made.releases) > 1:
            rows.append(["  SD between releases", *(_pair(view.seed_sd, system) for view in made.views.values())])
    for metric, said in (("r10", "fused − signal, R@10"), ("n10", "fused − signal, N@10")):
        rows.append([said, *(_signed(view.fused_minus_signal[metric]) for view in made.views.values())])
    print_table("R@10 / N@10", ("", *made.views), rows)
    groups: list[list[object]] = []
    for name, view in made.views.items():
        for group, found in view.groups.items():
            figures = [_interval(found.r10[system]) for system in _SYSTEMS]
            groups.append([f"{group}, {name}", found.users, *figures, _signed(found.r10["fused_minus_signal"])])
    print_table("R@10 by group", ("", "users", *_SYSTEMS.values(), "fused − signal"), groups)


def _pair(figures: Mapping[str, float], system: str) -> str:
    return f"{figures[f'{system}_r10']:.4f} / {figures[f'{system}_n10']:.4f}"


def _interval(value: Interval) -> str:
    return f"{value.mean:.4f} ({value.low:.4f}–{value.high:.4f})"


def _signed(value: Interval) -> str:
    return f"{value.mean:+.4f} ({value.low:+.4f} … {value.high:+.4f})"
