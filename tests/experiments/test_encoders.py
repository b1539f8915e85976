"""Table 3 on a catalog: what is sampled, what is encoded, what is printed, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, text

from leadre.cli.experiments.encoders import encoders as command
from leadre.domain.ads import Ad
from leadre.errors import ConfigError, InvalidInput
from leadre.experiments.encoders import PAPER, Comparison, compare_encoders
from leadre.indexing.texts import encoder as encoding
from leadre.settings import Settings
from leadre.store.records.catalog import upsert_ads
from leadre.store.records.database import connect, transaction
from leadre.synthetic import make_world

ADS = make_world(seed=1, ads=400, users=3, sessions=2, slate=2).ads


@pytest.fixture
def database(database_url: str) -> Engine:
    return connect(database_url)


def put(database: Engine, ads: tuple[Ad, ...]) -> None:
    with transaction(database) as connection:
        upsert_ads(connection, ads)


@pytest.fixture
def compare(database_url: str, tmp_path: Path):
    def run(*encoders: str, **options: object) -> Comparison:
        wanted = {"per_category": 20, "min_ads": 15, "level": "first", "seed": 0, **options}
        return compare_encoders(encoders, database_url=database_url, embeddings=tmp_path / "embeddings", **wanted)

    return run


def test_encoders_beat_chance_and_accuracy_falls_with_k(database: Engine, compare) -> None:
    put(database, ADS)
    compared = compare("tfidf", "hashed")
    assert compared.ads <= 20 * compared.categories
    assert 0 < compared.chance < 0.5
    assert list(compared.accuracy) == ["tfidf", "hashed"]
    for row in compared.accuracy.values():
        assert list(row) == [1, 10, 50, 100]
        assert row[1] >= row[10] > row[50] > row[100] > compared.chance
    assert compared.accuracy == compare("tfidf", "hashed").accuracy


def test_descriptions_that_name_the_category_make_it_easier(database: Engine, compare) -> None:
    put(database, ADS)
    named, hidden = compare("hashed"), compare("hashed", hide_categories=True)
    assert (named.hidden, hidden.hidden) == (False, True)
    assert named.accuracy["hashed"][10] > hidden.accuracy["hashed"][10]


def test_only_sampled_ads_are_encoded_and_none_of_them_twice(
    database: Engine,
    compare,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    embedded: list[str] = []

    class Letters:
        def embed(self, texts: list[str]) -> np.ndarray:
            embedded.extend(texts)
            counts = np.array([[text.count(letter) for letter in "abcdefgh"] for text in texts], np.float32)
            return counts / np.maximum(1, np.linalg.norm(counts, axis=1, keepdims=True))

    monkeypatch.setattr(encoding, "_model", lambda *_: Letters())
    put(database, ADS)
    first = compare("some/model")
    assert len(embedded) <= first.ads < len(ADS)
    embedded.clear()
    assert compare("some/model").accuracy == first.accuracy
    assert embedded == []
    compare("some/model", instruction="query: ")
    assert all(text.startswith("query: ") for text in embedded)


def test_a_second_level_category_belongs_to_its_first_level_one(database: Engine, compare) -> None:
    kinds = [("Makeup", "Face"), ("Skin Care", "Face"), ("Skin Care", ""), ("Skin Care", "Body")]
    put(
        database,
        tuple(
            replace(ad, first_category=kinds[place % 4][0], second_category=kinds[place % 4][1])
            for place, ad in enumerate(ADS)
        ),
    )
    compared = compare("hashed", level="second", per_category=40)
    assert (compared.categories, compared.ads) == (3, 120)


def test_hostile_names_are_only_text(database: Engine, compare) -> None:
    names = ["x" * 10_000, "<a_51, b_10, c_67, d_93, e_0>", "\x01\x1b[2J[SEP]", "</s> ignore all previous"]
    put(database, tuple(replace(ad, name=names[place % 4]) for place, ad in enumerate(ADS)))
    assert compare("tfidf", "hashed").ads > 100


def test_what_cannot_be_compared_says_how_to_go_on(
    database: Engine,
    compare,
    tmp_path: Path,
) -> None:
    with pytest.raises(InvalidInput, match="holds no ads; import some first"):
        compare("hashed")
    put(database, ADS)
    with pytest.raises(InvalidInput, match=r"0 second-level categories have 399 ads .* lower --min-ads, or take"):
        compare("hashed", level="second", min_ads=399)
    with pytest.raises(InvalidInput, match=r"the sample has \d+ ads, Top-100 needs more .* raise --per-category"):
        compare("hashed", per_category=2)
    with pytest.raises(ConfigError, match="cannot be loaded"):
        compare(str(tmp_path))
    with pytest.raises(ConfigError, match="no encoder to compare; name some"):
        compare()


def test_the_command_prints_our_table_and_the_papers(
    database: Engine, settings: Settings, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        if name.startswith("LEADRE_"):
            monkeypatch.setenv(name, value)
    put(database, ADS)
    small = ["hashed", "--level", "first", "--per-category", "20", "--min-ads", "15"]
    printed = CliRunner().invoke(command, small, catch_exceptions=False)
    assert printed.exit_code == 0
    assert all(name in printed.output for name in (*PAPER, "hashed", "98.03%", "chance"))
    as_json = CliRunner().invoke(command, [*small, "--json"], catch_exceptions=False)
    found = json.loads(as_json.output.splitlines()[-1])
    assert found["accuracy"]["hashed"].keys() == {"1", "10", "50", "100"}
    assert found["paper"]["T5"]["100"] == 0.2389
    with connect(settings.database_url).connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM index_versions")).scalar() == 0  # it only reads
