"""The refresh queue's keys and scripts in Redis.

LEADRE §4.4.1. All keys share one hash tag, hence one slot of a Redis Cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.resources import files

from redis import Redis
from redis.commands.core import Script
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from leadre.errors import Unavailable

TAG = "{leadre:refresh}"
_ROWS = [f"2:{name}" for name in ("pending", "waiting", "again", "leases", "claims", "trouble", "dead")]
"""2 is the form of the rows: rows of another version's form are none of ours."""
KEYS = [f"{TAG}:{name}" for name in (*_ROWS, "doorbell", "tokens", "values", "budget", "counts")]
"""In the order in which refresh_queue_common.lua names them."""
PENDING, WAITING, AGAIN, LEASES, CLAIMS, TROUBLE, DEAD, DOORBELL, _, VALUES, BUDGET, _ = KEYS


def source(part: str) -> str:
    """Return the text of `refresh_queue_<part>.lua`."""
    return files("leadre.retrieval").joinpath(f"refresh_queue_{part}.lua").read_text()


def script(redis: Redis, *parts: str) -> Script:
    """Return the script of all parts in a row, after what all scripts share."""
    return redis.register_script("".join(source(part) for part in ("common", *parts)))


def milliseconds(now: datetime | None) -> int | str:
    """Return an instant as the scripts take it; '' lets them read Redis's clock."""
    return "" if now is None else int(now.timestamp() * 1000)


@contextmanager
def reachable() -> Iterator[None]:
    """Turn the client's errors into ours.

    Raises:
        Unavailable: Redis does not answer.
    """
    try:
        yield
    except (RedisConnectionError, RedisTimeoutError) as error:
        raise Unavailable(
            f"Redis does not answer ({type(error).__name__}): look whether it runs; `leadre doctor` says what to do"
        ) from error
