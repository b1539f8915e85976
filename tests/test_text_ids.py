"""Text ids end to end: what a user wrote goes in and comes out; the 64-bit number behind it is never shown.

A walk through import, index, training, refresh, decoding, trace, report, HTTP, ranker features and errors, with ids
that are texts. Whatever it prints, logs or writes for people is searched for the numbers that the texts stand for.
"""

from __future__ import annotations

import csv
import json
import logging
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from _pytest.capture import CaptureResult
from sqlalchemy import text
from starlette.testclient import TestClient

from leadre.cli import main
from leadre.cli.terminal import console
from leadre.domain.identity import id_of, stable_id
from leadre.errors import UnknownAd
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.serving import mixer, user_server
from leadre.settings import Settings
from leadre.store.features.client import FeatureClient
from leadre.store.records.database import connect, transaction
from workers.resources import Resources

NOW = datetime.now(UTC).replace(microsecond=0)

ODD_ADS = ("Größe 7/8", "tea [red] *new*", "<b>_x_", "a|b, c", "007", "茶 ☕", "`-`")
ADS = (*ODD_ADS, *(f"SKU-{number}" for number in range(1, 25)), 31)
ODD_USERS = ("anna maria", "Jörg/Ö", "用户 7", "[bold]")
USERS = (*ODD_USERS, *(f"user_{number}" for number in range(20)), 12)
CONTENT = tuple(f"video #{number}" for number in range(6))
BRANDS = ("Lu & Co", "Venmira")
OTHERS = ("SKU-new", "SKU-bad", "SKU-404", "user_404")
TEXTS = {name for name in (*ADS, *USERS, *CONTENT, *BRANDS, *OTHERS) if not isinstance(name, int)}

RECIPE = """
[index]
encoder = "hashed"
quantiser = "residual_kmeans"
levels = 2
codes = 8

[prompt]
template = "one_pass"
budget_tokens = 384

[model]
hidden_size = 16
layers = 1
heads = 2
feed_forward = 32
text_vocabulary = 400

[sft]
epochs = [0.5, 0.5, 0.5]
batch_size = 16
device_batch_size = 16

[dpo]
max_pairs = 8
batch_size = 8

[evaluation]
baselines = []

[decoding]
beam_width = 6
"""


