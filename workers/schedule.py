"""What beat says, and how often. Each is a safety net or a routine: a missed one is made up for by the next.

LEADRE §4.4.1 (nearline refreshes), §5.1 (index and model are updated daily).
"""

from __future__ import annotations

from typing import Any

from celery.schedules import crontab

Entry = dict[str, Any]


def _every(task: str, seconds: float) -> Entry:
    # A message that nobody took before the next one came says nothing new.
    return {"task": task, "schedule": seconds, "options": {"expires": seconds}}


def _daily(task: str, *, hour: int, minute: int = 0) -> Entry:
    return {"task": task, "schedule": crontab(hour=hour, minute=minute), "options": {"expires": 12 * 3600}}


BEAT_SCHEDULE: dict[str, Entry] = {
    "drain": _every("workers.retrieval.refresh_users", 3.0),
    "ingest": _every("workers.ingest.look_after", 10.0),
    "distribute": _every("workers.distribution.distribute", 5.0),
    "measure-freshness": _every("workers.distribution.measure_freshness", 30.0),
    "reconcile": _every("workers.materialization.reconcile", 60.0),
    "index-new-ads": _every("workers.indexing.index_new_ads", 20.0),
    "past-lists": _every("workers.dataset.make_past_lists", 10.0),
    "materialize": _every("workers.materialization.materialize", 300.0),
    "summarize": _every("workers.materialization.summarize", 3600.0),
    "check-features": _every("workers.features.check_state", 300.0),
    "check-drift": _daily("workers.features.check_drift", hour=6),
    "train": _daily("workers.training.train_daily", hour=2),
    "retention": _daily("workers.materialization.drop_old_months", hour=4),
    "revive": _daily("workers.retrieval.revive_dead", hour=5, minute=30),
}
"""Times are UTC."""
