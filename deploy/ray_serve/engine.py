"""The engine server as a Ray Serve application: Ray places and scales it, nothing of LEADRE schedules processes.

LEADRE §4.4.2. `pip install "leadre[model]" "ray[serve]"`, LEADRE_HOME on storage that all machines see, then

    RELEASE=NAME serve run deploy.ray_serve.engine:application

and `LEADRE_ENGINE=remote LEADRE_ENGINE_URLS=http://HOST:8000` for the workers. Ray's proxy then balances (by the queue
lengths of two replicas drawn at random) and the workers' balancer sees one instance. To let the workers balance by
work and pace instead, run plain `leadre serve engine` processes and name each of them.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from ray import serve


def build() -> Any:
    """Return a replica's ASGI application; it loads the release named in RELEASE, or follows the live one."""
    from leadre.cli.serve import engine_settings
    from leadre.serving.engine_host import EngineHost, live_release, load_served, named_release
    from leadre.serving.engine_server import EngineServer

    release = os.environ.get("RELEASE", "live")
    settings = engine_settings(None, needs_servers=release == "live")
    wanted = live_release(settings) if release == "live" else named_release(release, releases=settings.releases)
    return EngineServer(
        EngineHost(wanted=wanted, indexes=settings.indexes, load=partial(load_served, settings), waiting=1024)
    )


@serve.deployment(
    # A replica decodes in batches, so it wants requests that wait: more at once than it can decode at once.
    max_ongoing_requests=64,
    autoscaling_config={"min_replicas": 1, "max_replicas": 64, "target_ongoing_requests": 16},
    ray_actor_options={"num_gpus": float(os.environ.get("ENGINE_GPUS", "1"))},
)
@serve.ingress(build)
class Engine:
    """A replica: one model on one GPU."""


application = Engine.bind()
