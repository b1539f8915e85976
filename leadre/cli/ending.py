"""How a command ends: an exit code, and for what went wrong one line that says what to do."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable

import click

from leadre.errors import LeadreError
from leadre.project.extras import extra_of, install

DONE, FAILED, MISTYPED, UNCHECKED, STOPPED, READER_LEFT = 0, 1, 2, 3, 130, 141
"""130 and 141 are what shells say of a process that SIGINT or SIGPIPE ended."""


def ended(run: Callable[[], object]) -> int:
    """Run a command; return its exit code.

    Args:
        run: calls click without its standalone mode.
    """
    try:
        code = _code(run())
        sys.stdout.flush()
    except SystemExit as stopped:  # a command's own code
        code = _code(stopped.code)
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
            return code
        code = READER_LEFT
        silence()
    except BrokenPipeError:
        silence()
        code = READER_LEFT
    except (click.Abort, KeyboardInterrupt) as error:
        code = _stopped(error)
    except click.UsageError as error:
        code = error.exit_code
        where = f"{error.ctx.command_path} --help" if error.ctx else "leadre --help"
        say_error(f"{error.format_message().rstrip('.')}; see `{where}`")
    except click.ClickException as error:
        code = error.exit_code
        say_error(error.format_message())
    except (LeadreError, FileExistsError) as error:
        code = FAILED
        say_error(_said(error))
    except ModuleNotFoundError as error:
        if (extra := extra_of(error.name or "")) is None:
            raise
        code = FAILED
        say_error(f"this command needs {error.name}, which is not installed: {install(extra)}")
    except OSError as error:
        if error.filename is None:  # not of a file: nobody could tell what to do
            raise
        code = FAILED
        say_error(f"{error.strerror}: {error.filename}")
    return code


def say_error(message: str) -> None:
    """Say on standard error, in one line, what went wrong."""
    from leadre.cli.terminal import aside

    text = " ".join(message.split("\n"))
    aside.print(f"error: {text}", style="red", markup=False, soft_wrap=True)


def silence() -> None:
    """Let nothing more be written: who read has left, and Python would say so at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a stream without a file
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _code(value: object) -> int:
    return value if isinstance(value, int) else DONE if value is None else FAILED


def _stopped(error: BaseException) -> int:
    """Say that a command was stopped; return 130 for Ctrl-C, and 1 where a question was not answered with yes."""
    reason = error.__cause__ or error.__context__ or error
    from leadre.cli.terminal import aside

    if isinstance(reason, KeyboardInterrupt):
        aside.print("stopped; what is finished stays, the same command goes on from there", soft_wrap=True)
        return STOPPED
    aside.print("not done: it was not agreed to (--yes where nobody can be asked)", soft_wrap=True)
    return FAILED


def _said(error: LeadreError | FileExistsError) -> str:
    """Return the message with the owner's ids: what was raised far inside knows 64-bit ones only."""
    if isinstance(error, LeadreError) and (error.ad_ids or error.user_ids):
        from leadre.cli.session import connection, settings
        from leadre.store.records.source_ids import in_owners_words

        with contextlib.suppress(LeadreError), connection(settings()) as connected:
            return in_owners_words(connected, error)
    return str(error)
