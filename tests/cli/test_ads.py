"""`leadre ads`: states are shown and changed; what cannot be is one line with a remedy."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from leadre.cli import cli, main
from leadre.cli.terminal import console
from leadre.domain.ads import Ad
from leadre.domain.identity import id_of
from leadre.domain.targeting import Targeting
from leadre.settings import Settings
from leadre.store.records.catalog import upsert_ads
from leadre.store.records.database import connect, transaction

NAMES = ("SKU-1", 1001, "Größe [7] / 8")


@pytest.fixture
def filled(environment: dict[str, str], settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        if name.startswith("LEADRE_"):
            monkeypatch.setenv(name, value)
    ads = [
        Ad(
            ad_id=id_of(NAMES[number]),
            source_id=str(NAMES[number]),
            name=f"Sofa {number}",
            ad_type="",
            first_category="",
            second_category="",
            attributes=(),
            advertiser_id=0,
            bid=1.0,
            bid_simulated=number > 0,
            targeting=Targeting.of({"age": [18, 45]} if number else {}),
            created_at=datetime(2025, 1, 1, tzinfo=UTC),
        )
        for number in range(3)
    ]
    database = connect(settings.database_url)
    with transaction(database) as connection:
        upsert_ads(connection, ads)
    database.dispose()


def run(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["ads", *arguments])
    assert done.exit_code == 0, done.output + str(done.exception)
    return done.output


def states(*arguments: str) -> list[str]:
    return [ad["state"] for ad in json.loads(run("show", *map(str, NAMES), "--json", *arguments))]


def test_ads_are_paused_exhausted_and_scheduled_and_brought_back(filled: None) -> None:
    assert states() == ["running"] * 3
    assert "paused: 1 ads" in run("pause", "SKU-1")
    assert "paused: 1 ads; 1 were so already" in run("pause", "SKU-1", "1001", "SKU-1")
    assert "out of budget: 2 ads" in run("exhaust", "1001", NAMES[2], "1001")
    run("resume", "1001")
    run("schedule", NAMES[2], "--from", "2026-06-01", "--until", "2026-07-01T12:00:00+02:00")
    run("refill", NAMES[2])
    assert states("--now", "2026-05-31T23:59:59") == ["paused", "out of budget", "not started"]
    assert states("--now", "2026-06-01") == ["paused", "out of budget", "running"]
    assert states("--now", "2026-07-01T10:00:00") == ["paused", "out of budget", "ended"]
    run("resume", "SKU-1", "1001")
    run("schedule", NAMES[2])
    run("refill", "1001")
    assert states() == ["running"] * 3


def test_ads_are_shown_as_their_owner_names_them_in_the_order_asked_for(
    filled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_width", 160)
    shown = run("show", NAMES[2], "SKU-1", NAMES[2])
    assert shown.index("Größe [7] / 8") < shown.index("SKU-1")
    assert shown.count("Größe") == 1
    assert '{"age": [18, 45]}' in shown
    facts = json.loads(run("show", NAMES[2], "1001", "--json"))
    assert [ad["ad_id"] for ad in facts] == [NAMES[2], 1001]
    assert not any(str(id_of(name)) in shown + str(facts) for name in (NAMES[0], NAMES[2]))


def test_ads_without_a_real_bid_get_one_of_the_market(filled: None, tmp_path: Path) -> None:
    (tmp_path / "prices.txt").write_text("0 70 0.002\n")
    said = run("price", "--prices", str(tmp_path / "prices.txt"), "--seed", "3")
    assert "simulated bids: 2 ads, 2 of them changed; 1 have real ones and keep them" in " ".join(said.split())
    shown = json.loads(run("show", *map(str, NAMES), "--json"))
    assert [(ad["bid"], ad["bid_simulated"]) for ad in shown] == [(1.0, False), (35.0, True), (35.0, True)]
    assert "35" in run("show", "1001")
    assert "simulated" in run("show", "1001")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["pause", "SKU-1", "7"], "ad 7 is not in the catalog (1 of 2 are not there); import it first"),
        (["show", "SKU-7"], "ad 'SKU-7' is not in the catalog (1 of 1 are not there); import it first"),
        (["exhaust", "SKU-7 "], "'SKU-7 ' is no id; a text is one line"),
        (["price", "--prices", "nowhere.txt"], "nowhere.txt: the file does not exist"),
        (["schedule", "SKU-1", "--from", "2026-07-01", "--until", "2026-06-01"], "is not after the start"),
    ],
)
def test_what_cannot_be_done_is_one_line_with_a_remedy(
    filled: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    problem: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["leadre", "ads", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    said = capsys.readouterr().err.strip()
    assert problem in said
    assert "\n" not in said
