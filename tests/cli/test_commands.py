"""The command line: light help, one-line errors with a remedy, hints for typing errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from leadre.cli import _COMMANDS, cli, main
from leadre.settings import Settings

LEADRE = Path(sys.executable).with_name("leadre")


@pytest.fixture
def typed(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        if name.startswith("LEADRE_"):
            monkeypatch.setenv(name, value)


def test_help_loads_no_heavy_library() -> None:
    program = (
        "import sys; from click.testing import CliRunner; from leadre.cli import cli;"
        "assert CliRunner().invoke(cli, ['--help']).exit_code == 0;"
        "heavy = {'torch', 'feast', 'sqlalchemy', 'transformers', 'pandas', 'matplotlib'} & set(sys.modules);"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", list(_COMMANDS))
def test_every_command_has_help(command: str) -> None:
    done = CliRunner().invoke(cli, [command, "--help"])
    assert done.exit_code == 0, done.output
    assert len(done.output.splitlines()) >= 4


def test_a_misspelled_command_gets_a_hint() -> None:
    done = CliRunner().invoke(cli, ["evalaute"])
    assert done.exit_code == 2
    assert "did you mean 'evaluate'?" in done.output


def test_without_servers_a_command_says_in_one_line_how_to_start_them(tmp_path: Path) -> None:
    done = subprocess.run(
        [LEADRE, "release", "list"], env={"LEADRE_HOME": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "`leadre services up`" in done.stderr


def test_the_environment_is_printed_for_a_shell(typed: None, settings: Settings) -> None:
    done = CliRunner().invoke(cli, ["env"])
    assert done.exit_code == 0
    lines = dict(line.removeprefix("export ").split("=", 1) for line in done.output.splitlines())
    assert lines["LEADRE_DATABASE_URL"].strip("'") == settings.database_url
    assert "LEADRE_FEAST_REGISTRY_URL" in lines


def test_an_unknown_recipe_key_is_one_line_that_names_it(
    typed: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = tmp_path / "wrong.toml"
    recipe.write_text("[index]\ncoeds = 64\n")
    monkeypatch.setattr(sys, "argv", ["leadre", "index", "build", str(recipe)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    said = capsys.readouterr().err.strip()
    assert "coeds" in said
    assert "\n" not in said


def test_an_empty_catalog_is_said_so(
    typed: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["leadre", "index", "build", "recipes/demo.toml"])
    with pytest.raises(SystemExit):
        main()
    assert "`leadre import`" in capsys.readouterr().err


def test_promoting_without_any_release_says_what_makes_one(
    typed: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["leadre", "release", "promote"])
    with pytest.raises(SystemExit):
        main()
    assert "`leadre train` makes one" in capsys.readouterr().err


def test_a_missing_index_is_said_so(
    typed: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["leadre", "index", "show", "--json"])
    with pytest.raises(SystemExit):
        main()
    assert "leadre index build" in capsys.readouterr().err


def test_importing_a_folder_twice_prints_the_same_counts(typed: None, tmp_path: Path) -> None:
    (tmp_path / "ads.csv").write_text("ad_id,name,ad_type,first_category,second_category\n1,Sofa,Home,Home,Furniture\n")
    (tmp_path / "users.csv").write_text("user_id,age\n5,30\n")
    (tmp_path / "behaviors.csv").write_text(
        "user_id,domain,action,item_id,occurred_at\n5,ad,click,1,2025-01-01T00:00:00+00:00\n"
    )
    printed = [CliRunner().invoke(cli, ["import", "parquet", str(tmp_path)]) for _ in range(2)]
    assert [done.exit_code for done in printed] == [0, 0], printed[0].output
    assert "behaviors" in printed[0].output


def test_an_import_says_what_it_recognised_what_it_left_out_and_where_that_is_listed(
    typed: None, settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "ads.csv").write_bytes("ad_id;name\nSKU-1;Crème\n".encode("latin-1"))
    (folder / "users.csv").write_text("uid\nann\n")
    rows = ["ann;SKU-1;1748781000000", "ann;SKU-2;1748781000001", "eve;SKU-1;1748781000002", "ann;SKU-1;never"]
    lines = [f"ad;click;{row}" for row in rows]
    (folder / "behaviors.csv").write_text("\n".join(["domain;action;uid;item_id;at", *lines, ""]))
    options = ["--encoding", "latin-1", "--columns", "user_id=uid,occurred_at=at", "--on-bad-row", "skip"]
    options += ["--max-bad-share", "0.5", "--unknown-ads", "content", "--time-zone", "Europe/Berlin"]
    done = CliRunner().invoke(cli, ["import", "parquet", str(folder), *options])
    assert done.exit_code == 0, done.output
    (rejected,) = settings.home.glob("imports/log-*/rejected.csv")
    said = " ".join(done.output.split())
    for words in (
        "behaviors: values separated by semicolons, latin-1",
        "behaviors.occurred_at: numbers are Unix milliseconds (recognised by their size; --time-unit sets it)",
        "behaviors 2",
        "1 behaviors of unknown ads became ones of the content domain",
        "behaviors bad_time 1",
        "behaviors unknown_user 1",
        str(rejected),
    ):
        assert words in said
    assert rejected.read_text(encoding="utf-8").count("behaviors.csv,") == 2


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--time-zone", "Europe/Berln", "did you mean Europe/Berlin"),
        ("--encoding", "klingon", "there is no text encoding 'klingon'"),
        ("--columns", "usr_id=uid", "did you mean 'user_id'"),
    ],
)
def test_an_import_option_that_cannot_be_is_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    option: str,
    value: str,
    said: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["leadre", "import", "parquet", str(tmp_path), option, value])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error


def test_releases_are_listed_as_a_table_even_when_there_are_none(typed: None) -> None:
    done = CliRunner().invoke(cli, ["release", "list"])
    assert done.exit_code == 0
    assert "Releases" in done.output


def test_a_taken_release_name_is_one_line_not_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(*, prog_name: str, standalone_mode: bool) -> None:
        raise FileExistsError("releases/tiny exists; give the new one its own name")

    monkeypatch.setattr("leadre.cli.cli", taken)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "error: releases/tiny exists; give the new one its own name\n"


def test_a_summary_of_the_future_is_refused(typed: None) -> None:
    done = CliRunner().invoke(cli, ["summarize", "--now", "2999-01-01"])
    assert "--now 2999-01-01T00:00:00+00:00 is in the future" in str(done.exception)
