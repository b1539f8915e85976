"""Commands and groups of the command line: help that ends with examples, and hints for typing errors.

`command` and `group` are click's with these classes; what a group's own `.command()` makes is of them too.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import click
from click.shell_completion import CompletionItem

from leadre.names import did_you_mean

Known = tuple[str, str, str]
"""Module, attribute, and the help in one line."""


def split_help(text: str | None) -> tuple[str, list[str]]:
    """Split a command's help from its examples.

    Args:
        text: a docstring; a paragraph that begins with `Example:` or `Examples:` holds examples, one a line.

    Returns:
        The help without them; the examples.
    """
    kept, examples = [], []
    for paragraph in inspect.cleandoc(text or "").split("\n\n"):
        first, colon, rest = paragraph.strip().partition(":")
        if colon and first in ("Example", "Examples"):
            examples += [line.strip() for line in rest.strip().splitlines()]
        else:
            kept.append(paragraph)
    return "\n\n".join(kept), examples


class OneOf(click.Choice):  # type: ignore[type-arg]  # generic to type checkers only
    """One of some words, on the command line; for a misspelled one it names the nearest."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Say that it is none of them."""
        hint = did_you_mean(str(value), map(str, self.choices))
        return f"{super().get_invalid_choice_message(value, ctx).rstrip('.')}; {hint}".rstrip("; ")


class _WithExamples(click.Command):
    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        text, _ = split_help(self.help)
        if text.strip():
            formatter.write_paragraph()
            with formatter.indentation():
                formatter.write_text(text.strip())

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        _, examples = split_help(self.help)
        if examples:
            with formatter.section("Example" if len(examples) == 1 else "Examples"):
                for example in examples:  # not wrapped: they are there to be copied
                    formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


class Command(_WithExamples):
    """A command whose help ends with its examples."""


class Group(_WithExamples, click.Group):
    """A group whose help ends with examples, and that knows what a misspelled command was meant to be."""

    command_class = Command
    group_class = type

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is called.

        Raises:
            click.UsageError: there is none; the message names the nearest one, or all.
        """
        known = self.list_commands(ctx)
        if not ctx.resilient_parsing and args[0] not in known and not args[0].startswith("-"):
            hint = did_you_mean(args[0], known) or f"there are {', '.join(known)}"
            raise click.UsageError(f"No such command {args[0]!r}; {hint.rstrip()}", ctx)
        return super().resolve_command(ctx, args)


class LazyGroup(Group):
    """Knows its commands' names and one-line helps, in sections; imports a command's module only to run it."""

    sections: ClassVar[Mapping[str, Mapping[str, Known]]] = {}

    def _known(self) -> dict[str, Known]:
        return {name: known for section in self.sections.values() for name, known in section.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the commands' names, section by section."""
        return list(self._known())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import a command."""
        if (known := self._known().get(cmd_name)) is None:
            return None
        command: click.Command = getattr(importlib.import_module(known[0]), known[1])
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the sections."""
        widest = max(map(len, self._known()))
        for title, section in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:<{widest}}", text) for name, (_, _, text) in section.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands that begin so, without importing any: pressing tab is to be fast."""
        items = [
            CompletionItem(name, help=text)
            for name, (_, _, text) in self._known().items()
            if name.startswith(incomplete)
        ]
        return items + click.Command.shell_complete(self, ctx, incomplete)


def command(name: str | None = None, **attributes: Any) -> Callable[[Callable[..., Any]], Command]:
    """Make a function a command, as `click.command` does."""
    return click.command(name, cls=Command, **attributes)


def group(name: str | None = None, **attributes: Any) -> Callable[[Callable[..., Any]], Group]:
    """Make a function a group, as `click.group` does."""
    return click.group(name, cls=Group, **attributes)
