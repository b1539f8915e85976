"""`python -m tests.chaos [--seconds 60 | --minutes 10] [--seed 1] [--scenario kills] [--json]`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any


def main() -> None:
    """Run a scenario and print what came of it; exit with 1 where something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--scenario", choices=["kills", "wipe", "poison", "broker", "redelivery"], default="kills")
    parser.add_argument("--seconds", type=float, default=60.0, help="of killing")
    parser.add_argument("--minutes", type=float, help="instead of --seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=4, help="processes")
    parser.add_argument("--users", type=int, help="default: 200; 100,000 for wipe, by 4,000; 2,000 for poison")
    parser.add_argument("--per-s", type=float, default=20.0, help="behaviors reported a second")
    parser.add_argument("--rounds", type=int, default=3, help="of poison and redelivery")
    parser.add_argument("--restarts", type=int, default=24, help="of broker")
    parser.add_argument("--no-celery", action="store_true", help="without plain Celery beside")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    arguments = parser.parse_args()
    found, broken = run(arguments)
    if arguments.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:<24}{value:>14}")
    if broken:
        sys.exit(f"did not hold: {', '.join(broken)}")


def run(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Return the figures of a scenario, and which of them must not be."""
    if arguments.scenario == "wipe":
        from tests.chaos import wipe

        found = wipe.run(
            seed=arguments.seed, users=(arguments.users or 100_000) // 4000 * 4000, workers=arguments.workers
        )
        return found, [name for name in ("missing", "wrong") if found[name]]
    if arguments.scenario == "poison":
        from tests.chaos import poison

        found = poison.run(seed=arguments.seed, users=arguments.users or 2_000, rounds=arguments.rounds)
        return found, [] if found["always_dead"] else ["always_dead"]
    if arguments.scenario == "redelivery":
        from tests.chaos import redelivery

        found = redelivery.run(seed=arguments.seed, rounds=arguments.rounds)
        return found, [] if found["redelivered_longest_s"] <= redelivery.ASKED_S else ["redelivered_longest_s"]
    if arguments.scenario == "broker":
        from tests.chaos import broker

        found = broker.run(seed=arguments.seed, restarts=arguments.restarts, workers=arguments.workers)
        well = found["workers_alive"] == found["workers_working"] == found["workers"] and not found["not_served"]
        return found, [] if well else ["workers"]
    from tests.chaos import kills

    found = kills.run(
        seconds=60 * arguments.minutes if arguments.minutes else arguments.seconds,
        seed=arguments.seed,
        workers=arguments.workers,
        users=arguments.users or 200,
        per_s=arguments.per_s,
        celery=not arguments.no_celery,
    )
    return found, [name for name in ("lost", "backward", "stale", "reads_not_200", "empty_unmarked") if found.get(name)]


if __name__ == "__main__":
    main()
