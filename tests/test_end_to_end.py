"""The README's commands, one after the other, on a tiny world: real database, Redis, Feast, a trained model, a worker.

Every command is a process of its own, as a user types it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.settings import Settings
from leadre.store.features.client import FeatureClient

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
USERS = 60

RECIPE = """
[index]
encoder = "hashed"
quantiser = "residual_kmeans"
levels = 2
codes = 24

[prompt]
template = "one_pass"
budget_tokens = 384

[model]
hidden_size = 32
layers = 1
heads = 2
feed_forward = 64
text_vocabulary = 600

[sft]
epochs = [2.0, 1.0, 2.0]
learning_rate = 2e-3
batch_size = 16
device_batch_size = 16

[dpo]
max_pairs = 40
batch_size = 8

[decoding]
beam_width = 12
"""


def test_the_commands_lead_from_data_to_ranker_features(
    environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE)
    env = {**environment, "OMP_NUM_THREADS": "1", "COLUMNS": "160", "LEADRE_BEAM_WIDTH": "12"}

    def run(*command: str) -> str:
        done = subprocess.run(
            [str(BIN / command[0]), *command[1:]], env=env, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    assert "impressions" in run("leadre", "import", "synthetic", "--ads", "96", "--users", str(USERS))
    run("leadre", "summarize")
    assert "96 ads" in run("leadre", "index", "build", str(recipe))
    printed = run("leadre", "train", str(recipe), "--name", "tiny")
    assert "co_visitation" in printed
    assert "tiny is live" in run("leadre", "release", "promote")
    run("feast", "-c", "feature_repo", "apply")
    run("feast", "-c", "feature_repo", "materialize-incremental", datetime.now(UTC).isoformat())

    _refresh_everybody_through_a_worker(env, settings, log=tmp_path / "worker.log")
    features = FeatureClient(settings.feature_repo, settings.feast_environment())
    now = datetime.now(UTC)
    lists = features.retrieval_lists(range(USERS))
    assert all(found is not None and found.release == "tiny" and len(found.ad_ids) == 12 for found in lists)
    found = lists[7]
    assert found is not None
    candidates = [*found.ad_ids[:10], *(ad for ad in range(96) if ad not in found.ad_ids)][:20]
    row = features.ranker_features(7, candidates, now=now)
    features.close()
    assert row["hit"] == [1] * 10 + [0] * 10
    assert row["rank"] == [*range(1, 11), *[0] * 10]
    assert row["retrieved_count"] == [12] * 20
    assert all(0 <= share <= 1 + 1e-9 for share in row["prefix_mass_1"])


def _refresh_everybody_through_a_worker(env: dict[str, str], settings: Settings, *, log: Path) -> None:
    queue = RefreshQueue.connect(settings.redis_url)
    queue.mark(range(USERS))
    options = ["-Q", "retrieval", "--pool=threads", "-c", "1", "--without-gossip", "--without-mingle"]
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [str(BIN / "celery"), "-A", "workers.app", "worker", *options, "--without-heartbeat"],
            env=env,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        end = time.monotonic() + 120
        while queue.depth() + queue.claimed():
            assert time.monotonic() < end, log.read_text()[-4000:]
            time.sleep(0.05)
        assert queue.dead() == []
    finally:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=60) == 0
