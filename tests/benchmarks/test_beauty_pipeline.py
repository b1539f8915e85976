"""The Beauty pipeline's script: a sample is whole, and a step's seconds are those of what it reports."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest


def test_a_sample_has_all_events_of_its_users_and_the_items_of_these(tmp_path: Path) -> None:
    module = importlib.import_module("beauty_pipeline")
    data, folder = tmp_path / "data", tmp_path / "sample"
    data.mkdir()
    folder.mkdir()
    events = [f"{user}\t{1 + (user * at) % 9}\t{at}\n" for user in range(1, 8) for at in range(1, 5)]
    (data / "interactions.tsv").write_text("user_id\titem_id\ttimestamp\n" + "".join(events))
    (data / "items.jsonl").write_text("".join(json.dumps({"item_id": item}) + "\n" for item in range(1, 12)))
    module.sampled(data, folder, users=3)
    header, *rows = (folder / "interactions.tsv").read_text().splitlines(keepends=True)
    assert header == "user_id\titem_id\ttimestamp\n"
    users = {row.split("\t")[0] for row in rows}
    assert len(users) == 3
    assert rows == [event for event in events if event.split("\t")[0] in users]
    items = [json.loads(line)["item_id"] for line in (folder / "items.jsonl").read_text().splitlines()]
    assert items == sorted({int(row.split("\t")[1]) for row in rows})


def test_the_time_up_to_a_report_is_that_of_the_last_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module("beauty_pipeline")
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    clock = module.Clock()
    with clock.step("train"):
        for at, what in ((2.0, "SASRec epochs"), (5.0, "SASRec epochs"), (9.0, "train: main"), (10.0, "train: main")):
            now[0] = at
            clock.report(what, 1, 2)
        now[0] = 12.0
    assert clock.steps == {"train": 12.0}
    assert clock.inside == {"train: else": 2.0, "train: SASRec epochs": 7.0, "train: train: main": 3.0}
    assert "12.0 s" in capsys.readouterr().out
