"""`leadre release export`: others load the folder with transformers alone, and find the same ads."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, AutoTokenizer

import leadre
from leadre.cli import cli
from leadre.errors import ArtifactIncomplete, ConfigError
from leadre.pipelines.learning.export import export_release
from leadre.pipelines.refresh import refresh_users
from leadre.settings import Settings
from leadre.store.records.database import connect, transaction
from tests.live_world import LiveWorld, make_live_world


@pytest.fixture
def world(applied: Settings, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> LiveWorld:
    for name, value in environment.items():
        if name.startswith("LEADRE_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("LEADRE_DATABASE_URL", applied.database_url)
    return make_live_world(applied)


def test_the_cards_own_code_finds_our_engines_best_ad(
    world: LiveWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, now = tmp_path / "exported", world.world.now
    done = CliRunner().invoke(cli, ["release", "export", str(folder)])
    assert done.exit_code == 0, done.output
    refresh_users(world.settings, world.user_ids, now=now)
    card = (folder / "README.md").read_text()
    assert not re.search(r"\{[a-z_]+\}", card.split("```")[0])
    code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[0]
    printed: list[list[dict[str, object]]] = []
    with leadre.load(settings=world.settings) as live:
        for user in world.user_ids[:6]:
            prompt_ids = live._retriever.encoder.encode(live.prompt(user, now=now))
            (expected,) = live.retrieve(user, now=now, beam_width=1, filtered=False)
            found = {"folder": str(folder), "prompt_ids": prompt_ids, "print": printed.append}
            exec(code, found)
            (row,) = printed.pop()
            assert row["sid"] == expected.ads[0].sid
            assert row["ad"] == str(expected.ads[0].ad.ad)


def test_the_folder_is_the_release_and_its_index(world: LiveWorld, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    export(world, folder)
    release, index = world.settings.releases / "r1", world.index
    ours = AutoModelForCausalLM.from_pretrained(release / "model", use_safetensors=True)
    model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
    for name, value in ours.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    sids, trie = pq.read_table(folder / "sids.parquet"), pq.read_table(folder / "trie.parquet").to_pandas()
    assert sids["ad_id"].to_pylist() == index.ad_ids.tolist()
    assert sids["sid"].to_pylist() == [str(index.sid_at(row)) for row in range(len(index))]
    assert tokenizer.convert_tokens_to_ids(trie["token"].tolist()) == trie["token_id"].tolist()
    assert trie["node"].tolist() == list(range(1, len(trie) + 1))
    assert (trie["parent"] < trie["node"]).all()
    code, parent = (
        dict(zip(trie["node"], trie["code"], strict=True)),
        dict(zip(trie["node"], trie["parent"], strict=True)),
    )
    deepest = trie[trie["depth"] == index.trie.levels]
    assert deepest["first_leaf"].tolist() == list(range(len(index)))
    for node, leaf in zip(deepest["node"], deepest["first_leaf"], strict=True):
        spelled = []
        while node:
            spelled.insert(0, code[node])
            node = parent[node]
        assert np.array_equal(spelled, index.codes[leaf])


def test_it_is_whole_or_absent_and_overwrites_nothing(world: LiveWorld, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists; name a folder that does not"):
        export(world, folder)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    (world.settings.releases / "r1" / "vocabulary.json").unlink()
    with pytest.raises(ArtifactIncomplete):
        export(world, tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir() if "other" in path.name] == []


def test_a_failure_on_the_way_leaves_nothing(world: LiveWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pq.ParquetWriter, "write_table", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        export(world, tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir() if "other" in path.name] == []


def export(world: LiveWorld, folder: Path) -> None:
    database = connect(world.settings.database_url)
    try:
        with transaction(database) as connection:
            export_release(connection, world.settings.releases / "r1", index=world.index, folder=folder)
    finally:
        database.dispose()
