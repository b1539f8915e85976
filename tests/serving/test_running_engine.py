"""`leadre serve engine` as an operator starts it: without PostgreSQL, Redis and Feast, and killed under load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from leadre.artifacts import write_artifact
from leadre.decoding.load import load_engine
from leadre.decoding.release import load_remote
from leadre.decoding.remote import Instance
from leadre.errors import ReleaseMismatch, Unavailable
from leadre.indexing.ad_index import AdIndex
from leadre.prompts.vocabulary import Vocabulary
from tests.decoding.remote_server import index_of, save

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with an index of 40 ads and two releases for it, without models."""

    def write(folder: Path) -> None:
        (folder / "vocabulary.json").write_text(json.dumps(Vocabulary(text_size=23, code_counts=(8, 8, 8)).to_json()))
        (folder / "recipe.toml").write_text('[decoding]\nscore = "raw"\n')

    for name in ("r1", "r2"):
        write_artifact(tmp_path / "releases" / name, kind="release", facts={"index_version": "v1"}, write=write)
    save(index_of(40), tmp_path / "indexes" / "v1")
    return tmp_path


@contextmanager
def serving(home: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the server; give it and its address."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("LEADRE_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "leadre", "serve", "engine", "--port", "0", "--engine", "stub", *arguments],
        env={**inherited, "LEADRE_HOME": str(home), "LEADRE_ENGINE": "remote", "LEADRE_ENGINE_URLS": "http://a:1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    try:
        line = process.stdout.readline()
        yield process, line.split()[2].rstrip(",")
    finally:
        process.kill()
        process.wait(60)
        process.stdout.close()


def ready(url: str) -> None:
    """Wait until the release is loaded."""
    end = time.monotonic() + 120
    while httpx.get(f"{url}/readyz", timeout=60).status_code != 200:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_named_release_is_served_with_nothing_but_its_folders(home: Path) -> None:
    index, releases = AdIndex.load(home / "indexes" / "v1"), home / "releases"
    here = load_engine(releases / "r1", index=index, kind="stub")
    prompts = [[1, 2], [3], [4, 5, 6]]
    with serving(home, "--release", "r1") as (process, url):
        ready(url)
        ask = Instance(url=url).ask
        there = load_remote(releases / "r1", index=index, ask=ask)
        assert there.generate(prompts, beam_width=7) == here.generate(prompts, beam_width=7)
        assert there.score == "raw"
        with pytest.raises(ReleaseMismatch, match="release r1 is served here, the request is for r2"):
            load_remote(releases / "r2", index=index, ask=ask).generate(prompts, beam_width=7)
        process.terminate()
        assert process.wait(60) in (0, -15)
        with pytest.raises(Unavailable, match="is it running"):
            there.generate(prompts, beam_width=7)
