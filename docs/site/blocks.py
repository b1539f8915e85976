"""The code blocks of a page: found, and run in one shell a page, as a reader would type them.

Understood are ```sh and ```python (run), the same with `title="name"` (the file a reader saves), and every other
language (not run). A ```text block that follows one that is run is its output. `<!-- not run: why -->` on the line
before a block leaves it out. A page's shell lives from block to block, so `cd` and `eval "$(leadre env)"` last.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

FENCE = re.compile(r"^```(\w*)(?: +(.*))?$")
TITLE = re.compile(r'title="([^"]+)"')
NOT_RUN = re.compile(r"^<!-- not run: (.+) -->$")
_END = "--end of a block--"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block; `line` is that of its first fence, from 1; `not_run` the reason, empty where it is run."""

    language: str
    title: str
    text: str
    line: int
    not_run: str

    @property
    def runs(self) -> bool:
        """Whether it is a command or a program that is to be executed."""
        return self.language in {"sh", "python"} and not self.title and not self.not_run


def blocks_of(page: str) -> list[Block]:
    """Return the fenced blocks of a page, in order.

    Raises:
        ValueError: a fence is not closed.
    """
    lines = page.splitlines()
    found, place = [], 0
    while place < len(lines):
        opened = FENCE.match(lines[place])
        if not opened:
            place += 1
            continue
        if "```" not in lines[place + 1 :]:
            raise ValueError(f"line {place + 1}: the block that begins here has no end")
        end = lines.index("```", place + 1)
        title, reason = TITLE.search(opened[2] or ""), NOT_RUN.match(lines[place - 1]) if place else None
        found.append(
            Block(
                language=opened[1],
                title=title[1] if title else "",
                text="".join(f"{line}\n" for line in lines[place + 1 : end]),
                line=place + 1,
                not_run=reason[1] if reason else "",
            )
        )
        place = end + 1
    return found


class Shell:
    """A bash that takes one block after another and says what each wrote and how it ended."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, block: Block, *, folder: Path) -> str:
        """Run a block, or save the file that it is; returns standard output and errors together.

        Raises:
            AssertionError: it ended with another exit code than 0.
        """
        if block.title:
            (folder / block.title).write_text(block.text)
            return ""
        # `set -e` would end the shell with the first command that fails, and with it all that a page has begun.
        program = block.text if block.language == "sh" else f"python - <<'END_OF_PYTHON'\n{block.text}END_OF_PYTHON\n"
        lines = f"trap 'failed=$?' ERR\nfailed=0\n{program}trap - ERR\necho; echo '{_END}' $failed\n"
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(lines)
        self._process.stdin.flush()
        told: list[str] = []
        for line in self._process.stdout:
            if line.startswith(_END):
                output = "".join(told).rstrip("\n") + "\n"
                assert line.split()[-1] == "0", (
                    f"line {block.line}, exit code {line.split()[-1]}:\n{block.text}\n{output}"
                )
                return output
            told.append(line)
        raise AssertionError(f"line {block.line}: the shell ended\n{block.text}\n{''.join(told)}")


@contextmanager
def shell(folder: Path, *, environment: Mapping[str, str]) -> Iterator[Shell]:
    """Give a shell that stands in `folder`; what it began in the background ends with it."""
    process = subprocess.Popen(
        ["bash", "--norc", "--noprofile"],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
    )
    try:
        yield Shell(process)
    finally:
        assert process.stdin is not None
        process.stdin.write("jobs -p | xargs -r kill; wait\n")
        process.stdin.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            assert process.stdout is not None
            process.stdout.close()


SPOKEN = re.compile(r"\d[\d.,:]*(?:[eE][+-]?\d+)?")


def shape(output: str) -> list[str]:
    """Return an output without what differs from day to day and machine to machine: numbers, widths, names of bits.

    Bars of progress become one; digests become `#`; lines in which nothing is left are gone.
    """
    shaped = []
    for line in output.splitlines():
        line = re.sub(r"/\S+", "/#", line) if "data in" in line else line
        line = re.sub(r"\b[0-9a-f]{12}\b", "#", line)
        line = re.sub(r"━+( *[\d,]+/[\d,?]+).*", r"━\1", line)  # rates and times left come and go
        line = re.sub(r"\d+\.?\d*/s|[-:]+:[-:]+", "", line)
        line = SPOKEN.sub("#", re.sub(r"(?<=[\s#=])-(?=[\d.])|(?<!\w)\.(?=\d)", "", line))
        line = re.sub(r"[-=]{2,}", "-", re.sub(r"\s+", " ", line)).strip()
        if line:
            shaped.append(line)
    return shaped


def rewritten(page: str, outputs: Mapping[int, str]) -> str:
    """Return the page with every ```text block that follows a block that ran replaced by what that block said.

    `outputs` is line of the block -> output.
    """
    lines = page.splitlines()
    found = blocks_of(page)
    for block, after in reversed(list(pairwise(found))):
        if block.line in outputs and after.language == "text":
            begin, size = after.line, after.text.count("\n")
            lines[begin : begin + size] = outputs[block.line].rstrip("\n").splitlines()
    return "\n".join(lines) + "\n"
