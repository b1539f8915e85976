"""What the LLM is worth, over a real database: the figures are those of an evaluation, and groups add up."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console
from sqlalchemy import text

from leadre.cli.experiments import llm_alone as printed
from leadre.cli.experiments.experiment import experiment
from leadre.collaborative.blend import Collaborative
from leadre.decoding.combined.ranker import Ranker
from leadre.errors import ConfigError, InvalidInput
from leadre.experiments.llm_alone import GROUPS, VIEWS, LlmAlone, llm_alone
from leadre.indexing.ad_index import AdIndex
from leadre.pipelines.index.build import build_index
from leadre.pipelines.learning.release import evaluate_release
from leadre.pipelines.learning.train import train
from leadre.pipelines.results import read_results
from leadre.recipe import (
    CollaborativeRecipe,
    DecodingRecipe,
    DpoRecipe,
    EvaluationRecipe,
    IndexRecipe,
    ModelRecipe,
    PromptRecipe,
    Recipe,
    SasRecRecipe,
    SftRecipe,
    encode_recipe,
)
from leadre.services import Services
from leadre.store.importers.synthetic import import_world
from leadre.store.records.database import connect, transaction
from leadre.store.release.records import record_release
from leadre.synthetic import make_world
from tests.conftest import _administer, _url

WORLD = make_world(seed=2, ads=96, users=60, sessions=4, slate=3)
TINY = SasRecRecipe(width=16, layers=1, heads=2, positions=9, epochs=2, batch_size=16)
RECIPE = Recipe(
    name="tiny",
    index=IndexRecipe(encoder="hashed", quantiser="residual_kmeans", levels=2, codes=16),
    prompt=PromptRecipe(template="one_pass", budget_tokens=1200),
    model=ModelRecipe(hidden_size=16, layers=1, heads=2, feed_forward=20, text_vocabulary=500),
    sft=SftRecipe(curriculum=(("main",),), epochs=(1.0,), learning_rate=1e-3, batch_size=16, device_batch_size=16),
    dpo=DpoRecipe(enabled=False),
    decoding=DecodingRecipe(beam_width=12, seen="leave_out"),
    collaborative=CollaborativeRecipe(enabled=True, weight=0.4, sasrec=TINY),
    evaluation=EvaluationRecipe(cutoffs=(10,), max_users=15, baselines=("collaborative",)),
)


@pytest.fixture(scope="module")
def module_database_url(services: Services, template_database: str) -> Iterator[str]:
    """A database for all tests of this file."""
    name = "llm_alone"
    _administer(services, f"CREATE DATABASE {name} TEMPLATE {template_database} STRATEGY file_copy")
    yield _url(services, name)
    _administer(services, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, module_database_url: str) -> tuple[str, Path]:
    """A database and a home with two releases: the second gives the signal no say."""
    home = tmp_path_factory.mktemp("home")
    import_world(WORLD, database_url=module_database_url)
    tie_held_out_ads(module_database_url)
    index = build_index(database_url=module_database_url, indexes=home / "indexes", recipe=RECIPE.index, now=WORLD.now)
    first = train(
        database_url=module_database_url,
        releases=home / "releases",
        index=index,
        recipe=RECIPE,
        now=WORLD.now,
        name="s0",
    ).folder
    second = shutil.copytree(first, first.with_name("s1"))
    about = (second / "collaborative.json").read_text()
    (second / "collaborative.json").write_text(about.replace('"weight": 0.4', '"weight": 0.0'))
    return module_database_url, home


def tie_held_out_ads(url: str) -> None:
    """Let two of three users' last two ads have happened at one instant."""
    statement = """
        WITH places AS (
            SELECT behavior_id, lag(occurred_at) OVER oldest AS before,
            count(*) OVER everything - row_number() OVER oldest AS after
            FROM behaviors WHERE domain = 'ad' AND action = ANY(:positive)
            WINDOW oldest AS (PARTITION BY user_id ORDER BY occurred_at, ordinal, behavior_id),
            everything AS (PARTITION BY user_id)
        )
        UPDATE behaviors b SET occurred_at = before, ordinal = ordinal + 1000
        FROM places WHERE b.behavior_id = places.behavior_id AND after = 0 AND before IS NOT NULL AND user_id % 3 > 0
    """
    database = connect(url)
    with transaction(database) as connection:
        connection.execute(text(statement), {"positive": ["click", "conversion"]})
    database.dispose()


