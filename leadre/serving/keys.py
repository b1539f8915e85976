"""API keys: who may ask the servers, and how often. The file holds hashes; a key itself is shown once, when it is made.

LEADRE §4.4.1's servers stand in a trusted network in the paper; ours ask for a key as soon as others can reach them.
A key is 32 random bytes, so one SHA-256 of it is enough: there is nothing to guess. Limits are kept in memory, by each
process for itself.
"""

from __future__ import annotations

import hmac
import logging
import math
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from leadre.errors import ConfigError

logger = logging.getLogger(__name__)

LONGEST_KEY = 256
"""Bytes of a key that is looked at (ours): a longer one is refused before it is hashed."""
_LOOK_EVERY_S = 1.0
_PREFIX = "leadre_"  # by it scanners find a key that was committed somewhere
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_RATE = re.compile(r"[0-9]{1,7}(\.[0-9]{1,3})?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A line of the file: whose key it is, its hash, and the requests a second it may make (None: no limit)."""

    name: str
    sha256: str
    requests_per_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """The request may go on; `name` is its key's."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The request may not go on: 401 without a valid key, 429 with `retry_after_s` for one that asks too often."""

    status: int
    problem: str
    retry_after_s: int | None = None


_UNKNOWN = Refused(status=401, problem="a valid API key is needed: Authorization: Bearer KEY, or X-Api-Key: KEY")


@dataclass(slots=True)
class _Bucket:
    """Requests that a key may make at once: it fills at the key's rate and holds what a second brings, one at least."""

    tokens: float
    at: float


class Keys:
    """The keys of a file. A change of it counts within a second; one that cannot be read leaves the keys as they were.

    Args:
        path: lines `name:sha256[:requests_per_s]`; empty ones and those that begin with `#` say nothing.

    Raises:
        ConfigError: the file cannot be read, or a line is none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = _stamp(path)
        self._keys = read_keys(path)
        self._buckets: dict[str, _Bucket] = {}
        self._look_at = -math.inf

    def allow(self, key: bytes | None, now: float) -> Allowed | Refused:
        """Say whether a request with this key may go on, and count it.

        All known hashes are compared, each in constant time: the answer's time says nothing of any of them.

        Args:
            key: as the request presents it; None without one.
            now: seconds of a clock that does not go back, `time.monotonic()`.
        """
        if now >= self._look_at:
            self._look_at = now + _LOOK_EVERY_S
            self._reload()
        if not key or len(key) > LONGEST_KEY:
            return _UNKNOWN
        presented, found = sha256(key).hexdigest(), None
        for known in self._keys:
            if hmac.compare_digest(known.sha256, presented):
                found = known
        if found is None:
            return _UNKNOWN
        wait_s = self._take(found, now)
        if wait_s > 0:
            problem = f"more than {found.requests_per_s:g} requests/s with this key; send the request again later"
            return Refused(status=429, problem=problem, retry_after_s=max(1, math.ceil(wait_s)))
        return Allowed(name=found.name)

    def _take(self, key: Key, now: float) -> float:
        """Take a request out of the key's bucket; return 0, or the seconds until there is one."""
        if key.requests_per_s is None:
            return 0.0
        most = max(1.0, key.requests_per_s)
        bucket = self._buckets.setdefault(key.sha256, _Bucket(most, now))
        bucket.tokens = min(most, bucket.tokens + max(0.0, now - bucket.at) * key.requests_per_s)
        bucket.at = now
        if bucket.tokens < 1:
            return (1 - bucket.tokens) / key.requests_per_s
        bucket.tokens -= 1
        return 0.0

    def _reload(self) -> None:
        try:
            if (stamp := _stamp(self._path)) == self._stamp:
                return
            self._keys, self._stamp = read_keys(self._path), stamp
        except ConfigError as error:
            logger.error("keys_not_read", extra={"problem": str(error), "keys": len(self._keys)})
            return
        known = {key.sha256 for key in self._keys}
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if key in known}
        logger.info("keys_read", extra={"keys": len(self._keys)})


def read_keys(path: Path) -> tuple[Key, ...]:
    """Return the keys of a file.

    Raises:
        ConfigError: the file cannot be read, a line is none, or two lines have one hash. Lines are named by number.
    """
    keys: dict[str, Key] = {}
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.strip().partition(":")
        digest, limited, rate = rest.partition(":")
        wrong = (
            "its name is not 1 to 64 of A-Z, a-z, 0-9, '.', '_', '-'" if not _NAME.fullmatch(name) else
            "its hash is not 64 hexadecimal digits in lower case" if not _HASH.fullmatch(digest) else
            "its requests/s are no number above 0" if limited and not (_RATE.fullmatch(rate) and float(rate) > 0) else
            "its hash is in the file already" if digest in keys else
            ""
        )  # fmt: skip
        if wrong:
            raise ConfigError(f"{path}, line {number}: {wrong}; `leadre keys new NAME` prints a line to add")
        keys[digest] = Key(name=name, sha256=digest, requests_per_s=float(rate) if limited else None)
    return tuple(keys.values())


def new_key(name: str, *, requests_per_s: float | None = None) -> tuple[str, str]:
    """Return a new key, and the line that lets it in. Nobody can tell the key from the line.

    Raises:
        ConfigError: no name, or no rate.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name[:80]!r} is no name of a key; write 1 to 64 of A-Z, a-z, 0-9, '.', '_', '-'")
    if requests_per_s is not None and not 0.001 <= requests_per_s < 1e7:
        raise ConfigError(f"{requests_per_s:g} requests/s are no limit; write a number from 0.001 to 9999999")
    key = _PREFIX + secrets.token_urlsafe(32)
    limit = "" if requests_per_s is None else f":{requests_per_s:.3f}".rstrip("0").rstrip(".")
    return key, f"{name}:{sha256(key.encode()).hexdigest()}{limit}"


def presented_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return the key of a request's headers (names in lower case, as ASGI has them); None where there is none."""
    for name, value in headers:
        if name == b"x-api-key":
            return value
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return value[7:].strip()
    return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise ConfigError(f"LEADRE_API_KEYS_FILE {path}: {(error.strerror or 'cannot be read').lower()}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"LEADRE_API_KEYS_FILE {path}: not ASCII; a line is name:sha256[:requests_per_s]") from None


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise ConfigError(f"LEADRE_API_KEYS_FILE {path}: {(error.strerror or 'cannot be read').lower()}") from None
    return found.st_mtime_ns, found.st_size, found.st_ino
