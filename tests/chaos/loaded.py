"""What a process imports before workers are forked from it: a worker that is killed every second must start in one."""

from __future__ import annotations

import leadre.pipelines.drain
import leadre.pipelines.reconcile
import leadre.pipelines.refresh
import leadre.pipelines.rehydrate
import leadre.store.features.client  # Feast: seconds
import tests.chaos.plain
import workers.app  # noqa: F401 - imported for its modules

workers.app.app.loader.import_default_modules()
