"""The whole pipeline on Amazon Beauty in one go: import, summarize, index, train, evaluate, and what the LLM is worth.

    python benchmarks/beauty_pipeline.py DATA [RECIPE] [--seeds 0 1 2] [--device cuda] [--users N] [--set KEY=VALUE]

Prints the seconds of each step, and inside the steps of what they did, then the figures; with `--out DIR` all of them
go into DIR/figures.json as soon as a seed is done, so that a run that is stopped leaves what it had. Servers and
artifacts are of its own, in a temporary folder. `--users` takes a seeded sample of the users, for a try.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from servers import ROOT, own_servers, print_figures

from leadre.experiments.llm_alone import llm_alone
from leadre.pipelines.index.build import build_index
from leadre.pipelines.learning.release import make_release
from leadre.pipelines.summarize import summarize
from leadre.recipe import load_recipe
from leadre.store.importers.amazon import import_amazon
from leadre.store.records.database import migrate

NOW = datetime(2014, 8, 1, tzinfo=UTC)
"""After the last purchase."""


class Clock:
    """Seconds of steps, and inside a step of what reports progress: the time up to a report is that of the last one."""

    def __init__(self) -> None:
        self.steps: Counter[str] = Counter()
        self.inside: Counter[str] = Counter()
        self._step, self._what, self._at = "", "", time.perf_counter()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step."""
        began = self._at = time.perf_counter()
        self._step, self._what = name, "else"
        try:
            yield
        finally:
            self._take("")
            self.steps[name] += time.perf_counter() - began
            print(f"{name:<40}{self.steps[name]:>10.1f} s", flush=True)

    def report(self, what: str, done: int, total: int | None = None) -> None:  # noqa: ARG002 - the progress signature
        """Take the time since the last report."""
        if what != self._what:
            self._take(what)

    def _take(self, what: str) -> None:
        now = time.perf_counter()
        self.inside[f"{self._step}: {self._what}"] += now - self._at
        self._what, self._at = what, now


def sampled(data: Path, folder: Path, *, users: int, seed: int = 0) -> Path:
    """Write the events of some users, and the items they touched, into a folder; return it."""
    header, *rows = (data / "interactions.tsv").read_text().splitlines(keepends=True)
    everyone = sorted({row.split("\t", 1)[0] for row in rows})
    chosen = {everyone[at] for at in np.random.default_rng(seed).permutation(len(everyone))[:users]}
    kept = [row for row in rows if row.split("\t", 1)[0] in chosen]
    items = {int(row.split("\t")[1]) for row in kept}
    (folder / "interactions.tsv").write_text(header + "".join(kept))
    lines = (data / "items.jsonl").read_text().splitlines(keepends=True)
    (folder / "items.jsonl").write_text("".join(line for line in lines if json.loads(line)["item_id"] in items))
    return folder


def run(
    data: Path, recipe_path: Path, *, seeds: Sequence[int], device: str, overrides: Sequence[str], out: Path | None
) -> dict[str, Any]:
    """Run the pipeline and return the figures."""
    clock = Clock()
    recipe = load_recipe(recipe_path, overrides=tuple(overrides))
    figures: dict[str, Any] = {"recipe": recipe.name, "set": list(overrides), "device": device}
    with ExitStack() as stack:
        with clock.step("servers"):
            settings = stack.enter_context(own_servers(durable=False))
            url = settings.database_url
            migrate(url)
        with clock.step("import"):
            counts = import_amazon(data, database_url=url, now=NOW)
        with clock.step("summarize"):
            summarize(url, now=NOW, window_days=recipe.prompt.window_days)
        with clock.step("index"):
            index = build_index(
                database_url=url,
                indexes=settings.indexes,
                recipe=recipe.index,
                now=NOW,
                held_out=recipe.evaluation,
                progress=clock.report,
            )
        figures |= {"ads": len(index), "behaviors": counts.behaviors, "seeds": list(seeds), "releases": {}}
        folders = []
        for seed in seeds:
            name = f"s{seed}"
            of_seed = load_recipe(recipe_path, overrides=(*overrides, f"sft.seed={seed}"))
            with clock.step(f"train and evaluate, seed {seed}"):
                made = make_release(
                    database_url=url,
                    releases=settings.releases,
                    index=index,
                    recipe=of_seed,
                    now=NOW,
                    name=name,
                    device=device,
                    progress=clock.report,
                )
            folders.append(Path(made.uri))
            figures["releases"][name] = {
                "training": json.loads((folders[-1] / "metrics.json").read_text())["training"],
                "curve": json.loads((folders[-1] / "curves.json").read_text())[-60:],
                **made.metrics,
            }
            if recipe.collaborative.enabled:
                with clock.step("llm-alone"):
                    asked = llm_alone(
                        folders,
                        database_url=url,
                        indexes=settings.indexes,
                        now=NOW,
                        device=device,
                        progress=clock.report,
                    )
                figures["llm_alone"] = asked.to_json()
            figures |= {
                "seconds": {name: round(seconds, 1) for name, seconds in clock.steps.items()},
                "inside": {name: round(seconds, 1) for name, seconds in clock.inside.most_common() if seconds >= 0.1},
                "total_s": round(sum(clock.steps.values()), 1),
            }
            if out is not None:
                out.mkdir(parents=True, exist_ok=True)
                (out / "figures.json").write_text(json.dumps(figures, default=str))
        return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments, run, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="items.jsonl and interactions.tsv")
    parser.add_argument("recipe", type=Path, nargs="?", default=ROOT / "recipes" / "amazon_beauty.toml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--device", default="cpu", help="where releases are evaluated; training takes a GPU if it can")
    parser.add_argument("--users", type=int, default=0, help="a sample of so many users; 0: all")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", action="store_true", help="print all figures as one line of JSON at the end")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="leadre-beauty-") as scratch:
        data = sampled(asked.data, Path(scratch), users=asked.users) if asked.users else asked.data
        figures = run(
            data, asked.recipe, seeds=asked.seeds, device=asked.device, overrides=asked.overrides, out=asked.out
        )
    if asked.json:
        print(json.dumps(figures, default=str))
        return
    print("\nInside the steps, seconds:")
    print_figures({name: value for name, value in figures["inside"].items() if value >= 1}, as_json=False)
    print(f"\nIn all {figures['total_s']:,.0f} s. R@10 / N@10, last seed:")
    last = figures["releases"][f"s{asked.seeds[-1]}"]
    for system, views in last["metrics"].items():
        cells = [f"{view['HR@10']['mean']:.4f} / {view['NDCG@10']['mean']:.4f}" for view in views.values()]
        print(f"{system:<20}{'   '.join(cells)}")
    if "llm_alone" in figures:
        shown = {view: figures["llm_alone"][view] for view in ("canonical", "untied", "shuffled")}
        print(f"the LLM's share: {figures['llm_alone']['llm_share']:.2f}")
        for view, found in shown.items():
            print(f"{view}: " + json.dumps({name: value for name, value in found.items() if name != "intervals"}))


if __name__ == "__main__":
    main()
