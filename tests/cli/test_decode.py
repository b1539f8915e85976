"""`leadre decode`: what cannot be is one line with a remedy."""

from __future__ import annotations

import sys

import pytest
from click.testing import CliRunner

from leadre.cli import cli, main


def test_nobody_named_is_a_usage_error() -> None:
    done = CliRunner().invoke(cli, ["decode"])
    assert done.exit_code == 2
    assert "USER" in done.output


@pytest.mark.parametrize("arguments", [["7"], ["7", "--engine", "stub"]])
def test_without_a_live_release_it_says_how_to_get_one(
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    for name, value in environment.items():
        if name.startswith("LEADRE_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["leadre", "decode", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()

    assert stopped.value.code == 1
    said = capsys.readouterr().err.strip()
    assert "`leadre release promote` makes it live" in said
    assert "\n" not in said
