"""The store of embeddings: found again, whole after a kill, and never another model's."""

from __future__ import annotations

import fcntl
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadre.errors import ArtifactIncomplete, InvalidInput
from leadre.indexing.texts import embedding_store
from leadre.indexing.texts.embedding_store import EmbeddingStore

TEXTS = ["red shoes", "green tea", "", "<a_51, b_10>", "half \ud83d", "tea\x00", "x" * 10_000]


def vectors(texts: list[str], *, width: int = 5) -> np.ndarray:
    """One vector a text, the same in every call."""
    rows = [np.random.default_rng(list(text.encode("utf-8", "surrogatepass"))).normal(size=width) for text in texts]
    return np.array(rows, np.float32).reshape(len(texts), width)


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def test_what_was_added_is_found_by_who_opens_the_store_later(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path)
    store.add(TEXTS[:3], vectors(TEXTS[:3]))
    store.add(TEXTS[3:], vectors(TEXTS[3:]))
    for opened in (store, EmbeddingStore(tmp_path)):
        known, embeddings = opened.find(["unknown", *reversed(TEXTS), "green tea", "green  tea"])
        assert known.tolist() == [False, *[True] * 8, False]
        np.testing.assert_array_equal(embeddings[known], vectors([*reversed(TEXTS), "green tea"]))
        assert embeddings.dtype == np.float32
        assert len(opened) == 7


