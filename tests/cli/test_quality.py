"""What every command owes its user: help with an example that works, `--json` where there are figures, a light start.

The whole tree is walked, so a new command is held to the same.
"""

from __future__ import annotations

import ast
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from leadre.cli import _COMMANDS, cli
from leadre.cli.command import Command, Group, split_help

SAYS_NO_FIGURES = {
    "leadre init": "writes files",
    "leadre demo": "a walk for people",
    "leadre services up": "starts servers",
    "leadre services down": "stops servers",
    "leadre env": "prints lines for a shell",
    "leadre completion": "prints a script",
    "leadre serve user-server": "serves",
    "leadre serve mixer": "serves",
    "leadre serve engine": "serves",
    "leadre keys new": "prints a line for a file",
    "leadre console": "serves",
}
"""Commands that need no `--json`, and why."""


def walk(command: click.Command, path: tuple[str, ...] = ("leadre",)) -> Iterator[tuple[str, click.Command]]:
    """Yield every command of the tree with the words that call it."""
    yield " ".join(path), command
    if isinstance(command, click.Group):
        with click.Context(command, info_name=path[-1]) as context:
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None
                yield from walk(found, (*path, name))


TREE = dict(walk(cli))
LEAVES = {
    path: each
    for path, each in TREE.items()
    if not isinstance(each, click.Group) or each.invoke_without_command  # `leadre queue` is both
}


def parse(words: list[str]) -> None:
    """Run words through click's parsers, as far as the last command's; nothing is called."""
    context = cli.make_context("leadre", words)
    rest = [*context._protected_args, *context.args]
    while isinstance(context.command, click.Group) and rest:
        name, found, rest = context.command.resolve_command(context, rest)
        assert found is not None
        context = found.make_context(name, rest, parent=context)
        rest = [*context._protected_args, *context.args] if isinstance(found, click.Group) else []


@pytest.mark.parametrize("path", TREE)
def test_every_command_is_made_by_ours(path: str) -> None:
    assert isinstance(TREE[path], Command | Group), (
        f"`{path}` is made by click itself: write @command() or @group() of leadre.cli.command above it, "
        "which bring examples and hints for typing errors"
    )


@pytest.mark.parametrize("path", TREE)
def test_every_command_has_help_that_ends_with_examples(path: str) -> None:
    text, examples = split_help(TREE[path].help)
    assert text.strip(), f"`{path}` has no help: write a docstring"
    assert examples, f"`{path}` has no example: end its docstring with a paragraph `Example: {path} …`"
    shown = TREE[path].get_help(click.Context(TREE[path], info_name=path, max_content_width=80))
    assert "\nExample" in shown
    for example in examples:
        assert f"  {example}\n" in f"{shown}\n", f"`{path}` --help breaks the example {example!r}"


@pytest.mark.parametrize("path", TREE)
def test_every_example_is_a_command_that_parses(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: Path(value))  # no file need be there
    _, examples = split_help(TREE[path].help)
    calls = [call for example in examples for call in _calls(example)]
    assert calls, f"no example of `{path}` calls leadre"
    for words in calls:
        try:
            parse(words)
        except click.ClickException as error:
            pytest.fail(
                f"the example `leadre {shlex.join(words)}` of `{path}` does not parse: {error.format_message()}"
            )


def _calls(example: str) -> Iterator[list[str]]:
    """Yield the arguments of each call of leadre in a line of shell."""
    inner = example.replace('eval "$(', "").replace(')"', "")
    for part in inner.replace("&&", "|").split("|"):
        words = shlex.split(part, comments=True)
        words = words[: next((at for at, word in enumerate(words) if word.startswith(">")), len(words))]
        while words and ("=" in words[0] or words[0] == "accelerate"):  # variables; accelerate launch -m leadre …
            words = words[words.index("-m") + 1 :] if words[0] == "accelerate" else words[1:]
        if words and words[0] == "leadre":
            yield words[1:]


@pytest.mark.parametrize("path", LEAVES)
def test_every_option_says_what_it_is(path: str) -> None:
    for parameter in LEAVES[path].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"`{path}` does not say what {parameter.opts[-1]} is: give the option help="


@pytest.mark.parametrize("path", sorted(LEAVES.keys() - SAYS_NO_FIGURES.keys()))
def test_every_command_that_prints_figures_or_lists_has_json(path: str) -> None:
    options = {name for parameter in LEAVES[path].params for name in parameter.opts}
    assert "--json" in options, (
        f"`{path}` has no --json: put @json_option of leadre.cli.terminal above it and answer with print_json; "
        "where it prints no figures and no lists, add it to SAYS_NO_FIGURES with the reason"
    )


@pytest.mark.parametrize("name", _COMMANDS)
def test_the_line_in_the_list_is_short(name: str) -> None:
    assert len(_COMMANDS[name][2]) <= 80
    assert _COMMANDS[name][2].endswith(".")


def test_one_thing_has_one_option_name() -> None:
    """`--json`, `--now`, `--set`, `--release`, … mean one thing, take one kind of value and are said alike."""
    kinds: dict[str, dict[str, list[str]]] = {}
    for path, each in LEAVES.items():
        for parameter in each.params:
            for name in parameter.opts if isinstance(parameter, click.Option) else ():
                kinds.setdefault(name, {}).setdefault(parameter.type.name, []).append(path)
    mixed = {
        name: found for name, found in kinds.items() if len(found) > 1 and name not in {"--from", "--to", "--users"}
    }
    assert not mixed, f"options of one name take values of several kinds: {mixed}"


def _headings() -> Iterator[tuple[str, str]]:
    """Yield every heading that is written out in a call of print_table, with its place."""
    for file in sorted(Path("leadre/cli").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print_table" and len(node.args) > 1:
                for constant in ast.walk(node.args[1]):
                    if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                        yield f"{file}:{node.lineno}", constant.value


def test_headings_are_words_in_small_letters_with_the_unit_behind_a_comma() -> None:
    bad = [
        f"{where}: {heading!r}"
        for where, heading in _headings()
        if "_" in heading or (heading[:1].isupper() and not heading.startswith(("S-ID", "HR@", "NDCG@", "M ", "K ")))
    ]
    assert not bad, f"headings of tables: small letters, blanks for underscores (`longest wait, s`): {bad}"