def ask(made: tuple[str, Path], *names: str, users: int | None = None) -> LlmAlone:
    url, home = made
    folders = [home / "releases" / name for name in names]
    return llm_alone(folders, database_url=url, indexes=home / "indexes", now=WORLD.now, max_users=users)


@pytest.fixture(scope="module")
def alone(made: tuple[str, Path]) -> LlmAlone:
    return ask(made, "s0")


@pytest.fixture(scope="module")
def both(made: tuple[str, Path]) -> LlmAlone:
    return ask(made, "s0", "s1")


def test_the_figures_are_those_of_an_evaluation(made: tuple[str, Path], alone: LlmAlone) -> None:
    (url, home), found = made, alone
    folder = home / "releases" / "s0"
    index = AdIndex.load(next((home / "indexes").glob("[!.]*")))
    unfused, fused = (
        evaluate_release(folder, database_url=url, index=index, now=WORLD.now, collaborative_weight=share)
        for share in (0.0, None)
    )
    assert found.users == fused.users == 15
    assert 0 < found.tied == fused.tied < 15
    for view in VIEWS:
        for metric, name in (("HR@10", "r10"), ("NDCG@10", "n10")):
            means = {system: found.views[view].means[f"{system}_{name}"].mean for system in ("llm", "fused", "signal")}
            assert means["llm"] == pytest.approx(unfused.mean(metric, view=view))
            assert means["fused"] == pytest.approx(fused.mean(metric, view=view))
            assert means["signal"] == pytest.approx(fused.mean(metric, view=view, system="collaborative"))
            assert found.views[view].fused_minus_signal[name].mean == pytest.approx(means["fused"] - means["signal"])
    canonical = found.views["canonical"]
    assert canonical.groups["cold"].users == fused.slices["cold_ads"].users > 0
    assert canonical.groups["cold"].r10["fused"].mean == pytest.approx(
        fused.slices["cold_ads"].metrics["leadre"]["HR@10"].mean
    )
    assert all(view.groups["cold"].r10["signal"].mean == 0.0 for view in found.views.values())


def test_groups_by_transition_add_up_to_all_users(alone: LlmAlone) -> None:
    for view in alone.views.values():
        parts = [view.groups["seen_transition"], view.groups["unseen_transition"]]
        users = sum(part.users for part in parts)
        for system in ("llm", "fused", "signal"):
            total = sum(part.users * part.r10[system].mean for part in parts)
            assert total == pytest.approx(users * view.means[f"{system}_r10"].mean)


def test_several_releases_have_a_mean_and_a_spread(alone: LlmAlone, both: LlmAlone) -> None:
    assert both.llm_shares == pytest.approx((0.6, 1.0))
    plain, one = both.to_json(), alone.to_json()
    for name in ("llm_r10", "fused_r10", "fused_n10", "signal_n10"):
        first, mean = one["shuffled"][name], plain["shuffled"][name]
        assert plain["shuffled"][f"{name}_sd"] == pytest.approx(2 * abs(first - mean) / 2**0.5)
    assert plain["shuffled"]["fused_n10_sd"] > plain["shuffled"]["llm_n10_sd"] == 0.0
    assert not any(name.endswith("_sd") for name in one)


