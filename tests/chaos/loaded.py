"""What a process imports before workers are forked from it: a worker that is killed every second must start in one."""

from __future__ import annotations

import leadre.pipelines.drain
import leadre.pipelines.reconcile
import leadre.pipelines.refresh
import leadre.pipelines.rehydrate
import leadre.store.features.client  # noqa: F401 - Feast: seconds
import tests.chaos.plain  # noqa: F401 - imported to be there
import workers.app

workers.app.app.loader.import_default_modules()
