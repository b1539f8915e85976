"""What a worker tells Prometheus: a real one, scraped."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.error import URLError

import pytest
from prometheus_client.parser import text_string_to_metric_families

from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.settings import Settings

pytestmark = pytest.mark.slow
COMMAND = [
    sys.executable,
    "-m",
    "celery",
    "-A",
    "workers.app",
    "worker",
    "--pool=threads",
    "-c",
    "1",
    "-Q",
    "retrieval",
]


def scraped(port: int) -> dict[tuple[str, str], float]:
    """Return name and labels of every sample, with its value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {
            (sample.name, ",".join(map(str, sample.labels.values()))): sample.value
            for family in families
            for sample in family.samples
        }


def test_a_worker_shows_its_queue_on_the_loopback_and_names_nobody(
    settings: Settings, environment: dict[str, str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    more = {"LEADRE_WORKER_METRICS_PORT": str(port), "PYTHONPATH": str(Path(__file__).parents[2])}
    RefreshQueue.connect(settings.redis_url).mark([4_242_424_242], groups=[24])
    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen(COMMAND, env={**environment, **more}, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 60
        while True:
            try:
                found = scraped(port)
            except URLError:
                assert worker.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < end, (tmp_path / "log").read_text()
                time.sleep(0.1)
            else:
                break
        assert found["leadre_dead_users", ""] == 0
        assert {("leadre_queue_depth", str(group)) for group in range(25)} <= found.keys()
        assert not [key for key in found if "4242424242" in key[1]]
        with pytest.raises(OSError), socket.create_connection((_own_address(), port), timeout=1):
            pass  # only the loopback
    finally:
        worker.kill()
        worker.wait()


def _own_address() -> str:
    """An address of this machine that is not the loopback; 192.0.2.1, which is nobody's, where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            address: str = probe.getsockname()[0]
        except OSError:
            return "192.0.2.1"
    return address