@settings(max_examples=30)
@given(
    batches=st.lists(st.lists(st.text(max_size=3), unique=True, min_size=1), max_size=4),
    asked=st.lists(st.text(max_size=3), max_size=9),
)
def test_a_store_is_a_dictionary(
    batches: list[list[str]], asked: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    store, held = EmbeddingStore(tmp_path_factory.mktemp("store")), set[str]()
    for batch in batches:
        store.add(batch, vectors(batch))
        held.update(batch)
        known, embeddings = store.find(asked)
        assert known.tolist() == [text in held for text in asked]
        np.testing.assert_array_equal(embeddings[known], vectors([text for text in asked if text in held]))


def test_an_empty_store_knows_nothing(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path)
    known, embeddings = store.find(TEXTS)
    assert not known.any()
    assert embeddings.shape == (7, 0)
    store.add([], np.empty((0, 5), np.float32))
    assert store.find([])[0].shape == (0,)
    assert shards(tmp_path) == []


def test_keys_that_agree_in_their_first_half_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def halved(texts: list[str]) -> np.ndarray:
        return np.array([(7, int(text)) for text in texts], np.uint64).reshape(-1, 2)

    monkeypatch.setattr(embedding_store, "_keys_of", halved)
    store = EmbeddingStore(tmp_path)
    store.add(["3", "1", "2"], np.array([[3], [1], [2]], np.float32))
    known, embeddings = store.find(["0", "1", "2", "3", "4"])
    assert known.tolist() == [False, True, True, True, False]
    assert embeddings[known, 0].tolist() == [1, 2, 3]


def test_no_text_is_on_disk(tmp_path: Path) -> None:
    EmbeddingStore(tmp_path).add(["a very secret product"], vectors(["a very secret product"]))
    assert all(b"secret" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_what_a_killed_process_left_half_written_is_ignored_and_removed(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path)
    store.add(TEXTS, vectors(TEXTS))
    (tmp_path / "tmp123.part").write_bytes(shards(tmp_path)[0].read_bytes()[:100])
    assert EmbeddingStore(tmp_path).find(TEXTS)[0].all()
    assert not list(tmp_path.glob("*.part"))


def test_a_file_that_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    with (tmp_path / "tmp123.part").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        EmbeddingStore(tmp_path)
        assert (tmp_path / "tmp123.part").exists()


def test_a_kill_while_writing_leaves_the_store_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = EmbeddingStore(tmp_path)
    store.add(TEXTS[:2], vectors(TEXTS[:2]))

    def killed(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(embedding_store.os, "fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            store.add(TEXTS[2:], vectors(TEXTS[2:]))
    assert EmbeddingStore(tmp_path).find(TEXTS)[0].tolist() == [True, True, False, False, False, False, False]
    store.add(TEXTS[2:], vectors(TEXTS[2:]))
    assert EmbeddingStore(tmp_path).find(TEXTS)[0].all()


@pytest.mark.parametrize("cut", [0, 3, 50, -1])
def test_a_truncated_shard_is_named_with_its_remedy_and_removing_it_helps(tmp_path: Path, cut: int) -> None:
    store = EmbeddingStore(tmp_path)
    store.add(TEXTS[:3], vectors(TEXTS[:3]))
    store.add(TEXTS[3:], vectors(TEXTS[3:]))
    damaged = shards(tmp_path)[0]
    damaged.write_bytes(damaged.read_bytes()[:cut])
    with pytest.raises(ArtifactIncomplete, match=rf"{damaged.name} is damaged; delete it, and its texts are encoded"):
        EmbeddingStore(tmp_path)
    damaged.unlink()
    assert len(EmbeddingStore(tmp_path)) in (3, 4)


def test_every_changed_byte_of_a_shard_is_noticed(tmp_path: Path) -> None:
    EmbeddingStore(tmp_path).add(TEXTS[:2], vectors(TEXTS[:2], width=3))
    (path,) = shards(tmp_path)
    content = path.read_bytes()
    for place in range(8, len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            known, embeddings = EmbeddingStore(tmp_path).find(TEXTS[:2])
        except ArtifactIncomplete as error:
            assert path.name in str(error)  # noqa: PT017 - harmless changes are those of the metadata's spelling
        else:
            assert known.all()
            np.testing.assert_array_equal(embeddings, vectors(TEXTS[:2], width=3))


def test_a_shard_that_is_gone_is_named(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path)
    store.add(TEXTS, vectors(TEXTS))
    shards(tmp_path)[0].unlink()
    with pytest.raises(ArtifactIncomplete, match="delete it"):
        store.find(TEXTS)


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (np.full((2, 5), np.nan, np.float32), "row 1, column 'embedding'"),
        (np.array([[1, 2, 3, 4, 5], [1, 2, np.inf, 4, 5]], np.float32), "row 2, column 'embedding'"),
        (np.ones((3, 5), np.float32), r"shape \(3, 5\) do not fit 2 texts"),
        (np.ones((2, 0), np.float32), r"shape \(2, 0\)"),
        (np.ones((2, 4), np.float32), "holds embeddings of width 5, not 4: .* delete the folder"),
    ],
)
def test_embeddings_that_do_not_fit_are_not_stored(tmp_path: Path, embeddings: np.ndarray, message: str) -> None:
    store = EmbeddingStore(tmp_path)
    store.add(["known"], vectors(["known"]))
    with pytest.raises(InvalidInput, match=message):
        store.add(TEXTS[:2], embeddings)
    assert len(EmbeddingStore(tmp_path)) == 1


def test_each_encoder_pooling_and_instruction_has_a_folder_of_its_own(tmp_path: Path) -> None:
    names = [
        ("intfloat/multilingual-e5-large", "auto", ""),
        ("other/multilingual-e5-large", "auto", ""),
        ("intfloat/multilingual-e5-large", "mean", ""),
        ("intfloat/multilingual-e5-large", "auto", "query: "),
        ("../../up", "auto", ""),
    ]
    for number, (encoder, pooling, instruction) in enumerate(names):
        store = EmbeddingStore.of(tmp_path, encoder=encoder, pooling=pooling, instruction=instruction)
        assert not store.find(TEXTS)[0].any()
        store.add(TEXTS, vectors(TEXTS, width=2 + number))
    assert len(list(tmp_path.iterdir())) == len(names)
    assert EmbeddingStore.of(tmp_path, encoder=names[2][0], pooling="mean", instruction="").find(TEXTS)[1].shape[1] == 4
