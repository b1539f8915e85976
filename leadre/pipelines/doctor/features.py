"""The feature store: the registry beside feature_repo, what is online and how old it is. LEADRE §4.4.1."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from leadre.errors import LeadreError
from leadre.pipelines.doctor.finding import Finding, fault, ok, warning
from leadre.settings import Settings

if TYPE_CHECKING:
    from redis import Redis
    from sqlalchemy import Connection

LATE = timedelta(minutes=20)
"""Beat materializes every five minutes; four times that is late (ours)."""
_APPLY = 'eval "$(leadre env)" && feast -c {repo} apply'


def registry(settings: Settings) -> Finding:
    """Look whether the registry says what feature_repo says."""
    from leadre.store.features.registered import registered

    run = _APPLY.format(repo=settings.feature_repo.name)
    try:
        found = registered(settings.feature_repo, settings.feast_environment())
    except LeadreError as error:
        return fault("registry", str(error).splitlines()[0], run=run)
    if found == "never":
        return fault("registry", "Feast's registry is empty: nothing was applied", run=run)
    if found != "same":
        said = f"Feast's registry differs from {settings.feature_repo.name}: {found}"
        return fault("registry", said, run=run)
    return ok("registry", "Feast's registry is applied, and equal to the feature repository")


def materialization(connection: Connection, *, now: datetime) -> Finding:
    """Look when the view that is furthest behind was brought online."""
    from leadre.store.records.standing import materialized

    found = materialized(connection)
    if found.oldest is None and found.started is None:
        said = "nothing was materialized: the online store has no profiles, summaries and sequences"
        return fault("materialization", said, run="leadre materialize")
    if found.started is not None and now - found.started > LATE:
        said = f"a materialization has not ended since {_ago(now - found.started)}: its process may have died"
        return warning("materialization", said, run="leadre materialize")
    if found.oldest is not None and now - found.oldest > LATE:
        said = f"the last materialization ended {_ago(now - found.oldest)} ago; beat asks for one every five minutes"
        return warning("materialization", said, run="leadre materialize")
    when = f"ended {_ago(now - found.oldest)} ago" if found.oldest is not None else "is under way"
    return ok("materialization", f"the last materialization {when}")


def online(connection: Connection, client: Redis) -> Finding:
    """Look whether the online store has all lists: a Redis that was wiped lacks its mark."""
    from leadre.store.features.rehydration import MARKER
    from leadre.store.records.standing import any_rows

    if not any_rows(connection, "online_marker"):
        return ok("online", "no worker has marked the online store yet")
    if client.exists(MARKER):
        return ok("online", "the online store has all lists")
    said = "the online store was wiped: lists are missing until a worker of `retrieval` has brought them back"
    return fault("online", said, run="leadre rehydrate")


def quality(client: Redis, *, now: datetime) -> Finding:
    """Glance at what the worker of `maintenance` measured last of the features."""
    from leadre.serving.metrics import published

    samples = [(sample.name, sample.labels, sample.value) for metric in published(client) for sample in metric.samples]
    checked = [
        value
        for name, labels, value in samples
        if name.endswith("checked_timestamp_seconds") and labels.get("what") == "state"
    ]
    out = sum(value for name, _, value in samples if name == "leadre_feature_out_of_bounds")
    if not checked:
        said = "nobody has measured the features in the last three days"
        return warning("features", said, run="leadre features check")
    ago = _ago(timedelta(seconds=max(0.0, now.timestamp() - max(checked))))
    if out:
        said = f"{out:.0f} figures of the features were out of their bounds {ago} ago"
        return warning("features", said, run="leadre features check")
    return ok("features", f"the features were within their bounds {ago} ago")


def _ago(span: timedelta) -> str:
    seconds = span.total_seconds()
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
