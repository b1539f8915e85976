"""`leadre demo`: every stage for real, on a made-up ad world, in minutes.

The same commands a user would type, in order. What is there already is not made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from leadre.cli.frame.command import command
from leadre.cli.learning import print_evaluation
from leadre.cli.session import connection, features, settings
from leadre.cli.start.services import home
from leadre.cli.terminal import console, print_table, progress_bars
from leadre.errors import Unavailable
from leadre.project.worker import worker_command
from leadre.settings import Settings

RECIPE = Path("recipes/demo.toml")
REFRESHED_USERS = 200
CANDIDATES = 20
SHOWN = ("hit", "rank", "probability", "prefix_mass_1", "max_cosine")


@command()
@click.option("--keep", is_flag=True, help="Leave PostgreSQL and Redis running afterwards.")
def demo(*, keep: bool) -> None:
    """Run the whole pipeline on a made-up ad world: data, index, training, a real worker, ranker features, report.

    In an empty folder it writes a project first, as `leadre init` does. What is there is not made again, so a second
    run is short.

    Examples:
    leadre demo
    leadre demo --keep && leadre trace
    """
    from leadre import services
    from leadre.project.create import create_project

    began = time.monotonic()
    if not RECIPE.exists():
        _step(0, "A project", f"{' '.join(create_project(Path()))}, yours to edit")
    started_here = not services.status(home()).running
    try:
        _run()
    finally:
        if started_here and not keep:
            services.down(home())
    console.print(f"[dim]{time.monotonic() - began:.0f} s in all.[/]")
    if started_here and not keep:
        console.print(
            '[dim]The servers are down again; `leadre services up` and `eval "$(leadre env)"` go on from here.[/]'
        )


def _run() -> None:
    from leadre import services
    from leadre.cli.report import make_report
    from leadre.pipelines.index.build import build_index
    from leadre.pipelines.learning.release import make_release
    from leadre.pipelines.materialize import materialize
    from leadre.pipelines.summarize import summarize
    from leadre.recipe import encode_recipe, load_recipe
    from leadre.store.importers.synthetic import import_world
    from leadre.store.records.database import migrate
    from leadre.store.release.records import list_releases, promote
    from leadre.synthetic import make_world

    if os.environ.get("LEADRE_DATABASE_URL") and os.environ.get("LEADRE_REDIS_URL"):
        _step(1, "PostgreSQL and Redis", "yours, by LEADRE_DATABASE_URL and LEADRE_REDIS_URL")
    else:
        _step(1, "PostgreSQL and Redis", "embedded, on loopback, no root")
        services.up(home())
    found = settings()
    migrate(found.database_url)

    now = _present(found)
    recipe = load_recipe(RECIPE)
    _step(2, "A made-up ad world", "ads, users, behaviors in two domains, impressions with simulated eCPM")
    with progress_bars() as progress:
        import_world(make_world(now=now), database_url=found.database_url, progress=progress)
    summarize(found.database_url, now=now)

    _step(3, "Ad index", "description → embedding → RQ-VAE → S-ID → trie")
    with progress_bars() as progress:
        index = build_index(
            database_url=found.database_url, indexes=found.indexes, recipe=recipe.index, now=now, progress=progress
        )
    sample = index.sid_at(0)
    console.print(f"  {len(index):,} ads, each with an S-ID of its own, for example [cyan]{sample}[/]")

    _step(4, "Training", "explicit alignment → implicit alignment → next ad → DPO on eCPM")
    release = f"demo-{index.version}-{_fingerprint(encode_recipe(recipe))}"
    with connection(found) as connected:
        made = {row.release: row for row in list_releases(connected)}.get(release)
    if made is None:
        for leftover in (release, f"{release}-sft"):  # of a run that was interrupted before it was recorded
            shutil.rmtree(found.releases / leftover, ignore_errors=True)
        with progress_bars() as progress:
            made = make_release(
                database_url=found.database_url,
                releases=found.releases,
                index=index,
                recipe=recipe,
                now=now,
                name=release,
                progress=progress,
            )
    else:
        console.print("  [dim]trained by an earlier run[/]")
    print_evaluation(release, made.metrics)
    if made.status != "live":
        with connection(found) as connected:
            promote(connected, release)
    console.print(f"  release [bold]{release}[/] is live")

    _step(5, "Feature store", "feast apply, leadre materialize")
    _feast(found, "apply")
    with progress_bars() as progress:
        materialize(features(found), now=datetime.now(UTC), progress=progress)

    _step(6, "Nearline worker", f"a Celery process retrieves ads for {REFRESHED_USERS} users of the refresh queue")
    users = _refresh_through_a_worker(found)

    _step(7, "A ranker reads its features", f"one user, {CANDIDATES} candidate ads, ranker_features_v1 through Feast")
    _show_features(found, users[0], now=datetime.now(UTC))

    _step(8, "Report", "one self-contained page")
    path = make_report(found, release, user=users[0], now=datetime.now(UTC))
    console.print(f"\n[bold green]✓[/] Done. Open [bold]{path}[/]")


def _step(number: int, title: str, text: str) -> None:
    console.print(f"\n[bold blue]{number}[/]  [bold]{title}[/]  [dim]{text}[/]")


def _present(found: Settings) -> datetime:
    """Return the world's present: the first run's midnight, so that a second run finds the same world."""
    note = found.home / "demo.json"
    if note.is_file():
        then = datetime.fromisoformat(json.loads(note.read_text())["now"])
        if datetime.now(UTC) - then < timedelta(days=14):
            return then
    now = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    note.write_text(json.dumps({"now": now.isoformat()}))
    return now


def _fingerprint(recipe: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]


def _feast(found: Settings, *arguments: str) -> None:
    """Run Feast's own command, as a user would."""
    from leadre.store.features.command import run_feast

    console.print(f"  [dim]$ feast -c {found.feature_repo.name} {' '.join(arguments)}[/]")
    run_feast(found.feature_repo, *arguments)


