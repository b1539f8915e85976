"""The workers' application with an engine that takes its time, so that a kill hits it at work."""

from __future__ import annotations

import time
from typing import Any

from leadre.pipelines import refresh
from workers.app import app

__all__ = ["app"]

BATCH_S = 0.25
_load_engine = refresh.engine_of_release


class SlowEngine:
    """Another engine, `BATCH_S` later."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.index_version = engine.index_version

    def generate(self, *arguments: Any, **named: Any) -> Any:
        """Sleep and generate."""
        time.sleep(BATCH_S)
        return self._engine.generate(*arguments, **named)


def load_slowly(*arguments: Any, **named: Any) -> SlowEngine:
    """Load an engine and slow it down."""
    return SlowEngine(_load_engine(*arguments, **named))


refresh.engine_of_release = load_slowly
