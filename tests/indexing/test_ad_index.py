from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leadre.artifacts import write_artifact
from leadre.domain.semantic_id import SemanticId
from leadre.errors import ArtifactIncomplete, InvalidInput, UnknownAd
from leadre.indexing.ad_index import AdIndex

CODES = np.array([[2, 0, 1], [0, 1, 0], [2, 0, 0], [1, 3, 0]], np.int32)
IDS = np.array([50, 7, 2**62, 9])


def small(**replaced: object) -> AdIndex:
    arguments: dict[str, object] = {
        "version": "v",
        "ad_ids": IDS,
        "codes": CODES,
        "first_categories": ["Food", "Games", "Food", ""],
        "second_categories": ["Tea", "Cards", "Food", ""],
        "advertiser_ids": np.array([1, 2, 3, 4]),
        "embeddings": np.arange(8, dtype=np.float32).reshape(4, 2),
        "code_counts": (3, 4, 8),
        "quality": {"collision_rate": 0.5},
    }
    return AdIndex.assemble(**{**arguments, **replaced})  # type: ignore[arg-type]


def test_rows_are_in_the_order_of_sids_and_found_by_id() -> None:
    index = small()
    assert index.codes.tolist() == sorted(CODES.tolist())
    assert index.ad_ids.tolist() == [7, 9, 2**62, 50]
    assert index.rows(np.array([50, 8, 2**62, -1])).tolist() == [3, -1, 2, -1]
    assert index.sid(50) == SemanticId((2, 0, 1))
    assert index.categories_at(np.array([3, 1])) == (["Food", ""], ["Tea", ""])
    assert index.embeddings[3].tolist() == [0, 1]
    assert index.trie.find(index.codes).tolist() == [0, 1, 2, 3]


def test_an_ad_that_is_not_there_is_unknown() -> None:
    with pytest.raises(UnknownAd, match="has no ad 8"):
        small().sid(8)


def test_a_live_mask_passes_over_ads_the_index_does_not_hold() -> None:
    mask = small().live_mask(np.array([50, 1, 9, 9]))
    assert mask.live_leaves == 2
    leaves = np.arange(4)
    assert mask.count(leaves, leaves + 1).tolist() == [0, 1, 0, 1]


def test_a_saved_index_opens_the_same_without_being_read(tmp_path: Path) -> None:
    index = small(revision=3)
    index.save(tmp_path / "v")
    again = AdIndex.load(tmp_path / "v")
    for name in ("version", "revision", "category_names", "code_counts", "quality"):
        assert getattr(again, name) == getattr(index, name)
    for name in ("ad_ids", "codes", "first_categories", "second_categories", "advertiser_ids", "embeddings", "by_id"):
        np.testing.assert_array_equal(getattr(again, name), getattr(index, name))
        assert not getattr(again, name).flags.writeable
    assert again.trie.contains(index.codes).all()
    assert again.rows(IDS).tolist() == index.rows(IDS).tolist()


def test_any_file_cut_short_or_missing_is_an_incomplete_artifact(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    small().save(folder)
    files = sorted(folder.iterdir())
    assert {"codes.npy", "trie.word_0.npy", "index.json", "manifest.json"} < {path.name for path in files}
    for path in files:
        whole = path.read_bytes()
        for rest in (whole[:-1], whole[: len(whole) // 2], b""):
            path.write_bytes(rest)
            with pytest.raises(ArtifactIncomplete, match=path.name):
                AdIndex.load(folder)
        path.unlink()
        with pytest.raises(ArtifactIncomplete, match=path.name):
            AdIndex.load(folder)
        path.write_bytes(whole)
    assert AdIndex.load(folder).ad_ids.tolist() == small().ad_ids.tolist()
    with pytest.raises(ArtifactIncomplete, match="no manifest"):
        AdIndex.load(tmp_path / "w")


def test_an_artifact_of_another_kind_or_of_older_arrays_is_refused(tmp_path: Path) -> None:
    write_artifact(tmp_path / "r", kind="release", facts={}, write=small().write_into)
    with pytest.raises(ArtifactIncomplete, match="'release' artifact"):
        AdIndex.load(tmp_path / "r")

    def write(folder: Path) -> None:
        small().write_into(folder)
        (folder / "trie.nodes.npy").unlink()

    write_artifact(tmp_path / "old", kind="index", facts=small().facts(), write=write)
    with pytest.raises(ArtifactIncomplete, match=r"no trie\.nodes\.npy: another version"):
        AdIndex.load(tmp_path / "old")


def test_a_failed_save_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small().save(tmp_path / "v")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FileExistsError):
        small().save(tmp_path / "v")
    real = np.save

    def save(path: Path, array: np.ndarray, *, allow_pickle: bool) -> None:
        if path.name == "trie.bits.npy":
            raise OSError("no space left")
        real(path, array, allow_pickle=allow_pickle)

    monkeypatch.setattr(np, "save", save)
    with pytest.raises(OSError, match="no space"):
        small().save(tmp_path / "w")
    assert sorted(tmp_path.rglob("*")) == before


def test_bad_columns_are_refused() -> None:
    with pytest.raises(InvalidInput, match="ad 7 is there twice"):
        small(ad_ids=np.array([7, 7, 3, 4]))
    with pytest.raises(InvalidInput, match=r"S-ID .* is there twice"):
        small(codes=np.zeros((4, 3), np.int32))
    with pytest.raises(InvalidInput, match="do not fit code_counts"):
        small(code_counts=(2, 4, 8))
    with pytest.raises(InvalidInput, match="equally long"):
        small(ad_ids=IDS[:3])


def test_an_index_without_ads_is_whole(tmp_path: Path) -> None:
    nothing = small(
        ad_ids=IDS[:0],
        codes=CODES[:0],
        first_categories=[],
        second_categories=[],
        advertiser_ids=IDS[:0],
        embeddings=np.zeros((0, 2), np.float32),
    )
    nothing.save(tmp_path / "v")
    assert AdIndex.load(tmp_path / "v").rows(np.array([1])).tolist() == [-1]
