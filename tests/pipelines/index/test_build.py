"""The index pipeline over a real database: built once, grown by new ads, interrupted without harm."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier

import msgspec
import numpy as np
import pytest
from sqlalchemy import Engine, text

from leadre.domain.ads import Ad
from leadre.errors import ArtifactIncomplete, InvalidInput, LeadreError, ReleaseMismatch, Unavailable
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.texts import encoder
from leadre.pipelines.index import build as pipeline
from leadre.pipelines.index import publish as publish_index
from leadre.pipelines.index.build import Addition
from leadre.recipe import IndexRecipe
from leadre.store.records.catalog import upsert_ads
from leadre.store.records.database import connect, transaction
from leadre.synthetic import make_world

NOW = datetime(2025, 6, 1, tzinfo=UTC)
RECIPE = IndexRecipe(encoder="hashed", quantiser="residual_kmeans", levels=3, codes=8, width=4)
ADS = make_world(seed=1, ads=120, users=3, sessions=2, slate=2).ads


@pytest.fixture
def database(database_url: str) -> Engine:
    return connect(database_url)


@pytest.fixture
def indexes(tmp_path: Path) -> Path:
    return tmp_path / "indexes"


def put(database: Engine, ads: tuple[Ad, ...]) -> None:
    with transaction(database) as connection:
        upsert_ads(connection, ads)


def recorded(database: Engine) -> dict[int, str]:
    with transaction(database) as connection:
        return {row.ad_id: row.sid for row in connection.execute(text("SELECT ad_id, sid FROM semantic_ids"))}


def build(url: str, indexes: Path) -> AdIndex:
    return pipeline.build_index(database_url=url, indexes=indexes, recipe=RECIPE, now=NOW)


def add(url: str, indexes: Path, version: str, *, changed_since: int = 0) -> Addition:
    later = NOW + timedelta(minutes=1)
    return pipeline.add_new_ads(
        database_url=url, indexes=indexes, version=version, now=later, changed_since=changed_since
    )


def sids(index: AdIndex) -> dict[int, str]:
    return {ad_id: str(index.sid(ad_id)) for ad_id in index.ad_ids.tolist()}


def test_the_catalogs_ads_are_indexed_and_recorded_and_building_again_changes_nothing(
    database: Engine, database_url: str, indexes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(database, ADS)
    index = build(database_url, indexes)
    assert sorted(index.ad_ids.tolist()) == sorted(ad.ad_id for ad in ADS)
    assert recorded(database) == sids(index)
    with transaction(database) as connection:
        row = connection.execute(text("SELECT * FROM index_versions")).one()
    assert (row.index_version, row.uri) == (index.version, str(indexes / index.version))
    assert (row.recipe["codes"], row.quality["ads"]) == (8, 120)
    monkeypatch.setattr(pipeline, "fit_codebooks", None)  # must not be needed again
    assert sids(build(database_url, indexes)) == sids(index)


def test_new_ads_join_the_version_and_old_sids_stay(database: Engine, database_url: str, indexes: Path) -> None:
    put(database, ADS[:100])
    first = build(database_url, indexes)
    assert add(database_url, indexes, first.version).index.revision == 0  # nothing new
    for revision, known in ((1, 105), (2, 112), (3, 120)):
        put(database, ADS[:known])
        added = add(database_url, indexes, first.version)
        grown = added.index
        assert (grown.version, grown.revision, len(grown)) == (first.version, revision, known)
        assert sids(first).items() <= sids(grown).items()
        assert recorded(database) == sids(grown) == sids(AdIndex.load(indexes / first.version))
    kept = sorted(path.name for path in indexes.iterdir())
    assert kept == [first.version, f"{first.version}-r2", f"{first.version}-r3"]
    assert np.array_equal(first.trie.find(first.codes), np.arange(100))  # its files are gone, who has it open keeps it


def test_a_failure_while_publishing_leaves_index_and_records_as_they_were(
    database: Engine, database_url: str, indexes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(database, ADS[:110])
    first = build(database_url, indexes)
    put(database, ADS)

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(publish_index, "write_artifact", fail)
        with pytest.raises(OSError, match="no space"):
            add(database_url, indexes, first.version)
    assert recorded(database) == sids(first) == sids(AdIndex.load(indexes / first.version))
    assert len(add(database_url, indexes, first.version).index) == 120


def test_an_empty_catalog_and_an_index_that_is_not_there_are_refused(database_url: str, indexes: Path) -> None:
    with pytest.raises(InvalidInput, match="no ads"):
        build(database_url, indexes)
    with pytest.raises(ArtifactIncomplete, match="no manifest"):
        add(database_url, indexes, "never")
    assert not indexes.exists()


def state(database: Engine, indexes: Path) -> tuple[list[str], list[int], dict[int, str]]:
    with transaction(database) as connection:
        counts = [
            connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
            for table in ("index_versions", "semantic_ids")
        ]
    folders = sorted(path.name for path in indexes.iterdir()) if indexes.exists() else []
    newest = [path for path in indexes.iterdir() if path.is_symlink()] if indexes.exists() else []
    return folders, counts, sids(AdIndex.load(newest[0])) if newest else {}


class CountingModel:
    """A text model that counts what it embeds, and dies at will."""

    def __init__(self) -> None:
        self.embedded, self.dies_after = 0, 10**9

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        if self.embedded >= self.dies_after:
            raise KeyboardInterrupt
        self.embedded += len(texts)
        return encoder.encode(texts, encoder="hashed")


def test_a_build_that_was_killed_goes_on_and_other_codebooks_encode_nothing(
    database: Engine, database_url: str, indexes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = CountingModel()
    monkeypatch.setattr(encoder, "_model", lambda *_: model)
    monkeypatch.setattr(encoder, "SHARD_TEXTS", 1)
    put(database, ADS)
    recipe = IndexRecipe(encoder="some/model", quantiser="residual_kmeans", levels=3, codes=8, width=4)
    arguments = {"database_url": database_url, "indexes": indexes, "now": NOW}
    model.dies_after = 64
    with pytest.raises(KeyboardInterrupt):
        pipeline.build_index(**arguments, recipe=recipe)
    assert state(database, indexes) == ([], [0, 0], {})
    model.dies_after, done = 10**9, model.embedded
    first = pipeline.build_index(**arguments, recipe=recipe)
    assert 0 < done < model.embedded == len({pipeline.describe(ad) for ad in ADS})
    other = pipeline.build_index(**arguments, recipe=replace_recipe(recipe, codes=16))
    assert first.version != other.version
    assert model.embedded == len({pipeline.describe(ad) for ad in ADS})


def replace_recipe(recipe: IndexRecipe, *, codes: int) -> IndexRecipe:
    return msgspec.structs.replace(recipe, codes=codes)


def test_a_commit_that_fails_after_publishing_is_made_good_by_the_next_call(
    database: Engine, database_url: str, indexes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(database, ADS[:110])
    first = build(database_url, indexes)
    looked = add(database_url, indexes, first.version)
    put(database, ADS)
    write = publish_index._write

    def write_and_lose_the_connection(*arguments: object) -> None:
        write(*arguments)
        with transaction(database) as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = 'leadre index add' AND datname = current_database()"
                )
            )

    with monkeypatch.context() as patch:
        patch.setattr(publish_index, "_write", write_and_lose_the_connection)
        with pytest.raises(Unavailable):
            add(database_url, indexes, first.version, changed_since=looked.changed_until)
    assert recorded(database) == sids(first)
    assert len(AdIndex.load(indexes / first.version)) == 120
    monkeypatch.setattr(pipeline, "encode", lambda texts, **_: np.zeros((len(texts), 256), np.float32))
    again = add(database_url, indexes, first.version, changed_since=looked.changed_until)
    assert (again.ads, again.index.revision) == (0, 1)
    assert recorded(database) == sids(again.index)
    assert add(database_url, indexes, first.version).index.revision == 1


def test_processes_that_add_the_same_ads_at_once_add_them_once(
    database: Engine, database_url: str, indexes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(database, ADS[:110])
    first = build(database_url, indexes)
    put(database, ADS)
    together = Barrier(3)

    def encode(*arguments: object, **named: object) -> np.ndarray:
        together.wait(timeout=60)  # all have read the catalog, none has changed the index
        return encoder.encode(*arguments, **named)

    monkeypatch.setattr(pipeline, "encode", encode)
    with ThreadPoolExecutor(3) as pool:
        added = list(pool.map(lambda _: add(database_url, indexes, first.version), range(3)))
    assert sorted(one.ads for one in added) == [0, 0, 10]
    assert {one.index.revision for one in added} == {1}
    assert recorded(database) == sids(AdIndex.load(indexes / first.version))


def test_an_ad_committed_after_a_look_that_began_later_is_found_by_the_next_look(
    database: Engine, database_url: str, indexes: Path
) -> None:
    put(database, ADS[:110])
    first = build(database_url, indexes)
    looked = add(database_url, indexes, first.version)
    with transaction(database) as slow:
        upsert_ads(slow, ADS[110:114])
        put(database, ADS[114:116])
        looked = add(database_url, indexes, first.version, changed_since=looked.changed_until)
        assert looked.ads == 2
    looked = add(database_url, indexes, first.version, changed_since=looked.changed_until)
    assert looked.ads == 4
    assert add(database_url, indexes, first.version, changed_since=looked.changed_until).ads == 0


def test_what_a_killed_process_left_unfinished_is_removed(database: Engine, database_url: str, indexes: Path) -> None:
    put(database, ADS[:110])
    first = build(database_url, indexes)
    for name in (f".{first.version}-r1.abc", f"{first.version}-r1"):
        (indexes / name).mkdir()
        (indexes / name / "codes.npy").write_bytes(b"half")
    (indexes / f".{first.version}.link").symlink_to("nowhere")
    put(database, ADS)
    assert add(database_url, indexes, first.version).ads == 10
    assert sorted(path.name for path in indexes.iterdir()) == [
        first.version,
        f"{first.version}-r0",
        f"{first.version}-r1",
    ]


def odd(number: int, **changed: object) -> Ad:
    return replace(ADS[number], ad_id=9000 + number, source_id=str(9000 + number), **changed)


ODD_ADS = (
    odd(0, name="long " * 2000),
    odd(1, name="tab\tbell\x07line\nend\x1b[31m"),
    odd(2, name="<a_1, b_2, c_3, d_4, e_0>"),
    odd(3, first_category="Never Seen", second_category="Before"),
    odd(4, first_category="", second_category="", ad_type="", attributes=()),
    odd(5, name="\u202e右から左 \ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")),
)


def test_odd_ads_get_sids_like_any_other_in_a_build_and_in_an_addition(
    database: Engine, database_url: str, indexes: Path
) -> None:
    put(database, ADS[:100])
    first = build(database_url, indexes)
    put(database, ODD_ADS)
    grown = add(database_url, indexes, first.version).index
    assert len(grown) == 106
    first_names, second_names = grown.categories_at(grown.rows(np.array([9003, 9004])))
    assert (first_names, second_names) == (["Never Seen", ""], ["Before", ""])
    built = build(database_url, indexes)
    assert built.version != first.version
    assert len(set(sids(built).values())) == 106


def test_an_ad_without_a_name_stops_a_build_and_is_left_out_of_an_addition(
    database: Engine, database_url: str, indexes: Path
) -> None:
    put(database, ADS[:100])
    first = build(database_url, indexes)
    put(database, (odd(0, name=""), odd(1, name=" \x07 "), odd(2)))
    added = add(database_url, indexes, first.version)
    assert (added.ads, added.nameless) == (1, (9000, 9001))
    before = state(database, indexes)
    with pytest.raises(InvalidInput, match=r"ad 9000 has no name"):
        build(database_url, indexes)
    assert state(database, indexes) == before
    put(database, (odd(1, name="now it has one"),))
    assert add(database_url, indexes, first.version, changed_since=added.changed_until).ads == 1


def test_ads_that_no_code_is_left_for_hold_up_no_other(database: Engine, database_url: str, indexes: Path) -> None:
    put(database, ADS[:100])
    first = build(database_url, indexes)
    slots = first.code_counts[-1]
    alike = tuple(replace(ADS[0], ad_id=9000 + row, source_id=str(9000 + row)) for row in range(slots + 5))
    put(database, (*ADS[100:110], *alike))

    added = add(database_url, indexes, first.version)

    assert 5 <= len(added.crowded) <= slots + 5  # the ads indexed before may share those codes as well
    assert added.ads == 10 + len(alike) - len(added.crowded)
    assert set(added.crowded) <= {ad.ad_id for ad in alike}
    assert recorded(database) == sids(added.index)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda texts, **_: np.full((len(texts), 256), np.nan, np.float32), "not finite"),
        (lambda texts, **_: np.zeros((len(texts), 255), np.float32), "255 wide"),
    ],
    ids=["NaN", "another width"],
)
def test_embeddings_that_cannot_be_are_refused_and_leave_nothing(
    database: Engine, database_url: str, indexes: Path, monkeypatch: pytest.MonkeyPatch, broken, message: str
) -> None:
    put(database, ADS[:100])
    first = build(database_url, indexes)
    put(database, ADS)
    before = state(database, indexes)
    monkeypatch.setattr(pipeline, "encode", broken)
    with pytest.raises(InvalidInput, match=message):
        add(database_url, indexes, first.version)
    if message == "not finite":
        with pytest.raises(InvalidInput, match=message):
            build(database_url, indexes)
    assert state(database, indexes) == before


def test_an_index_that_is_cut_is_refused_by_an_addition_and_mended_by_a_build(
    database: Engine, database_url: str, indexes: Path
) -> None:
    put(database, ADS[:100])
    whole = build(database_url, indexes)
    known = sids(whole)
    for name in ("codes.npy", publish_index.QUANTISER, "manifest.json", publish_index.RECIPE):
        file = indexes / whole.version / name
        file.unlink() if name == "manifest.json" else file.write_bytes(file.read_bytes()[:-7])
        with pytest.raises(ArtifactIncomplete, match=name):
            add(database_url, indexes, whole.version)
        assert sids(build(database_url, indexes)) == known == recorded(database)


def test_an_index_of_another_version_and_an_older_copy_are_refused(
    database: Engine, database_url: str, indexes: Path
) -> None:
    put(database, ADS[:100])
    first = build(database_url, indexes)
    shutil.copytree(indexes / f"{first.version}-r0", indexes / "another")
    shutil.copytree(indexes / f"{first.version}-r0", indexes / "copy")
    put(database, ADS[:110])
    add(database_url, indexes, first.version)
    put(database, ADS)
    (indexes / first.version).unlink()
    (indexes / first.version).symlink_to("copy")
    refused: list[tuple[str, type[LeadreError], str]] = [
        ("another", ReleaseMismatch, f"holds index {first.version}"),
        (first.version, ArtifactIncomplete, "100 ads but 110 are recorded: it is an older copy"),
    ]
    before = recorded(database)
    for version, error, message in refused:
        with pytest.raises(error, match=message):
            add(database_url, indexes, version)
    assert recorded(database) == before


def test_an_ad_that_is_given_twice_is_refused_before_it_is_in_the_catalog(
    database: Engine, database_url: str, indexes: Path
) -> None:
    put(database, ADS[:100])
    with pytest.raises(InvalidInput, match="is already in row 1"):
        put(database, (odd(0), odd(0)))
    assert len(build(database_url, indexes)) == 100