def _refresh_through_a_worker(found: Settings) -> list[int]:
    """Mark the most valuable users in the refresh queue, start a worker, wait for their lists.

    The worker finds the others by itself, who have behaviors and no list; it is stopped before it has served them all.
    """
    from leadre.retrieval.refresh_queue import RefreshQueue
    from leadre.store.records.catalog import row_counts
    from leadre.store.records.request_path import arpu_groups

    with connection(found) as connected:
        groups = arpu_groups(connected, range(row_counts(connected)["users"]))
    users = sorted(range(len(groups)), key=lambda user: -groups[user])[:REFRESHED_USERS]
    queue = RefreshQueue.connect(found.redis_url)
    queue.mark(users, groups=[groups[user] for user in users])
    with _worker(found) as log, progress_bars() as progress:
        deadline = time.monotonic() + 180
        while (done := len(queue.missing(users))) < len(users):
            progress("users refreshed", done, len(users))
            if time.monotonic() > deadline:
                raise Unavailable(f"the worker did not finish in 180 s; its log is {log}")
            time.sleep(0.2)
        progress("users refreshed", len(users), len(users))
    return users


@contextmanager
def _worker(found: Settings) -> Iterator[Path]:
    """Run a Celery worker in its own process, and stop it warmly."""
    log = found.home / "worker.log"
    command = worker_command("workers.app")
    console.print(f"  [dim]$ celery {' '.join(command[3:])}[/]")
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=dict(os.environ))
        try:
            yield log
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()


def _show_features(found: Settings, user_id: int, *, now: datetime) -> None:
    from leadre.store.records.catalog import read_ads

    client = features(found)
    row = client.retrieval_lists([user_id])[0]
    if row is None:
        raise Unavailable(f"user {user_id} has no list in the online store; {found.home}/worker.log says why")
    with connection(found) as connected:
        names = {ad.ad_id: ad.name for ad in read_ads(connected)}
    others = [ad for ad in names if ad not in row.ad_ids]
    candidates = [*row.ad_ids[: CANDIDATES // 2], *others[:: max(1, len(others) // CANDIDATES)]][:CANDIDATES]
    values = client.ranker_features(user_id, candidates, now=now)
    print_table(
        f"\nItem-side match scores of user {user_id}",
        ("candidate ad", *SHOWN),
        [(names[ad][:28], *(values[name][place] for name in SHOWN)) for place, ad in enumerate(candidates)],
    )
    user_side = ("retrieved_count", "top_probability", "entropy", "category_concentration", "expected_ecpm", "release")
    print_table("User-side features", ("feature", "value"), [(name, _shown(values[name][0])) for name in user_side])


def _shown(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
