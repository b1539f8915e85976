"""What an engine server holds: the release it serves, over the newest revisions of its index.

LEADRE §4.4.2, §4.4.1 (daily updates). A promotion is followed: the new release is loaded beside the old one, which goes
on decoding, and takes over between two batches; what waited for the old one is still answered by it. A new revision of
the index takes the model along; the revision before stays for proxies that have not gone over yet.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from leadre.artifacts import MANIFEST, open_artifact
from leadre.decoding.batcher import MicroBatcher
from leadre.decoding.engine import Engine
from leadre.decoding.wire import Asked
from leadre.errors import ConfigError, LeadreError, ReleaseMismatch, Unavailable
from leadre.indexing.ad_index import AdIndex
from leadre.logs import place_of
from leadre.names import not_there
from leadre.serving.engine_server import State

if TYPE_CHECKING:
    from leadre.settings import Settings

logger = logging.getLogger(__name__)

LOOK_S = 2.0
"""How often it is asked which release is live, and whether its index has a new revision (ours)."""
REVISIONS = 2
"""Revisions of an index that are served at once: the newest and the one before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The release to serve: its name, its folder, and the version of its index."""

    release: str
    folder: Path
    index_version: str


@dataclass(slots=True, kw_only=True)
class _Served:
    """A loaded release. `batchers` go by revision and number of ads, the newest last; they share thread and line."""

    release: str
    index_version: str
    written_at: int
    batchers: dict[tuple[int, int], MicroBatcher] = field(default_factory=dict)


class EngineHost:
    """Loads what is wanted, and follows it in a thread of its own.

    Args:
        wanted: says which release to serve; asked every `LOOK_S` seconds.
        indexes: folder of index artifacts.
        load: from a release's folder and its index to an engine.
        tokens_per_batch: as in `MicroBatcher`.
        waiting: prompts that may wait; more are refused.
    """

    def __init__(
        self,
        *,
        wanted: Callable[[], Wanted],
        indexes: Path,
        load: Callable[[Path, AdIndex], Engine],
        tokens_per_batch: int = 8192,
        waiting: int = 1024,
    ) -> None:
        self._wanted, self._indexes, self._load = wanted, indexes, load
        self._tokens_per_batch, self._waiting = tokens_per_batch, waiting
        self._served: _Served | None = None
        self._problem = "the release is being loaded"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="leadre-release", daemon=True)

    def start(self) -> None:
        """Begin to load, and to follow what is wanted."""
        self._thread.start()

    def close(self) -> None:
        """Stop following; finish the batch that runs and refuse what waits."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        served, self._served, self._problem = self._served, None, "the server is closing"
        if served is not None:
            _end(served)

    def batcher(self, asked: Asked) -> MicroBatcher:
        """Return what decodes a request. See `leadre.serving.engine_server.Host`.

        Raises:
            ReleaseMismatch: another release, index version or revision is served.
            Unavailable: none is yet.
        """
        served = self._now()
        if asked.release not in ("", served.release):
            raise ReleaseMismatch(f"release {served.release} is served here, the request is for {asked.release}")
        if asked.index_version != served.index_version:
            raise ReleaseMismatch(
                f"index {served.index_version} is served here, the request is for {asked.index_version}"
            )
        found = served.batchers.get((asked.revision, asked.ads))
        if found is None:
            here = " and ".join(f"{revision} of {ads} ads" for revision, ads in served.batchers)
            raise ReleaseMismatch(
                f"of index {served.index_version} revision {here} is served here, the request is for {asked.revision} "
                f"of {asked.ads}"
            )
        return found

    def state(self) -> State:
        """Return what is served, and the load.

        Raises:
            Unavailable: nothing is served yet.
        """
        served = self._now()
        (revision, ads), batcher = list(served.batchers.items())[-1]
        waiting, running = batcher.load
        return State(
            release=served.release,
            index_version=served.index_version,
            revision=revision,
            ads=ads,
            waiting=waiting,
            running=running,
        )

    def look(self) -> bool:
        """Go over to what is wanted, if it is something else; return whether it was.

        Raises:
            LeadreError: it cannot be told, or not be loaded; what is served stays.
        """
        wanted, served = self._wanted(), self._served
        folder = (self._indexes / wanted.index_version).resolve()
        written_at = _written_at(folder)
        if served is not None and (served.release, served.index_version) == (wanted.release, wanted.index_version):
            if served.written_at == written_at:
                return False
            self._grow(served, AdIndex.load(folder), written_at=written_at)
            return True
        index = AdIndex.load(folder)
        batcher = MicroBatcher(
            self._load(wanted.folder, index),
            beam_width=1,  # every request names its own
            tokens_per_batch=self._tokens_per_batch,
            waiting=self._waiting,
        )
        self._served = _Served(
            release=wanted.release,
            index_version=index.version,
            written_at=written_at,
            batchers={(index.revision, len(index)): batcher},
        )
        self._log("release_loaded", index)
        if served is not None:
            _drained(served, self._stopping)
        return True

    def _grow(self, served: _Served, index: AdIndex, *, written_at: int) -> None:
        newest = list(served.batchers.values())[-1].over(index)
        kept = [*served.batchers.items(), ((index.revision, len(index)), newest)][-REVISIONS:]
        self._served = _Served(
            release=served.release,
            index_version=served.index_version,
            written_at=written_at,
            batchers=dict(kept),
        )
        self._log("index_swapped", index)

    def _now(self) -> _Served:
        if (served := self._served) is None:
            raise Unavailable(f"nothing is served here yet: {self._problem}")
        return served

    def _follow(self) -> None:
        while not self._stopping.is_set():
            try:
                self.look()
            except LeadreError as error:
                self._problem = str(error)
                logger.warning("release_not_loaded", extra={"error": type(error).__name__})
            except Exception as error:  # noqa: BLE001 - what is served goes on; the next look may succeed
                self._problem = f"loading ended in {type(error).__name__}"
                logger.error("release_not_loaded", extra={"error": place_of(error)})
            self._stopping.wait(LOOK_S)

    def _log(self, what: str, index: AdIndex) -> None:
        release = self._served.release if self._served else None
        logger.info(what, extra={"release": release, "index_version": index.version, "revision": index.revision})


