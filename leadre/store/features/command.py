"""Feast's own commands, run in this process: what `feast -c feature_repo ...` does, without its seconds to start.

LEADRE §4.4.1. For programs that read features afterwards and so need Feast anyway; people type the command.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from leadre.errors import LeadreError


def run_feast(feature_repo: Path, *arguments: str) -> str:
    """Run a command of Feast and return what it printed. Folder, output, logging and imports are as before afterwards.

    Args:
        feature_repo: folder of feature_store.yaml; what its `${...}` stand for is in the environment.
        arguments: as typed after `feast -c feature_repo`.

    Raises:
        LeadreError: the command failed; its last line of output, or its error, is the message.
    """
    with as_feast(feature_repo, arguments[0]) as said:
        from feast.cli.cli import cli as feast

        feast.main(["-c", str(feature_repo), *arguments], standalone_mode=False)
    return said.getvalue()


@contextmanager
def as_feast(feature_repo: Path, command: str) -> Iterator[io.StringIO]:
    """Do what a command of Feast does; what is printed meanwhile goes into the value. Leaves nothing behind.

    Args:
        feature_repo: folder of feature_store.yaml.
        command: its name, for the message of an error.

    Raises:
        LeadreError: as `run_feast`.
    """
    said, handlers, level = io.StringIO(), logging.root.handlers[:], logging.root.level
    imported, path = set(sys.modules), sys.path[:]
    try:
        with chdir("."), redirect_stdout(said), redirect_stderr(said):  # `apply` changes the folder
            yield said
    except (Exception, SystemExit) as error:
        lines = [*said.getvalue().strip().splitlines(), str(error)]
        raise LeadreError(f"feast {command} failed: {next(filter(None, reversed(lines)), error)}") from error
    finally:  # it sets up logging for a process of its own
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
        sys.path[:] = path  # and imports definitions by bare name: the next command would find these, not what is there
        for name in set(sys.modules) - imported:
            if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(feature_repo.resolve()):
                del sys.modules[name]
