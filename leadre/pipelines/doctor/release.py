"""Data, index and release: what there is, and whether its files are whole. LEADRE §4.4.1, §5.1."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from leadre.artifacts import open_artifact
from leadre.errors import ArtifactIncomplete
from leadre.pipelines.doctor.finding import Finding, fault, ok
from leadre.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Connection


def data(connection: Connection) -> list[Finding]:
    """Look whether there are ads, behaviors, and interest summaries."""
    from leadre.store.records.standing import any_rows

    if not any_rows(connection, "ads"):
        return [fault("data", "the catalog is empty", run="leadre import parquet FOLDER")]
    if not any_rows(connection, "behaviors"):
        said = "there are ads and no behaviors: nobody has a context"
        return [fault("data", said, run="leadre import parquet FOLDER")]
    if not any_rows(connection, "interest_summaries"):
        said = "there are behaviors and no interest summaries"
        return [fault("data", said, run="leadre summarize")]
    return [ok("data", "there are ads, behaviors and interest summaries")]


def release(connection: Connection, settings: Settings) -> list[Finding]:
    """Look whether a release is live, and whether its files and its index's are those that were written."""
    from leadre.store.release.records import list_releases, live_release, newest_index

    live = live_release(connection)
    if live is None:
        if newest_index(connection) is None:
            return [fault("index", "there is no index", run="leadre index build")]
        if not list_releases(connection):
            return [fault("release", "there is no release", run="leadre train")]
        said = "there are releases, and none is live"
        return [fault("release", said, run="leadre release promote")]
    findings = [ok("release", f"release {live.release} is live, and its files are whole")]
    try:
        open_artifact(Path(live.uri), kind="release", verify=True)
    except ArtifactIncomplete as error:
        findings = [fault("release", f"{live.release}: {error}", run="leadre release rollback")]
    return [*findings, index(settings.indexes / live.index_version)]


def index(folder: Path) -> Finding:
    """Compare an index's files with the SHA-256 sums of its manifest."""
    try:
        open_artifact(folder.resolve(), kind="index", verify=True)
    except ArtifactIncomplete as error:
        said = f"index {folder.name}: {error}"
        return fault("index", said, run=f"leadre index check {folder.name}")
    return ok("index", f"index {folder.name} is on disk, all SHA-256 sums are right")
