"""How commands end: one line and an exit code, for every way to go wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import click
import pytest

from leadre.cli import cli, main
from leadre.cli.frame.ending import ended
from leadre.errors import ConfigError

ROOT = Path(__file__).parents[2]
LEADRE = [sys.executable, "-m", "leadre"]


def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str]:
    """Call leadre; return its exit code and what it said on standard error."""
    monkeypatch.setattr(sys, "argv", ["leadre", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["tarin"], "did you mean 'train'?"),
        (["services", "stauts"], "did you mean 'status'?"),
        (["index", "bild"], "did you mean 'build'?"),
        (["index", "xyzzy"], "there are add, build, check"),
        (["release", "list", "--jsn"], "--json"),
        (["index", "build", "--worker", "2"], "--workers"),
        (["import", "parquet"], "Missing argument 'FOLDER'"),
        (["serve", "engine", "--engine", "tensort"], "did you mean 'tensorrt'?"),
        (["experiment", "tabel1"], "did you mean 'table1'?"),
        (["completion", "bsah"], "did you mean 'bash'?"),
        (["evaluate", "--precision", "fp8x"], "is not one of 'fp32', 'bf16'; see"),
    ],
)
def test_what_is_typed_wrongly_is_one_line_with_a_hint(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], hint: str
) -> None:
    code, line = said(capsys, monkeypatch, *words)
    assert code == 2
    assert line.startswith("error: ")
    assert line.count("\n") == 1, line
    assert hint in line
    assert "--help`" in line


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("index.coeds=64", "did you mean index.codes?"),
        ("indx.codes=64", "did you mean index.codes?"),
        ("indx.a.b=64", "did you mean index?"),
        ("codes=64", "did you mean index.codes?"),
        ("sft.index.codes=64", "did you mean index.codes?"),
        ("index.codes", "write section.key=value"),
    ],
)
def test_a_misspelled_key_of_set_gets_a_hint(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str, hint: str
) -> None:
    monkeypatch.setenv("LEADRE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    monkeypatch.setenv("LEADRE_REDIS_URL", "redis://127.0.0.1:1/0")
    code, line = said(capsys, monkeypatch, "index", "build", str(ROOT / "recipes/demo.toml"), "--set", given)
    assert code == 1
    assert line.count("\n") == 1
    assert hint in line


def test_a_recipe_that_is_not_there_names_the_one_that_was_meant(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEADRE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    monkeypatch.setenv("LEADRE_REDIS_URL", "redis://127.0.0.1:1/0")
    code, line = said(capsys, monkeypatch, "index", "build", str(ROOT / "recipes/dmo.toml"))
    assert code == 1
    assert "demo.toml" in line
    assert line.count("\n") == 1


@pytest.mark.parametrize("command", [["queue"], ["queue", "revive"], ["ingest"], ["release", "list"], ["summarize"]])
def test_servers_that_are_down_are_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: list[str]
) -> None:
    monkeypatch.setenv("LEADRE_HOME", str(tmp_path))
    monkeypatch.setenv("LEADRE_DATABASE_URL", "postgresql://nobody:s3cret@127.0.0.1:1/nothing")
    monkeypatch.setenv("LEADRE_REDIS_URL", "redis://:s3cret@127.0.0.1:1/0")
    code, line = said(capsys, monkeypatch, *command)
    assert code == 1
    assert line.count("\n") == 1, line
    assert "s3cret" not in line


def test_a_file_that_cannot_be_written_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def write() -> None:
        (tmp_path / "missing" / "file").write_text("")

    assert ended(write) == 1
    assert capsys.readouterr().err == f"error: No such file or directory: {tmp_path}/missing/file\n"


def test_a_missing_package_names_the_command_that_installs_it(capsys: pytest.CaptureFixture[str]) -> None:
    def call() -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    assert ended(call) == 1
    assert 'pip install "leadre[model]"' in capsys.readouterr().err


def test_a_missing_module_of_nobodys_is_a_traceback() -> None:
    def call() -> None:
        raise ModuleNotFoundError("No module named 'xyzzy'", name="xyzzy")

    with pytest.raises(ModuleNotFoundError):
        ended(call)


def test_a_message_of_several_lines_becomes_one(capsys: pytest.CaptureFixture[str]) -> None:
    def call() -> None:
        raise ConfigError("one\ntwo [red]three[/]")

    assert ended(call) == 1
    assert capsys.readouterr().err == "error: one two [red]three[/]\n"


def test_a_question_that_is_not_answered_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    def call() -> None:
        raise click.Abort

    assert ended(call) == 1
    assert "--yes" in capsys.readouterr().err


@pytest.mark.parametrize(("value", "code"), [(None, 0), (3, 3), ("words", 1)])
def test_exit_codes_of_commands_pass(value: object, code: int) -> None:
    def call() -> None:
        raise SystemExit(value)

    assert ended(call) == code


def test_ctrl_c_is_one_line_and_130(environment: dict[str, str], tmp_path: Path) -> None:
    """SIGINT to a command that reads standard input, as a terminal sends it."""
    process = subprocess.Popen(
        [*LEADRE, "ids", "encode", "-"],
        env={**environment, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As in a terminal: who started the tests in the background made them ignore it, and children inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline()  # the heading: it waits for ids now
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert error.strip() == "stopped; what is finished stays, the same command goes on from there"


@pytest.mark.parametrize("command", [["--help"], ["ids", "encode", "-"], ["index", "build", "--help"]])
def test_a_reader_that_leaves_is_not_told_of(environment: dict[str, str], command: list[str]) -> None:
    """As `leadre … | head`: the pipe is closed before, or while, the command writes."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*LEADRE, *command],
        env={**environment, "PYTHONPATH": str(ROOT)},
        input="\n".join(map(str, range(20_000))),
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert done.stderr == ""
    assert done.returncode == 141


