"""What benchmarks of the feature store share: PostgreSQL and Redis of their own, and how figures are printed."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from leadre import services
from leadre.settings import Settings

ROOT = Path(__file__).parents[1]


@contextmanager
def own_servers(*, durable: bool = True) -> Iterator[Settings]:
    """Start both servers in a temporary folder, which is the home; stop and remove them at the end.

    Args:
        durable: whether what is written survives a crash, as in production.
    """
    home = Path(tempfile.mkdtemp(prefix="leadre-bench-"))
    home.chmod(0o711)  # under root the servers' account passes through it
    try:
        servers = services.up(home, durable=durable)
        yield Settings(
            home=home,
            database_url=servers.database_url,
            redis_url=servers.redis_url,
            feature_repo=ROOT / "feature_repo",
        )
    finally:
        services.down(home)
        shutil.rmtree(home)


def print_figures(figures: Mapping[str, float], *, as_json: bool) -> None:
    """Print figures as a table, or as one line of JSON."""
    if as_json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:<32}{value:>14,.3f}")
