"""Task of the queue `maintenance`: the daily update of index and model. LEADRE §4.4.1, §5.1."""

from __future__ import annotations

from workers.app import app


@app.task(acks_late=False)  # type: ignore[untyped-decorator]
def train_daily() -> None:
    """Train."""