def test_completion_scripts_are_those_of_the_shells() -> None:
    from click.testing import CliRunner

    for shell, word in (("bash", "complete -o nosort"), ("zsh", "#compdef leadre"), ("fish", "complete --no-files")):
        done = CliRunner().invoke(cli, ["completion", shell])
        assert done.exit_code == 0, done.output
        assert word in done.output


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("leadre i", {"init", "import", "index", "ids", "ingest"}),
        ("leadre services s", {"status"}),
        ("leadre index build --ra", {"--ray-address"}),
        ("leadre completion ", {"bash", "zsh", "fish"}),
    ],
)
def test_tab_completes_commands_options_and_values(typed: str, wanted: set[str]) -> None:
    environment = {"_LEADRE_COMPLETE": "bash_complete", "COMP_WORDS": typed, "PYTHONPATH": str(ROOT)}
    environment["COMP_CWORD"] = str(typed.count(" "))
    program = "import sys; sys.argv = ['leadre']; from leadre.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == wanted, done


def test_tab_after_leadre_imports_no_command() -> None:
    program = (
        "import sys; from leadre.cli import cli; from click.shell_completion import ShellComplete;"
        "found = ShellComplete(cli, {}, 'leadre', '_LEADRE_COMPLETE').get_completions([], '');"
        "import json; print(json.dumps([len(found), [name for name in sys.modules if name.startswith('leadre.')]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    count, modules = json.loads(done.stdout)
    assert count > 20
    assert set(modules) == {
        "leadre.cli",
        "leadre.cli.frame",
        "leadre.cli.frame.command",
        "leadre.errors",
        "leadre.names",
        "leadre.threads",
    }


def test_an_import_of_every_command_loads_nothing_heavy() -> None:
    """What `leadre index --help` or tab after `leadre index` waits for."""
    program = (
        "import sys; from leadre.cli import _COMMANDS, cli; import click;"
        "context = click.Context(cli);"
        "[cli.get_command(context, name) for name in _COMMANDS];"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    heavy = {
        "torch",
        "feast",
        "transformers",
        "sqlalchemy",
        "pandas",
        "pyarrow",
        "scipy",
        "celery",
        "matplotlib",
        "redis",
    }
    assert not heavy & set(done.stdout.split())
