"""Writes a project: the folder from which an owner of the installed package works. What `leadre init` does.

The owner edits what is in it. It comes whole or not at all, and nothing that is there is touched.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from leadre.errors import ConfigError
from leadre.project import packaged, project_file

NEW = Path(__file__).parent / "new"
WORKERS = {
    "__init__.py": '"""The nearline processes. An installed package of the same name would not hide this one."""\n',
    "app.py": (
        '"""The Celery application: `celery -A workers.app worker`. Its tasks are in the package leadre_workers."""\n\n'
        "from leadre_workers.app import app\n\n"
        '__all__ = ["app"]\n'
    ),
}
_MIGRATIONS_HERE = "script_location = %(here)s/migrations\n"


def create_project(folder: Path) -> tuple[str, ...]:
    """Write a project into a folder, which is made if it is not there.

    Returns:
        The names of what was written, folders with a slash behind.

    Raises:
        ConfigError: the folder has one of these files already, or cannot be written; it stays as it was.
    """
    names = ("README.md", "alembic.ini", "feature_repo/", "recipes/", "workers/", ".env.example", ".gitignore")
    there = [name for name in names if os.path.lexists(folder / name.rstrip("/"))]
    if there:
        raise ConfigError(f"{folder.absolute()} has {', '.join(there)}: nothing is overwritten, take an empty folder")
    made = next((path for path in reversed([folder, *folder.parents]) if not path.exists()), None)
    placed: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".leadre-init-", dir=folder))
        try:
            _write(unfinished)
            for name in names:
                (unfinished / name).rename(folder / name.rstrip("/"))
                placed.append(folder / name.rstrip("/"))
        finally:
            shutil.rmtree(unfinished)
    except BaseException as error:
        for path in placed if made is None else [made]:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ConfigError(f"no project can be written to {folder}: {error}; take another folder") from error
        raise
    return names


def _write(folder: Path) -> None:
    for name in ("feature_repo", "recipes"):
        there = project_file(name)
        for path in there.rglob("*"):
            if path.is_file() and "__pycache__" not in path.relative_to(there).parts:
                target = folder / name / path.relative_to(there)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)  # without its mode: an installation may be read-only
    for source, name in (("README.md", "README.md"), ("env.example", ".env.example"), ("gitignore", ".gitignore")):
        shutil.copyfile(NEW / source, folder / name)
    (folder / "alembic.ini").write_text(_alembic_ini())
    (folder / "workers").mkdir()
    for name, text in WORKERS.items():
        (folder / "workers" / name).write_text(text)


def _alembic_ini() -> str:
    """Return alembic.ini with the package's migrations: the schema is the package's, an upgrade brings its changes."""
    where = "leadre:project/migrations" if packaged() else str(project_file("migrations")).replace("%", "%%")
    text = project_file("alembic.ini").read_text()
    if _MIGRATIONS_HERE not in text:
        raise ConfigError(f"{project_file('alembic.ini')} has been changed: install leadre again")
    return text.replace(_MIGRATIONS_HERE, f"script_location = {where}\n")
