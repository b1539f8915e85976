"""The runbooks name events, metrics and commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

from click import Group

from leadre.cli import _COMMANDS, cli

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operations.md").read_text()
SOURCES = "\n".join(path.read_text() for top in ("leadre", "workers") for path in (ROOT / top).rglob("*.py"))
RUNBOOKS = PAGE[PAGE.index("## Runbooks") : PAGE.index("## Personal data")]


def test_every_command_that_is_named_exists() -> None:
    for words in re.findall(r"`leadre ([a-z -]+)", PAGE):
        name, *more = words.split()
        assert name in _COMMANDS, words
        command = cli.get_command(None, name)  # type: ignore[arg-type]
        options = {option for parameter in command.params for option in parameter.opts}  # type: ignore[union-attr]
        if isinstance(command, Group) and more:
            assert more[0] in command.commands, words
            options |= {option for parameter in command.commands[more[0]].params for option in parameter.opts}
        assert {word for word in more if word.startswith("--")} <= options, words


def test_every_event_of_a_log_that_a_runbook_names_is_one() -> None:
    events = set(re.findall(r'logger\.\w+\(\s*"([a-z_]+)"', SOURCES))
    for named in re.findall(r"(?:log|says|journal's) `([a-z_]+)`", RUNBOOKS):
        assert named in events, named


def test_every_metric_that_a_runbook_names_is_one() -> None:
    for named in re.findall(r"`(leadre_[a-z_]+)`", RUNBOOKS):
        if named not in {"leadre_app", "leadre_owner"}:
            assert named in SOURCES, named
