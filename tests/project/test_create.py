"""`leadre init`: whole or not at all, nothing overwritten, and no setting forgotten."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from click.testing import CliRunner

import leadre.project
import leadre.settings
from leadre.cli import cli
from leadre.errors import ConfigError
from leadre.project import create, project_file
from leadre.project.create import create_project
from leadre.settings import Settings

ROOT = Path(__file__).parents[2]
URLS = {"LEADRE_DATABASE_URL": "postgresql://u:p@h/n", "LEADRE_REDIS_URL": "redis://h"}


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_project_holds_the_feature_repository_and_the_recipes_as_they_are(tmp_path: Path) -> None:
    names = create_project(tmp_path / "my ads")
    made = files(tmp_path / "my ads")
    assert {name.rstrip("/") for name in names} == {path.name for path in (tmp_path / "my ads").iterdir()}
    for folder in ("feature_repo", "recipes"):
        ours = {f"{folder}/{name}": content for name, content in files(ROOT / folder).items()}
        assert {name: made[name] for name in made if name.startswith(folder)} == ours


def test_what_comes_from_a_read_only_installation_can_be_edited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    for name in ("feature_repo", "recipes"):
        shutil.copytree(ROOT / name, site / name)
        for path in (site / name, *(site / name).iterdir()):
            path.chmod(0o555)
    shutil.copy(ROOT / "alembic.ini", site)
    monkeypatch.setattr(leadre.project, "IN_WHEEL", site)
    create_project(tmp_path / "project")
    made = [tmp_path / "project", *(tmp_path / "project").rglob("*")]
    assert [path for path in made if not path.stat().st_mode & 0o200] == []


def test_its_alembic_ini_finds_the_package_s_migrations(tmp_path: Path) -> None:
    create_project(tmp_path / "100 % ads")
    found = ScriptDirectory.from_config(Config(tmp_path / "100 % ads" / "alembic.ini"))
    assert Path(found.dir) == project_file("migrations")
    assert found.get_heads() == ScriptDirectory.from_config(Config(ROOT / "alembic.ini")).get_heads()


@pytest.mark.parametrize("there", ["README.md", ".env.example", "feature_repo"])
def test_nothing_is_overwritten(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(ConfigError, match=rf"has {re.escape(there)}.*: nothing is overwritten, take an empty folder"):
        create_project(tmp_path)
    assert files(tmp_path) == {there: b"mine"}


def test_a_link_to_nothing_is_something_too(tmp_path: Path) -> None:
    (tmp_path / "README.md").symlink_to("nowhere")
    with pytest.raises(ConfigError, match="nothing is overwritten"):
        create_project(tmp_path)


def test_a_folder_that_holds_other_things_becomes_a_project(tmp_path: Path) -> None:
    (tmp_path / "ads.csv").write_text("ad_id")
    create_project(tmp_path)
    assert files(tmp_path).keys() >= {"ads.csv", "workers/app.py", "recipes/demo.toml"}


@pytest.mark.parametrize("existing", [True, False])
def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, existing: bool) -> None:
    folder = tmp_path if existing else tmp_path / "deep" / "er"
    real = Path.rename

    def full(self: Path, target: Path) -> Path:
        if target.name == "workers":
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(ConfigError, match="No space left on device; take another folder"):
        create_project(folder)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_folder_s_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(cli, ["init", str(tmp_path / "file")])
    assert isinstance(done.exception, ConfigError)
    assert "take another folder" in str(done.exception)
    assert "\n" not in str(done.exception)


def test_the_example_names_every_setting_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (create.NEW / "env.example").read_text()
    example = dict(re.findall(r"^#(LEADRE_\w+)=(.*)$", text, flags=re.MULTILINE))
    source = Path(leadre.settings.__file__).read_text()
    read = set(re.findall(r'(?:env\.get\(|env, )"(LEADRE_\w+)"', source)) | URLS.keys()
    assert len(read) >= 11
    assert example.keys() == read
    assert Settings.from_environment({**example, **URLS}) == Settings.from_environment(URLS)


def test_the_example_is_a_shell_s_and_changes_nothing_as_it_is() -> None:
    text = (create.NEW / "env.example").read_text()
    assert [line for line in text.splitlines() if line and not line.startswith("#")] == []
    uncommented = re.sub(r"^#(LEADRE_)", r"\1", text, flags=re.MULTILINE)
    shell = ["sh", "-euc", f"set -a\n{uncommented}\necho $LEADRE_LEASE_S"]
    assert subprocess.run(shell, capture_output=True, text=True, check=True).stdout == "4\n"


def test_the_operations_page_lists_the_same_settings() -> None:
    text = (create.NEW / "env.example").read_text()
    page = (ROOT / "docs/operations.md").read_text()
    assert set(re.findall(r"^\| `(LEADRE_\w+)` \|", page, flags=re.MULTILINE)) == set(
        re.findall(r"^#(LEADRE_\w+)=", text, flags=re.MULTILINE)
    )


def test_git_is_told_to_leave_out_data_and_secrets(tmp_path: Path) -> None:
    create_project(tmp_path)
    for name in (".env", ".leadre/services.json", ".leadre/services/redis.conf"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("secret")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    seen = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=all"], cwd=tmp_path, capture_output=True, text=True
    ).stdout
    assert "secret" not in seen
    assert {line[3:] for line in seen.splitlines()} >= {".env.example", "feature_repo/entities.py"}
    assert not [line for line in seen.splitlines() if ".leadre/" in line or line.endswith(".env")]


def test_the_readme_is_ten_lines_and_names_only_commands_there_are() -> None:
    text = (create.NEW / "README.md").read_text()
    assert 10 <= len(text.splitlines()) <= 12
    for command in re.findall(r"leadre ([a-z-]+)", text.partition("\n")[2]):
        if command != "project":
            assert CliRunner().invoke(cli, [command, "--help"]).exit_code == 0, command


def test_the_project_s_workers_are_the_installed_ones(tmp_path: Path) -> None:
    create_project(tmp_path / "project")
    site = tmp_path / "site"  # what an installation is like: `workers` is another's, ours is `leadre_workers`
    shutil.copytree(ROOT / "workers", site / "leadre_workers", ignore=shutil.ignore_patterns("__pycache__"))
    (site / "workers").mkdir()
    (site / "workers/__init__.py").write_text("raise RuntimeError('the workers of somebody else')")
    shutil.copytree(ROOT / "leadre", site / "leadre", ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "from celery.app.utils import find_app\n"
        "app = find_app('workers.app')\n"
        "app.loader.import_default_modules()\n"
        "import sys\n"
        "print(*sorted(name for name in app.tasks if not name.startswith('celery.')))\n"
        "print(sys.modules['leadre_workers.app'].app is app, 'workers.retrieval' in sys.modules)"
    )
    environment = {**os.environ, **URLS, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "project", env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    tasks, apps = done.stdout.splitlines()
    assert apps == "True False"
    assert tasks.split() == [
        "workers.dataset.make_past_lists",
        "workers.distribution.distribute",
        "workers.distribution.measure_freshness",
        "workers.features.check_drift",
        "workers.features.check_state",
        "workers.indexing.index_new_ads",
        "workers.ingest.look_after",
        "workers.materialization.drop_old_months",
        "workers.materialization.materialize",
        "workers.materialization.materialize_shard",
        "workers.materialization.reconcile",
        "workers.materialization.summarize",
        "workers.retrieval.refresh_users",
        "workers.retrieval.revive_dead",
        "workers.training.train_daily",
    ]