@dataclass(kw_only=True)
class Walk:
    """The commands of one user, and everything people can read of what they did: `read`, by where it stands."""

    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch
    read: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, fails: bool = False) -> str:
        """Run `leadre` with these arguments, which succeeds or fails; return what it printed, on both streams."""
        return "".join(self._run(*arguments, fails=fails))

    def answer(self, *arguments: str) -> Any:
        """Run `leadre` with these arguments and `--json`; return what it answered."""
        return json.loads(self._run(*arguments, "--json", fails=False).out.splitlines()[-1])

    def _run(self, *arguments: str, fails: bool) -> CaptureResult[str]:
        self.monkeypatch.setattr(sys, "argv", ["leadre", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = self.capsys.readouterr()
        said = self.read[f"leadre {' '.join(arguments)}"] = printed.out + printed.err
        assert bool(ended.value.code) is fails, said
        return printed

    def numbers(self) -> list[str]:
        """Return the places where a number stands for a text."""
        names = {str(stable_id(name)): name for name in TEXTS}
        return [
            f"{place}: {number} for {names[number]!r}"
            for place, said in self.read.items()
            for number in names
            if number in said
        ]


@pytest.fixture
def database_url(applied_database_url: str) -> str:
    """The feature store is applied already: that takes seconds."""
    return applied_database_url


@pytest.fixture
def walk(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Walk:
    for name, value in environment.items():
        if name.startswith("LEADRE_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("LEADRE_BEAM_WIDTH", "6")
    monkeypatch.setattr(console, "_width", 2000)  # a number that is cut would not be found
    return Walk(capsys=capsys, monkeypatch=monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.mkdir()
    write(
        made / "ads.csv",
        ("ad_id", "name", "first_category", "second_category", "advertiser_id", "bid"),
        [
            (
                ad,
                f"{('green', 'black', 'mild')[n % 3]} tea {n}",
                "Food",
                ("Tea", "Coffee")[n % 2],
                BRANDS[n % 2],
                0.5 + n,
            )
            for n, ad in enumerate(ADS)
        ],
    )
    write(made / "users.csv", ("user_id", "age", "arpu"), [(user, 20 + n, n) for n, user in enumerate(USERS)])
    write(made / "content_items.csv", ("content_id", "title", "category"), [(it, f"on {it}", "Tea") for it in CONTENT])
    clicks = [(n, place, (5 * n + 3 * place) % len(ADS)) for n in range(len(USERS)) for place in range(5)]
    behaviors = [
        (USERS[n], "ad", "click", ADS[ad], NOW - timedelta(days=9 - place, minutes=n)) for n, place, ad in clicks
    ]
    behaviors += [
        (user, "content", "watch", CONTENT[n % len(CONTENT)], NOW - timedelta(hours=5)) for n, user in enumerate(USERS)
    ]
    header = ("user_id", "domain", "action", "item_id", "occurred_at")
    write(made / "behaviors.csv", header, [(*row[:-1], row[-1].isoformat()) for row in behaviors])
    write(
        made / "impressions.csv",
        ("user_id", "ad_id", "occurred_at", "ecpm", "clicked"),
        [
            (
                USERS[n],
                ADS[(ad + other) % len(ADS)],
                (NOW - timedelta(days=9 - place, minutes=n)).isoformat(),
                3 + ad,
                not other,
            )
            for n, place, ad in clicks
            for other in (0, 1)
        ],
    )
    return made


def write(path: Path, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.mark.slow
def test_no_number_stands_where_the_user_wrote_a_text(
    walk: Walk, folder: Path, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    _learn(walk, folder, tmp_path)
    _look(walk, settings, tmp_path)
    _serve(walk, settings)
    _rank(settings)
    _refresh_through_the_queue(settings)
    _change_the_inventory(walk, folder, settings)
    _ask_for_what_is_not_there(walk)
    for file in tmp_path.rglob("*"):
        if file.suffix in {".html", ".md", ".json", ".toml"}:
            walk.read[str(file)] = file.read_text()
    walk.read["logs"] = caplog.text + "".join(str(vars(record)) for record in caplog.records)
    assert walk.numbers() == []
    assert len(walk.read) > 30


def _learn(walk: Walk, folder: Path, tmp_path: Path) -> None:
    """From a folder to a live release."""
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE)
    walk.run("import", "parquet", str(folder))
    walk.run("summarize")
    walk.run("index", "build", str(recipe))
    walk.run("train", str(recipe), "--name", "tiny")
    walk.run("release", "promote", "tiny")
    assert walk.answer("evaluate", "tiny")["release"] == "tiny"


def _look(walk: Walk, settings: Settings, tmp_path: Path) -> None:
    """Lists, walks and pages of users, asked for as their owner names them."""
    refreshed = walk.answer("refresh", *map(str, USERS))
    assert [made["user"] for made in refreshed] == list(USERS)
    assert {ad for made in refreshed for ad in made["ads"]} <= set(ADS)
    assert "user_5" in walk.run("refresh", "user_5", "12")

    decoded = walk.answer("decode", "Jörg/Ö", "12")
    assert [of_user["user"] for of_user in decoded] == ["Jörg/Ö", 12]
    assert {beam["ad"] for of_user in decoded for beam in of_user["ads"]} <= set(ADS)
    assert "[bold]" in walk.run("decode", *ODD_USERS)

    shown = walk.run("trace", "Jörg/Ö", *ODD_ADS, "31")
    assert [name for name in ("Jörg/Ö", *ODD_ADS, "31") if name not in shown] == []
    walk.run("trace", "--markdown", str(tmp_path / "walk.md"))
    walk.run("report", "--user", "anna maria")
    assert "User anna maria" in (settings.home / "report.html").read_text()


def _serve(walk: Walk, settings: Settings) -> None:
    """Lists out and behaviors in, over HTTP."""
    path = f"/v1/users/{quote('Jörg/Ö', safe='')}"
    for application, what in ((user_server.create_app(settings), "ads"), (mixer.create_app(settings), "candidates")):
        with TestClient(application) as client:
            until = time.monotonic() + 60
            while (answer := client.get(f"{path}/{what}")).json()["degraded"] and time.monotonic() < until:
                time.sleep(0.1)
            walk.read[what] = answer.text
            assert answer.json()["user_id"] == "Jörg/Ö"
            assert len(named := {ad["ad_id"] for ad in answer.json()["ads"]}) >= 6
            assert named <= set(ADS)
            for name in ("/", "/metrics", f"{path}/{what}?limit=0", "/v1/users/SKU%00/ads"):
                walk.read[f"{what} {name}"] = client.get(name).text
            if what == "ads":
                click = {"domain": "ad", "action": "click", "occurred_at": datetime.now(UTC).isoformat()}
                new = {"behaviors": [{**click, "item_id": "SKU-1"}, {**click, "item_id": "SKU-404"}]}
                reported = client.post(f"{path}/behaviors?wait=stored", json=new)
                walk.read["behaviors"] = reported.text
                assert (reported.status_code, reported.json()["unknown_ads"]) == (202, 1)
                walk.read["refused"] = client.post(f"{path}/behaviors", json={"behaviors": [{"item_id": "SKU-1"}]}).text


def _rank(settings: Settings) -> None:
    """A ranker asks with its own ids and gets them back."""
    client = FeatureClient(settings.feature_repo, settings.feast_environment())
    try:
        found = client.ranker_features("Jörg/Ö", ADS, now=datetime.now(UTC))
    finally:
        client.close()
    assert found["ad_id"] == list(ADS)
    assert sum(found["hit"]) == 6


def _refresh_through_the_queue(settings: Settings) -> None:
    """What a worker does, with what it logs."""
    RefreshQueue.connect(settings.redis_url).mark([id_of(user) for user in USERS])
    drained = Resources(settings).drain()
    assert drained is not None
    assert drained.refreshed == len(USERS)


def _change_the_inventory(walk: Walk, folder: Path, settings: Settings) -> None:
    """Ads pause, end and come; one of the new ones gets no S-ID."""
    assert [ad["ad_id"] for ad in walk.answer("ads", "show", *ODD_ADS, "31")] == [*ODD_ADS, 31]
    assert "Größe 7/8" in walk.run("ads", "show", *ODD_ADS)
    walk.run("ads", "pause", "SKU-1", ODD_ADS[0])
    walk.run("ads", "schedule", "SKU-2", "--until", "2099-01-01")
    write(folder / "ads.csv", ("ad_id", "name"), [*((ad, "tea") for ad in ADS), ("SKU-new", "cup"), ("SKU-bad", "pot")])
    walk.run("import", "parquet", str(folder))
    database = connect(settings.database_url)
    with transaction(database) as connection:
        connection.execute(text("UPDATE ads SET name = '' WHERE source_id = 'SKU-bad'"))
    database.dispose()
    assert "ad 'SKU-bad' for one" in walk.run("index", "add")
    assert "ad 'SKU-bad' has no name" in walk.run("index", "build", str(folder.parent / "tiny.toml"), fails=True)


def _ask_for_what_is_not_there(walk: Walk) -> None:
    """What cannot be done is said with the ids that were given."""
    assert "ad 'SKU-404' is not in the catalog" in walk.run("trace", "user_5", "SKU-1", "SKU-404", fails=True)
    assert "user 'user_404' is not in the catalog" in walk.run("decode", "user_5", "user_404", fails=True)
    assert "user_404" in walk.run("refresh", "user_404")  # a list without any history
    assert "user_404" in walk.run("trace", "user_404", "SKU-1")
    for verb in ("show", "pause", "resume", "exhaust", "refill", "schedule"):
        assert "ad 'SKU-404' is not in the catalog" in walk.run("ads", verb, "SKU-404", fails=True)


@pytest.mark.parametrize(
    ("file", "row", "named"),
    [
        ("ads.csv", ("SKU-1", "tea", "Food", "Tea", "", 1), "SKU-1"),
        ("users.csv", ("anna maria", 20, 1), "anna maria"),
        ("behaviors.csv", ("user_1", "ad", "click", "SKU-404", "2026-01-01T00:00:00Z"), "SKU-404"),
    ],
)
def test_a_row_that_an_import_refuses_is_named_as_in_the_file(
    walk: Walk, folder: Path, file: str, row: tuple[object, ...], named: str
) -> None:
    with (folder / file).open("a", newline="") as opened:
        csv.writer(opened).writerow(row)
    said = walk.run("import", "parquet", str(folder), fails=True)
    assert named in said
    assert walk.numbers() == []


def test_an_error_from_far_inside_is_printed_with_the_owners_ids(
    walk: Walk, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk.run("import", "parquet", str(folder))

    def broken(**_: object) -> None:
        raise UnknownAd(f"index i1 has no ad {stable_id('Größe 7/8')}").about(ads=[stable_id("Größe 7/8")])

    monkeypatch.setattr("leadre.pipelines.summarize.summarize", lambda *_, **__: broken())
    assert walk.run("summarize", fails=True) == "error: index i1 has no ad 'Größe 7/8'\n"
    walk.monkeypatch.setenv("LEADRE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    assert "no ad" in walk.run("summarize", fails=True)  # the error itself, not the failed look-up of the name


def test_an_error_is_told_whatever_keeps_its_names_from_being_looked_up(
    walk: Walk, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: object) -> None:
        raise UnknownAd("index i1 has no ad 5").about(ads=[5])

    monkeypatch.setattr("leadre.pipelines.summarize.summarize", lambda *_, **__: broken())
    monkeypatch.setattr("leadre.cli.daily.settings", lambda: SimpleNamespace(database_url=""))
    for url in (empty_database_url, "mysql://nobody@127.0.0.1/nothing"):
        monkeypatch.setenv("LEADRE_DATABASE_URL", url)
        assert walk.run("summarize", fails=True) == "error: index i1 has no ad 5\n"