def named_release(release: str, *, releases: Path) -> Callable[[], Wanted]:
    """Return what always wants one release, found in its folder; no database is asked.

    Args:
        release: its name.
        releases: folder of releases.
    """

    def wanted() -> Wanted:
        if not (releases / release).is_dir():
            known = (folder.parent.name for folder in releases.glob(f"*/{MANIFEST}"))
            raise not_there("release", release, known, lists=f"ls {releases}")
        manifest = open_artifact(releases / release, kind="release")
        return Wanted(release=release, folder=releases / release, index_version=manifest.facts["index_version"])

    return wanted


def live_release(settings: Settings) -> Callable[[], Wanted]:
    """Return what wants the release that is live in PostgreSQL; the only part of an engine server that asks it."""
    from leadre.store.records.database import connect, transaction
    from leadre.store.release import records

    database = connect(settings.database_url, application_name="leadre engine")

    def wanted() -> Wanted:
        with transaction(database) as connection:
            live = records.named_release(connection)
        return Wanted(release=live.release, folder=Path(live.uri), index_version=live.index_version)

    return wanted


def _drained(served: _Served, stopping: threading.Event) -> None:
    """Close a release's line once nothing waits in it."""
    batcher = list(served.batchers.values())[-1]
    while any(batcher.load) and not stopping.wait(0.05):
        pass
    _end(served)


def _end(served: _Served) -> None:
    for batcher in served.batchers.values():
        batcher.close()


def _written_at(folder: Path) -> int:
    try:
        return (folder / MANIFEST).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def load_served(settings: Settings, folder: Path, index: AdIndex) -> Engine:
    """Load a release's engine by the settings, on this machine.

    Raises:
        ArtifactIncomplete, ReleaseMismatch, ConfigError: as `leadre.decoding.load.load_engine`.
    """
    if settings.engine == "remote":
        raise ConfigError("LEADRE_ENGINE=remote asks engine servers; a server itself decodes: `--engine auto`")
    if settings.engine == "tensorrt":
        from leadre.decoding.release import load_tensorrt  # nothing of transformers, whose versions differ there

        return load_tensorrt(
            folder,
            index=index,
            precision=settings.precision,
            beam_width=settings.beam_width,
            users=settings.refresh_batch,
        )
    from leadre.decoding.load import load_engine

    return load_engine(folder, index=index, kind=settings.engine, device=settings.device, precision=settings.precision)
