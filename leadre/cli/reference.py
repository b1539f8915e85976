"""The reference of the command line in Markdown, from click's own tree: docs/command_line.md is what this returns."""

from __future__ import annotations

from collections.abc import Iterator

import click

from leadre.cli.frame.command import LazyGroup, split_help


def reference(root: click.Group) -> str:
    """Return the reference of all commands below a group.

    Args:
        root: `leadre.cli.cli`.
    """
    return "\n".join(_page(root)).rstrip() + "\n"


def _page(root: click.Group) -> Iterator[str]:
    text, examples = split_help(root.help)
    yield from ("# Command line", "", _paragraphs(text), "", *_block(examples))
    yield from (root.epilog or "", "", "| command | |", "|---|---|")
    sections = root.sections if isinstance(root, LazyGroup) else {}
    for title, section in sections.items():
        yield f"| **{title}** | |"
        for name, (_, _, said) in section.items():
            yield f"| [`leadre {name}`](#leadre-{name}) | {_cell(said)} |"
    yield ""
    with click.Context(root, info_name="leadre", **root.context_settings) as context:
        for name in root.list_commands(context):
            command = root.get_command(context, name)
            if command is not None:
                yield from _command(command, path=f"leadre {name}", parent=context)


def _command(command: click.Command, *, path: str, parent: click.Context) -> Iterator[str]:
    with click.Context(command, info_name=path.rpartition(" ")[2], parent=parent) as context:
        text, examples = split_help(command.help)
        usage = " ".join([path, *command.collect_usage_pieces(context)])
        yield from (f"{'#' * (path.count(' ') + 1)} {path}", "", _paragraphs(text), "", *_block([usage]))
        options = [it for it in command.get_params(context) if isinstance(it, click.Option) and not it.hidden]
        rows = [record for it in options if "--help" not in it.opts and (record := it.get_help_record(context))]
        if rows:
            yield from ("| option | |", "|---|---|")
            yield from (f"| `{_cell(names)}` | {_cell(said)} |" for names, said in rows)
            yield ""
        if examples:
            yield from ("Examples:" if len(examples) > 1 else "Example:", "", *_block(examples))
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                below = command.get_command(context, name)
                if below is not None:
                    yield from _command(below, path=f"{path} {name}", parent=context)


def _paragraphs(text: str) -> str:
    """Return paragraphs, each on one line."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n"))


def _block(lines: list[str]) -> list[str]:
    return ["```text", *lines, "```", ""]


def _cell(text: str) -> str:
    """Return a text as a cell of a table: one line, bars escaped; times and folders of this machine are in none."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    from leadre.cli import cli

    click.echo(reference(cli), nl=False)
