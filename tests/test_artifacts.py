"""Artifacts: whole or absent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from leadre.artifacts import MANIFEST, open_artifact, write_artifact
from leadre.errors import ArtifactIncomplete


def write_two(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep/one.bin").write_bytes(b"abc")
    (folder / "two.txt").write_text("zwei")


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "indexes/i1"
    write_artifact(folder, kind="index", facts={"levels": 3}, write=write_two)
    return folder


def test_an_artifact_says_what_it_is(artifact: Path) -> None:
    manifest = open_artifact(artifact, kind="index", verify=True)
    assert (manifest.kind, manifest.name, manifest.facts) == ("index", "i1", {"levels": 3})


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        write_two(folder)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_artifact(tmp_path / "i1", kind="index", facts={}, write=write)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_artifact_stays_unless_it_is_replaced(artifact: Path) -> None:
    with pytest.raises(FileExistsError, match="artifacts are not changed in place"):
        write_artifact(artifact, kind="index", facts={}, write=write_two)
    write_artifact(artifact, kind="index", facts={"levels": 4}, write=lambda folder: None, replace=True)
    assert open_artifact(artifact, kind="index").facts == {"levels": 4}
    assert [path.name for path in artifact.parent.iterdir()] == ["i1"]
    assert [path.name for path in artifact.iterdir()] == [MANIFEST]


def test_a_failed_replacement_leaves_the_old_one(artifact: Path) -> None:
    def write(folder: Path) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_artifact(artifact, kind="index", facts={}, write=write, replace=True)
    assert open_artifact(artifact, kind="index", verify=True).facts == {"levels": 3}


def test_an_artifact_without_a_manifest_was_not_finished(artifact: Path) -> None:
    (artifact / MANIFEST).unlink()
    with pytest.raises(ArtifactIncomplete, match=f"i1 has no {MANIFEST}.*build it again"):
        open_artifact(artifact, kind="index")
    with pytest.raises(ArtifactIncomplete, match="does not exist"):
        open_artifact(artifact.parent / "i2", kind="index")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"format": 1, "kind": "index"}'])
def test_a_damaged_manifest_is_named(artifact: Path, content: str) -> None:
    (artifact / MANIFEST).write_text(content)
    with pytest.raises(ArtifactIncomplete, match="i1"):
        open_artifact(artifact, kind="index")


def test_another_kind_or_format_is_refused(artifact: Path) -> None:
    with pytest.raises(ArtifactIncomplete, match="'index' artifact of format 1, expected 'release'"):
        open_artifact(artifact, kind="release")
    content = json.loads((artifact / MANIFEST).read_text())
    (artifact / MANIFEST).write_text(json.dumps({**content, "format": 2}))
    with pytest.raises(ArtifactIncomplete, match="format 2, expected 'index' of format 1"):
        open_artifact(artifact, kind="index")


def test_a_missing_or_shorter_file_is_found_by_its_size(artifact: Path) -> None:
    (artifact / "deep/one.bin").write_bytes(b"ab")
    with pytest.raises(ArtifactIncomplete, match=r"one\.bin is missing or not 3 bytes long"):
        open_artifact(artifact, kind="index")
    (artifact / "deep/one.bin").unlink()
    with pytest.raises(ArtifactIncomplete, match=r"one\.bin is missing"):
        open_artifact(artifact, kind="index")


def test_a_changed_byte_is_found_by_verification(artifact: Path) -> None:
    (artifact / "deep/one.bin").write_bytes(b"abd")
    open_artifact(artifact, kind="index")
    with pytest.raises(ArtifactIncomplete, match=r"one\.bin differs from its manifest"):
        open_artifact(artifact, kind="index", verify=True)


def test_a_changed_byte_of_weights_is_always_found(tmp_path: Path) -> None:
    folder = tmp_path / "r1"

    def write(at: Path) -> None:
        (at / "w.safetensors").write_bytes(b"1234")

    write_artifact(folder, kind="release", facts={}, write=write)
    for _ in range(2):  # the second look remembers the first
        open_artifact(folder, kind="release")
    (folder / "w.safetensors").write_bytes(b"1235")
    with pytest.raises(ArtifactIncomplete, match=r"w\.safetensors differs from its manifest"):
        open_artifact(folder, kind="release")
