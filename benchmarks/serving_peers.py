"""The servers that bench_serving.py compares, each a process of one worker: ours, Starlette with redis.asyncio, nginx.

Usage: python benchmarks/serving_peers.py ours|unmeasured|starlette PORT
"""

from __future__ import annotations

import socket
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from leadre.settings import Settings

NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 768; }}
http {{
  sendfile on; tcp_nopush on; access_log off; keepalive_requests 1000000000; default_type application/json;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{ listen 127.0.0.1:{port}; root {folder}/root; location / {{ }} }}
}}
"""
"""Debian's settings, but one worker, no log, and connections that are kept as ours are."""


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def wait_for(port: int, *, seconds: float = 60.0) -> None:
    """Wait until somebody listens on a port."""
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


def serve_ours(settings: Settings, port: int, *, measuring: bool) -> None:
    """Serve as `leadre serve user-server` does."""
    from leadre.serving.http.server import run
    from leadre.serving.user_server import create_app

    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    run([(create_app(settings, measuring=measuring), listening)], announce=lambda: None)


def serve_starlette(settings: Settings, port: int) -> None:
    """Serve lists as one would without us: a framework, a pool of connections, JSON by the framework."""
    import redis.asyncio
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from leadre.serving.ad_catalog import AdCatalog
    from leadre.store.features.layout import around_id, field
    from leadre.store.features.list_reader import row_in

    online = redis.asyncio.Redis.from_url(settings.redis_url)
    catalog = AdCatalog.over(settings.database_url)
    catalog.load()
    (head, tail), name = around_id("user_id", "leadre"), field("retrieved_ads", "retrieved_list")

    async def ads(request: Any) -> JSONResponse:
        user_id = int(request.path_params["user_id"])
        row = row_in(await online.hget(head + user_id.to_bytes(8, "little") + tail, name), user_id)
        if row is None:
            return JSONResponse({"user_id": user_id, "ads": [], "degraded": False})
        shown = catalog.shown(row.ad_ids, now_s=datetime.now(UTC).timestamp()).names
        listed = [
            {"ad_id": name, "sid": sid, "log_probability": score}
            for name, sid, score in zip(shown, row.sids, row.log_probabilities, strict=True)
        ]
        made = {
            "release": row.release,
            "index_version": row.index_version,
            "generated_at": row.generated_at.isoformat(),
        }
        return JSONResponse({"user_id": user_id, **made, "source": "llm", "ads": listed, "degraded": False})

    app = Starlette(routes=[Route("/v1/users/{user_id}/ads", ads)])
    uvicorn.run(app, port=port, loop="uvloop", http="httptools", access_log=False, log_level="warning")


def nginx_command(program: str, folder: Path, *, port: int) -> list[str]:
    """Write nginx's settings to a folder, and return its command."""
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port))
    return [program, "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]


if __name__ == "__main__":
    which, port = sys.argv[1], int(sys.argv[2])
    if which == "starlette":
        serve_starlette(Settings.from_environment(), port)
    else:
        serve_ours(Settings.from_environment(), port, measuring=which == "ours")
