"""Mutants of the script that writes online rows: each differs in one place, and a case has to notice.

`python -m tests.store.features.mutants [--json]` starts servers of its own in a temporary folder and prints how many
mutants are killed, and those that survive.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

import redis

from leadre import services
from tests.store.features.script_cases import Case, cases, disagreement

SCRIPT = files("leadre.store.features").joinpath("set_rows.lua").read_text()
SWAPS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"==", "~="),
    (r"~=", "=="),
    (r" < ", " <= "),
    (r" < ", " > "),
    (r" > ", " >= "),
    (r" > ", " < "),
    (r" and ", " or "),
    (r" or ", " and "),
    (r" \+ ", " - "),
    (r" - ", " + "),
    (r" \* ", " + "),
    (r" % ", " * "),
    (r"not ", ""),
    (r"return nil", "return { 0, 0 }"),
    (r"return -1, -1", "return 0, 0"),
    (r"return 0, 0", "return -1, -1"),
    (r"(?<![\w.'])256(?![\w'])", "255"),  # 257 puts bytes in the same order
    (r"(?<![\w.'])(?!256)\d+(?![\w'])", lambda match: str(int(match[0]) + 1)),
    (r"call\('(HSET|EXPIRE)'[^\n]*", ""),
    (r"(written|older) = \w+ \+ 1", ""),
)
"""What one place of the script becomes. Some mutants do the same as the script: any number above 2^49 orders seconds
as well, no length has six bytes, and what is behind a row's last field is the next row's time."""


def mutants() -> Iterator[tuple[str, bytes]]:
    """Yield what each mutant is, and the mutant."""
    for number, line in enumerate(lines := SCRIPT.splitlines()):
        code = line.partition("--")[0]
        for pattern, other in SWAPS:
            for match in re.finditer(pattern, code):
                become = other if isinstance(other, str) else other(match)
                changed = code[: match.start()] + become + code[match.end() :]
                if changed != code:
                    text = "\n".join([*lines[:number], changed, *lines[number + 1 :]])
                    yield f"{number + 1}: {code.strip()}  ->  {changed.strip()}", text.encode()


def kills(client: redis.Redis, script: bytes, known: list[Case]) -> bool:
    """Say whether a case notices; the one that does is first in line for the next mutant."""
    for number, case in enumerate(known):
        if disagreement(client, script, case):
            known.insert(0, known.pop(number))
            return True
    return False


def main() -> None:
    """Try all and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="JSON on the last line")
    arguments = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="leadre-mutants-"))
    home.chmod(0o711)
    try:
        with redis.Redis.from_url(services.up(home, durable=False).redis_url) as client:
            known = list(cases())
            for case in known:
                if problem := disagreement(client, SCRIPT.encode(), case):
                    raise SystemExit(f"the script itself does not: {problem} in {case}")
            made = list(mutants())
            alive = [said for said, script in made if not kills(client, script, known)]
    finally:
        services.down(home)
        shutil.rmtree(home)
    for said in alive:
        print("survives", said)
    figures = {"cases": len(known), "mutants": len(made), "killed": len(made) - len(alive)}
    figures["killed_share"] = round(figures["killed"] / len(made), 4)
    print(json.dumps(figures) if arguments.json else figures)


if __name__ == "__main__":
    main()
