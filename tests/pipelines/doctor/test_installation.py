"""The installation: extras that are missing, settings that cannot work, variables that nobody reads."""

from __future__ import annotations

import tomllib
from pathlib import Path

from leadre.pipelines.doctor import installation
from leadre.project.extras import EXTRAS, ON_ONE_MACHINE, extra_of, install

HERE = {
    "LEADRE_DATABASE_URL": "postgresql://u:secret@db:5432/leadre",
    "LEADRE_REDIS_URL": "redis://:secret@cache:6379/0",
}
ROOT = Path(__file__).parents[3]


def test_here_all_extras_are_installed_and_the_versions_that_matter_are_said() -> None:
    (found,) = installation.extras()
    assert found.state == "ok", found
    for package in ("feast", "torch", "celery"):
        assert f"{package} " in found.said


def test_with_the_core_alone_one_command_installs_everything() -> None:
    (found,) = installation.extras({module for modules in EXTRAS.values() for module in modules})
    assert found.state == "fault"
    assert found.run == 'pip install "leadre[all]"'


def test_each_extra_that_is_not_whole_is_named_with_its_command() -> None:
    found = {it.run: it for it in installation.extras({"torch", "pyarrow"})}
    assert found[install("store")].state == "fault"
    assert "no pyarrow" in found[install("store")].said
    assert found[install("model")].state == "warning"


def test_the_table_of_extras_is_of_those_that_pyproject_has() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(EXTRAS) <= set(declared)
    assert set(ON_ONE_MACHINE) <= set(declared)
    names = {"faiss": "faiss-cpu", "sklearn": "scikit-learn", "psycopg2": "psycopg2-binary", "ibis": "ibis-framework"}
    for extra, modules in EXTRAS.items():
        wanted = " ".join(declared[extra]).lower().replace("_", "-")
        for module in modules:
            assert names.get(module, module).replace("_", "-").partition(".")[0] in wanted, (extra, module)
    assert extra_of("torch.nn") == "model"
    assert extra_of("nothing_of_ours") is None


def test_without_servers_the_settings_say_how_to_start_them(tmp_path: Path) -> None:
    settings, found = installation.settings({"LEADRE_HOME": str(tmp_path)})
    assert settings is None
    assert (found.state, found.run) == ("fault", "leadre services up")


def test_a_setting_out_of_range_is_a_fault_that_shows_no_password() -> None:
    settings, found = installation.settings({**HERE, "LEADRE_BEAM_WIDTH": "0"})
    assert settings is None
    assert "LEADRE_BEAM_WIDTH=0 is out of range" in found.said
    assert "secret" not in found.said


def test_a_misspelled_variable_is_noticed_and_all_that_are_documented_are_known() -> None:
    (found,) = installation.unknown_variables({"LEADRE_DATABSE_URL", "LEADRE_HOME", "PATH"})
    assert (found.state, found.run) == ("warning", "unset LEADRE_DATABSE_URL")
    assert "did you mean LEADRE_DATABASE_URL?" in found.said
    words = (ROOT / "docs" / "operations.md").read_text().replace("`", " ").split()
    documented = {word for word in words if word.startswith("LEADRE_") and word.replace("_", "").isalpha()}
    assert documented
    assert installation.unknown_variables(documented) == []


def test_a_folder_that_is_no_project_says_what_makes_one(tmp_path: Path) -> None:
    assert installation.project(ROOT / "feature_repo").state == "ok"
    found = installation.project(tmp_path)
    assert found.state == "fault"
    assert found.run.startswith("leadre init")


def test_commands_that_are_not_on_the_path_are_named(tmp_path: Path) -> None:
    found = installation.commands(str(tmp_path))
    assert found.state == "warning"
    assert "feast, alembic, celery" in found.said
