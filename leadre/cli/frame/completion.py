"""`leadre completion`: scripts that complete commands and options, by click's own mechanism."""

from __future__ import annotations

from typing import Literal

import click
from click.shell_completion import get_completion_class

from leadre.cli.frame.command import OneOf, command


@command()
@click.argument("shell", type=OneOf(["bash", "zsh", "fish"]))
def completion(shell: Literal["bash", "zsh", "fish"]) -> None:
    """Print a script that completes commands, options and their values when you press tab.

    Put the line below that is for your shell into ~/.bashrc or ~/.zshrc; fish reads its folder.

    Examples:
    eval "$(leadre completion bash)"
    eval "$(leadre completion zsh)"
    leadre completion fish > ~/.config/fish/completions/leadre.fish
    """
    from leadre.cli import cli

    made = get_completion_class(shell)
    assert made is not None  # noqa: S101 - click has these three
    click.echo(made(cli, {}, "leadre", "_LEADRE_COMPLETE").source())