def test_of_a_ranker_the_share_is_what_it_gives_the_llm_on_average(made: tuple[str, Path], tmp_path: Path) -> None:
    url, home = made
    folder = shutil.copytree(home / "releases" / "s1", tmp_path / "ranked")  # whose signal has no say in the beam
    (folder / "ranker.json").write_text(json.dumps(Ranker.of_weight(0.3).to_json()))
    found = llm_alone([folder], database_url=url, indexes=home / "indexes", now=WORLD.now)
    index = AdIndex.load(next((home / "indexes").glob("[!.]*")))
    served = evaluate_release(folder, database_url=url, index=index, now=WORLD.now)
    assert found.llm_shares == pytest.approx((0.7,))
    assert found.views["canonical"].means["fused_n10"].mean == pytest.approx(served.mean("NDCG@10", view="canonical"))


def test_releases_of_different_users_do_not_compare_and_a_release_without_a_signal_has_nothing_to_compare(
    made: tuple[str, Path], tmp_path: Path
) -> None:
    url, home = made
    other = shutil.copytree(home / "releases" / "s0", tmp_path / "other")
    recipe = (other / "recipe.toml").read_text()
    (other / "recipe.toml").write_text(recipe.replace("max_users = 15", "max_users = 14"))
    folders = [home / "releases" / "s0", other]
    with pytest.raises(InvalidInput, match="other is evaluated on other users or ads than s0"):
        llm_alone(folders, database_url=url, indexes=home / "indexes", now=WORLD.now)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Collaborative, "load", lambda _: None)
        with pytest.raises(InvalidInput, match="other has no collaborative signal"):
            llm_alone([other], database_url=url, indexes=home / "indexes", now=WORLD.now)


def test_the_command_prints_one_line_of_json_with_every_figure(
    made: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, home = made
    monkeypatch.setenv("LEADRE_HOME", str(home))
    monkeypatch.setenv("LEADRE_DATABASE_URL", url)
    monkeypatch.setenv("LEADRE_REDIS_URL", "redis://localhost:1/0")
    database = connect(url)
    with transaction(database) as connection:
        for name in ("s0", "s1"):
            record_release(
                connection,
                name,
                index_version=next((home / "indexes").glob("[!.]*")).name,
                uri=str(home / "releases" / name),
                recipe=encode_recipe(RECIPE),
                metrics={},
                trained_until=WORLD.now,
            )
    database.dispose()
    now = ["--now", WORLD.now.isoformat()]
    done = CliRunner().invoke(experiment, ["llm-alone", "--release", "s0", "--users", "11", "--json", *now])
    assert done.exit_code == 0, done.output
    plain = json.loads(done.stdout.splitlines()[-1])
    systems = [f"{system}_{metric}" for system in ("llm", "fused", "signal") for metric in ("r10", "n10")]
    for view in (plain, *(plain[name] for name in VIEWS)):
        assert set(systems) <= set(view)
        assert set(view["fused_minus_signal"]) == {"mean", "low", "high"}
        for group in GROUPS:
            assert set(view[f"{group}_r10"]["llm"]) == {"mean", "low", "high"}
    assert plain["llm_share"] == pytest.approx(0.6)
    assert plain["users"] == 11
    kept = read_results(home)["llm-alone"]
    assert (kept.problem, kept.figures["users"], kept.figures["fused_r10"]) == ("", 11, plain["fused_r10"])
    for wrong, said in (
        (["llm-alone", "--release", "s9"], "there is no release 's9'; `leadre release list`"),
        (["llm-alone", "--set", "sft.seed=1"], "no --set"),
        (["table1", "--users", "3"], "--users is for llm-alone"),
        (["figure5", "--release", "s0", "--release", "s1"], "one release"),
    ):
        refused = CliRunner().invoke(experiment, [*wrong, *now])
        assert isinstance(refused.exception, ConfigError)
        assert said in str(refused.exception)


def test_people_read_tables(both: LlmAlone, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(width=200, record=True)
    monkeypatch.setattr(printed, "console", console)
    monkeypatch.setattr("leadre.cli.terminal.console", console)
    printed.print_llm_alone(both)
    said = console.export_text()
    for words in ("the LLM's share of the fused score: 60%, 100%", "SD between releases", "fused − signal, R@10"):
        assert words in said
    assert "unseen_transition, shuffled" in said
