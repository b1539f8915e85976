"""`leadre train`, `leadre evaluate` and `leadre release`. LEADRE §4.3, §5.2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from leadre.cli.frame.command import OneOf, command, group
from leadre.cli.index import chosen_version
from leadre.cli.session import connection, now_option, recipe_argument, set_option, settings
from leadre.cli.terminal import console, json_option, print_json, print_table, progress_bars
from leadre.errors import ConfigError
from leadre.recipe import load_recipe

if TYPE_CHECKING:
    from leadre.store.release.records import ReleaseRow

SHOWN_METRICS = ("HR@1", "HR@4", "HR@8", "HR@10", "NDCG@4", "NDCG@8", "NDCG@10")


@command()
@recipe_argument
@set_option
@click.option("--base-model", help="Hugging Face name or local path of a causal LM; same as --set model.base_model=…")
@click.option("--name", help="Name of the release; by default the recipe's name and the time.")
@click.option("--index", "version", help="Index version; by default the newest.")
@now_option
@json_option
def train(
    recipe: Path,
    overrides: tuple[str, ...],
    *,
    base_model: str | None,
    name: str | None,
    version: str | None,
    now: datetime,
    as_json: bool,
) -> None:
    """Train a release: EX → IM → Main, then DPO on eCPM; then evaluate and record it as a candidate.

    The last example trains on several GPUs.

    Examples:
    leadre train
    leadre train recipes/demo.toml --set sft.seed=1 --base-model Qwen/Qwen2.5-0.5B
    accelerate launch -m leadre train recipes/paper.toml
    """
    from leadre.indexing.ad_index import AdIndex
    from leadre.pipelines.learning.release import make_release
    from leadre.pipelines.learning.train import train as help_to_train
    from leadre.training.run.processes import agreed, is_main

    found = settings()
    if base_model:
        overrides = (*overrides, f'model.base_model="{base_model}"')
    wanted = load_recipe(recipe, overrides=overrides)
    index = AdIndex.load(found.indexes / chosen_version(found, version))
    now = agreed(now)
    if not is_main():
        help_to_train(
            database_url=found.database_url, releases=found.releases, index=index, recipe=wanted, now=now, name=name
        )
        return
    with progress_bars() as progress:
        made = make_release(
            database_url=found.database_url,
            releases=found.releases,
            index=index,
            recipe=wanted,
            now=now,
            name=name,
            device=found.device,
            progress=progress,
        )
    if as_json:
        print_json({"release": made.release, **made.metrics})
        return
    print_evaluation(made.release, made.metrics)
    console.print(f"Recorded as a candidate. Next:  leadre release promote {made.release}")


@command()
@click.argument("release", required=False)
@click.option(
    "--score",
    type=OneOf(["raw", "level", "valid"]),
    help="What a code's probability is over: the vocabulary, the codes of its level, or those that lead to a live ad; "
    "by default as the release's recipe says.",
)
@click.option("--precision", type=OneOf(["fp32", "bf16"]), default="fp32", help="Of weights and activations.")
@click.option(
    "--collaborative-weight",
    type=click.FloatRange(0, 1),
    help="Share of the release's collaborative signal in the score; 0: the LLM alone.",
)
@click.option(
    "--variety",
    type=click.FloatRange(0, 1, max_open=True),
    help="Share of a list's probability for the best ad of each category; 0: the order of the scores.",
)
@now_option
@json_option
def evaluate(
    release: str | None,
    *,
    score: Literal["raw", "level", "valid"] | None,
    precision: Literal["fp32", "bf16"],
    collaborative_weight: float | None,
    variety: float | None,
    now: datetime,
    as_json: bool,
) -> None:
    """Measure a release (the newest unless named) on every user's last ad, beside the recipe's baselines.

    Example: leadre evaluate --score raw --precision bf16
    """
    from leadre.indexing.ad_index import AdIndex
    from leadre.pipelines.learning.release import evaluate_release
    from leadre.store.release.records import named_or_newest

    found = settings()
    with connection(found) as connected:
        row = named_or_newest(connected, release)
    with progress_bars() as progress:
        measured = evaluate_release(
            Path(row.uri),
            database_url=found.database_url,
            index=AdIndex.load(found.indexes / row.index_version),
            now=now,
            score=score,
            device=found.device,
            precision=precision,
            collaborative_weight=collaborative_weight,
            variety=variety,
            progress=progress,
        )
    if as_json:
        print_json({"release": row.release, **measured.to_json()})
    else:
        print_evaluation(row.release, measured.to_json())


@group()
def release() -> None:
    """List, promote, export and roll back releases. Exactly one is live; workers swap between batches.

    Example: leadre release list
    """


@release.command("list")
@json_option
def list_(*, as_json: bool) -> None:
    """List the releases, newest first.

    Example: leadre release list
    """
    from leadre.store.release.records import list_releases

    with connection(settings()) as connected:
        rows = list_releases(connected)
    if as_json:
        print_json(
            [
                {
                    "release": row.release,
                    "status": _standing(row),
                    "index": row.index_version,
                    "HR@10": _figure(row.metrics, "HR@10"),
                    "promoted_at": row.promoted_at and row.promoted_at.isoformat(),
                }
                for row in rows
            ]
        )
        return
    print_table(
        "Releases",
        ("release", "status", "index", "HR@10", "promoted"),
        [
            (
                row.release,
                _standing(row),
                row.index_version,
                _figure(row.metrics, "HR@10"),
                f"{row.promoted_at:%Y-%m-%d %H:%M}" if row.promoted_at else "",
            )
            for row in rows
        ],
    )


@release.command()
@click.argument("name", metavar="[RELEASE]", required=False)
@click.option("--force", is_flag=True, help="Promote even if its figures fall.")
@json_option
def promote(name: str | None, *, force: bool, as_json: bool) -> None:
    """Make a release (the newest unless named) the live one; atomic and reversible.

    Refused when hit ratio, mean eCPM or diversity fall short of the live release's.

    Examples:
    leadre release promote
    leadre release promote demo-2025-06-01 --force
    """
    from leadre.store.records.database import connect, transaction
    from leadre.store.release.promotion import promote_guarded
    from leadre.store.release.records import ROLLING, list_releases

    database = connect(settings().database_url, application_name="leadre")
    try:
        if name is None:
            with transaction(database) as connected:
                candidates = [
                    row.release
                    for row in list_releases(connected)
                    if not row.release.endswith("-sft") and ROLLING not in row.metrics
                ]
            if not candidates:
                raise ConfigError("there is no release yet: `leadre train` makes one")
            name = candidates[0]
        promote_guarded(database, name, force=force)
    finally:
        database.dispose()
    if as_json:
        print_json({"live": name})
    else:
        console.print(f"[green]✓[/] release {name} is live")


@release.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.argument("name", metavar="[RELEASE]", required=False)
@json_option
def export(folder: Path, *, name: str | None, as_json: bool) -> None:
    """Write a release (the live one unless named) as a plain Hugging Face folder: model, tokenizer, card, trie, S-IDs.

    Whole or not at all; DIR must not exist. Others load it without leadre: transformers, vLLM.

    Example: leadre release export /tmp/for-hub r1
    """
    from leadre.indexing.ad_index import AdIndex
    from leadre.pipelines.learning.export import export_release
    from leadre.store.release.records import named_release

    found = settings()
    with connection(found) as connected:
        row = named_release(connected, name)
        index = AdIndex.load(found.indexes / row.index_version)
        export_release(connected, Path(row.uri), index=index, folder=folder)
    if as_json:
        print_json({"release": row.release, "folder": folder})
    else:
        console.print(f"[green]✓[/] wrote release {row.release} to {folder}", soft_wrap=True)


@release.command()
@json_option
def rollback(*, as_json: bool) -> None:
    """Make the release live that was live before.

    Example: leadre release rollback
    """
    from leadre.store.release.records import rollback as roll_back

    with connection(settings()) as connected:
        live = roll_back(connected)
    if as_json:
        print_json({"live": live.release})
    else:
        console.print(f"[green]✓[/] release {live.release} is live again")


def print_evaluation(name: str, evaluation: Mapping[str, Any]) -> None:
    """Print HR and NDCG beside the baselines; where times tie, also without ties and with ties shuffled."""
    views = ["canonical"] + (["untied", "shuffled"] if evaluation["tied"] else [])
    for view in views:
        print_table(
            f"{name}: {evaluation['users']:,} users, {_VIEWS[view]}",
            ("system", *_metrics(evaluation)),
            [
                (system, *(float(by_view[view][metric]["mean"]) for metric in _metrics(evaluation)))
                for system, by_view in evaluation["metrics"].items()
            ],
        )
    if evaluation.get("slices"):
        systems, cutoff = list(evaluation["metrics"]), max(evaluation["cutoffs"])
        print_table(
            f"Slices of the users: HR@{cutoff}/NDCG@{cutoff}",
            ("slice", "users", *systems),
            [
                (name, part["users"], *(_pair(part["metrics"][system], cutoff) for system in systems))
                for name, part in evaluation["slices"].items()
            ],
        )
    ltrr = list(evaluation["lists"]["leadre"].get("ltrr", ()))
    level = _LEVELS[evaluation.get("category_level", "first")]
    print_table(
        f"The first 8 ads of each list, {level}" + (" (eCPM simulated)" if evaluation["simulated_ecpm"] else ""),
        ("system", "mean eCPM", *ltrr, *_LIST_FIGURES),
        [
            (
                system,
                lists["mean_ecpm"],
                *(lists["ltrr"][name] for name in ltrr),
                *(lists[name] for name in _LIST_FIGURES),
            )
            for system, lists in evaluation["lists"].items()
        ],
    )


def _standing(row: ReleaseRow) -> str:
    from leadre.store.release.records import ROLLING

    if row.status == "candidate" and ROLLING in row.metrics:
        return "rolling"
    return "kept back" if row.status == "candidate" and "kept_back" in row.metrics else row.status


_VIEWS = {
    "canonical": "in the data's order",
    "untied": "only users whose held-out ads have different times",
    "shuffled": "ties shuffled",
}
_LIST_FIGURES = ("diversity", "concentration", "abundance")
_LEVELS = {
    "first": "by first category",
    "second": "by second category",
    "code": "by the first code of their S-IDs",
}


def _pair(metrics: Mapping[str, Any], cutoff: int) -> str:
    return "/".join(f"{metrics[f'{metric}@{cutoff}']['mean']:.4f}".removeprefix("0") for metric in ("HR", "NDCG"))


def _metrics(evaluation: Mapping[str, Any]) -> Sequence[str]:
    known = evaluation["metrics"]["leadre"]["canonical"]
    return [metric for metric in SHOWN_METRICS if metric in known]


def _figure(metrics: Mapping[str, Any], metric: str) -> float:
    try:
        return float(metrics["metrics"]["leadre"]["canonical"][metric]["mean"])
    except (KeyError, TypeError):
        return float("nan")
