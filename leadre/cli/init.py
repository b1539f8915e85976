"""`leadre init`: a project to work in, for those who installed the package instead of cloning the repository."""

from __future__ import annotations

from pathlib import Path

import click
from rich.markup import escape

from leadre.cli.command import command
from leadre.cli.terminal import console
from leadre.project.create import create_project


@command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Write a project into DIR: feature_repo/, recipes/, workers/, alembic.ini, .env.example, README.md; yours to edit.

    Nothing is overwritten. A checkout of the repository is a project already.

    Example: leadre init my_ads
    """
    names = create_project(folder)
    console.print(f"[green]✓[/] {escape(str(folder))}: {' '.join(names)}", soft_wrap=True)
    console.print("Next:  cd there, then   leadre demo   or what README.md says")
