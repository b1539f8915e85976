"""Who installed the wheel gets from an empty folder to ads over HTTP, with ids that are texts.

The commands are those of the README that `leadre init` writes, typed in a folder with a space in its name.
"""

from __future__ import annotations

import csv
import json
import random
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.install.conftest import Installed

pytestmark = [pytest.mark.install, pytest.mark.slow, pytest.mark.timeout(1200)]  # a minute and a half of work

ADS = [f"SKU-{number}" for number in range(48)]
USERS = [f"user_{number}" for number in range(40)]
TINY = [
    *("index.encoder=hashed", "index.quantiser=residual_kmeans", "index.levels=2", "index.codes=16"),
    *("model.hidden_size=32", "model.layers=1", "model.heads=2", "model.feed_forward=64", "model.text_vocabulary=500"),
    *("prompt.budget_tokens=384", "sft.epochs=[1.0,1.0,1.0]", "dpo.max_pairs=16", "dpo.batch_size=8"),
    *("decoding.beam_width=8", "evaluation.max_users=20"),
]


def test_an_installed_wheel_leads_from_an_empty_folder_to_ads_over_http(installed: Installed, tmp_path: Path) -> None:
    project = tmp_path / "my ads"
    assert "leadre demo" in installed.run("leadre", "init", "my ads", cwd=tmp_path)
    recipe = ["recipes/demo.toml", *(part for value in TINY for part in ("--set", value))]
    write_data(project / "my data", now=datetime.now(UTC))

    def typed(*lines: str) -> str:
        """Run lines in a new shell, as the project's README shows them."""
        return installed.run("bash", "-euo", "pipefail", "-c", "\n".join(lines), cwd=project)

    installed.environment.update(LEADRE_BEAM_WIDTH="8")
    typed("leadre services up")
    try:
        env = 'eval "$(leadre env)"'
        typed(env, "alembic upgrade head", "alembic check")
        assert "(head)" in typed(env, "alembic current")
        assert re.search(r"ads +48", typed("leadre import parquet 'my data'"))
        typed("leadre summarize")
        assert "48 ads" in installed.run("leadre", "index", "build", *recipe, cwd=project)
        installed.run("leadre", "train", *recipe, "--name", "tiny", cwd=project)
        assert "tiny is live" in typed("leadre release promote")
        typed(env, "feast -c feature_repo apply")
        typed("leadre materialize")

        port = free_port()
        worker = (
            "celery -A workers.app worker -Q retrieval,ingest --pool=threads -c 1 --without-gossip --without-mingle"
        )
        with (
            running(installed, worker + " --without-heartbeat", cwd=project) as worker_log,
            running(installed, f"leadre serve user-server --port {port}", cwd=project) as server_log,
        ):
            told = [worker_log, server_log]
            url = f"http://127.0.0.1:{port}"
            clicked = {"behaviors": [click_on(ADS[3])]}
            for user in USERS[:5]:
                taken = answered(f"{url}/v1/users/{user}/behaviors", told, body=clicked, having="accepted")
                assert taken["accepted"] == 1
            for user in USERS[:5]:
                found = answered(f"{url}/v1/users/{user}/ads", told, having="ads")
                assert (found["user_id"], found["release"], len(found["ads"])) == (user, "tiny", 8)
                assert {ad["ad_id"] for ad in found["ads"]} <= set(ADS)
        typed("leadre report")
        assert "co-visitation" in (project / ".leadre/report.html").read_text()
    finally:
        typed("leadre services down")
    assert typed("leadre services status").count("down") == 2
    shutil.rmtree((project / ".leadre/services").resolve())  # under root it lies elsewhere: pytest's folders are closed
    shutil.rmtree(project)  # the servers hold nothing of it any more


def click_on(ad: str) -> dict[str, Any]:
    """Return a behavior of now, as the body of a request."""
    now = datetime.now(UTC).isoformat()
    return {"domain": "ad", "action": "click", "item_id": ad, "occurred_at": now}


def write_data(folder: Path, *, now: datetime) -> None:
    """Write ads, users, behaviors and impressions with text ids, as an export of somebody's database."""
    folder.mkdir()
    chosen = random.Random(7)
    categories = ("Sofas", "Lamps", "Rugs", "Chairs")
    ads = [(ad, f"{categories[n % 4][:-1]} model {n}", "Home", categories[n % 4], 0.5) for n, ad in enumerate(ADS)]
    behaviors, impressions = [], []
    for n, user in enumerate(USERS):
        taste = [ad for place, ad in enumerate(ADS) if place % 4 == n % 4]
        for place, ad in enumerate(chosen.sample(taste, 8)):
            at = now - timedelta(days=9 - place, minutes=n)
            behaviors.append((user, "ad", "click", ad, at.isoformat()))
            impressions.append((user, ad, at.isoformat(), chosen.randint(1, 90), "yes"))
            impressions.append((user, chosen.choice(ADS), (at + timedelta(minutes=1)).isoformat(), 50, "no"))
    write_csv(folder / "ads.csv", ("ad_id", "name", "first_category", "second_category", "bid"), ads)
    write_csv(folder / "users.csv", ("user_id", "age"), [(user, 20 + n) for n, user in enumerate(USERS)])
    write_csv(folder / "behaviors.csv", ("user_id", "domain", "action", "item_id", "occurred_at"), behaviors)
    write_csv(folder / "impressions.csv", ("user_id", "ad_id", "occurred_at", "ecpm", "clicked"), impressions)


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@contextmanager
def running(installed: Installed, command: str, *, cwd: Path) -> Iterator[Path]:
    """Run a process beside the block, which must end well when it is told to; gives its log."""
    log = cwd / f"{command.split()[0]}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command.split(), cwd=cwd, env=installed.environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            yield log
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    assert process.returncode in {0, -15}, log.read_text()[-3000:]


def answered(
    url: str,
    logs: Sequence[Path],
    *,
    body: dict[str, Any] | None = None,
    having: str | None = None,
    within_s: float = 90,
) -> dict[str, Any]:
    """Return a JSON answer in which a field is not empty, asking until there is one.

    When there is none in time, this says what the processes have logged. An answer of 503 means: ask again.
    """
    data = None if body is None else json.dumps(body).encode()
    end = time.monotonic() + within_s
    found: dict[str, Any] | None = None
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=10) as response:
                found = json.load(response)
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise AssertionError(f"{url}: {error.code} {error.read().decode()}") from None
        except urllib.error.URLError:
            pass  # nobody listens yet
        if found and (having is None or found[having]):
            return found
        time.sleep(0.1)
    raise AssertionError("\n".join([f"{url}: {found}", *(log.read_text()[-3000:] for log in logs)]))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
