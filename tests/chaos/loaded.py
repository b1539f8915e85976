"""What a process imports before workers are forked from it: a worker that is killed every second must start in one."""

from __future__ import annotations

import gc
import importlib

for name in (
    "leadre.pipelines.drain",
    "leadre.pipelines.reconcile",
    "leadre.pipelines.refresh",
    "leadre.pipelines.rehydrate",
    "leadre.store.features.client",  # Feast: seconds
    "feast.infra.offline_stores.contrib.postgres_offline_store.postgres",
    "feast.infra.registry.sql",
    "feast.infra.provider",
    "feast.infra.passthrough_provider",
    "celery.bin.celery",
    "celery.apps.worker",
    "celery.concurrency.thread",
    "celery.worker.consumer",
    "leadre.pipelines.persister",
    "leadre.pipelines.distribution.cheap_lane",
    "workers.doorbell",
    "workers.distribution",
    "workers.ingest",
    "workers.upkeep",
    "workers.materialization",
    "workers.training",
    "workers.dataset",
    "workers.features",
    "tests.chaos.kills",  # and with it all that a fork would import to find what it is to do
):
    importlib.import_module(name)

gc.collect()
gc.freeze()  # or each fork's first collection would copy all of this memory
