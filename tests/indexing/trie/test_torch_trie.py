"""The torch trie equals the NumPy one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from leadre.errors import InvalidInput
from leadre.indexing.trie import LiveMask, Trie
from leadre.indexing.trie.torch_trie import TorchLiveMask, TorchTrie

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
Codes = NDArray[np.int64]


def assert_same(trie: Trie, live: LiveMask | None, device: str) -> None:
    there = TorchTrie(trie, device=device)
    mask = None if live is None else TorchLiveMask(live, device=device)
    nodes = np.zeros(2, np.int64)  # the root, asked twice
    for depth in range(trie.levels):
        expected = trie.children(depth, nodes, live=live)
        answer = there.children(depth, torch.from_numpy(nodes).to(device), live=mask)
        for mine, theirs in zip(answer, (expected.parent, expected.code, expected.node), strict=True):
            assert mine.dtype == torch.int64
            assert mine.device.type == device
            np.testing.assert_array_equal(mine.cpu().numpy(), theirs)
        nodes = expected.node
        if mask is not None and live is not None:
            low, high = there.leaf_range(depth + 1, torch.from_numpy(nodes).to(device))
            np.testing.assert_array_equal(
                mask.count(low, high).cpu().numpy(), live.count(*trie.leaf_range(depth + 1, nodes))
            )


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return str(request.param)


@given(seed=st.integers(0, 10**6), share=st.sampled_from([None, 0.0, 0.2, 1.0]))
def test_children_at_every_depth_equal_the_numpy_tries(device: str, seed: int, share: float | None) -> None:
    random = np.random.default_rng(seed)
    highest = random.choice([1, 2, 7, 1023, 2**31 - 1], random.integers(1, 7))
    codes = np.unique(random.integers(0, highest + 1, (random.integers(0, 400), len(highest))), axis=0)
    live = None if share is None else LiveMask.of(random.random(len(codes)) < share)
    assert_same(Trie.build(codes), live, device)


def test_a_huge_node_with_few_children_is_halved_alike(device: str) -> None:
    codes = np.stack([np.zeros(5000, np.int64), np.arange(5000) // 2500, np.arange(5000)], axis=1)
    codes = np.concatenate([codes, np.random.default_rng(0).integers(1, 2**20, (30_000, 3))])
    codes = np.unique(codes, axis=0)
    trie = Trie.build(codes)
    assert trie.shallow == 0
    assert_same(trie, LiveMask.of(np.arange(len(codes)) % 3 == 0), device)


def test_on_the_cpu_a_mapped_trie_is_not_copied(tmp_path: Path) -> None:
    trie = Trie.build(np.unique(np.random.default_rng(0).integers(0, 6, (900, 5)), axis=0))
    for name, array in trie.arrays().items():
        np.save(tmp_path / f"{name}.npy", array)
    mapped = {path.stem: np.asarray(np.load(path, mmap_mode="r")) for path in tmp_path.iterdir()}
    there = TorchTrie(Trie.from_arrays(mapped), device="cpu")
    assert there._arrays["word_0"].data_ptr() == mapped["word_0"].ctypes.data


def test_a_mask_or_depth_of_another_trie_is_refused() -> None:
    trie = TorchTrie(Trie.build(np.array([[0, 1], [1, 0], [1, 5]])), device="cpu")
    root = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(InvalidInput, match="mask covers 4 leaves"):
        trie.children(0, root, live=TorchLiveMask(LiveMask.of(np.ones(4, np.bool_)), device="cpu"))
    with pytest.raises(InvalidInput, match="not at 2"):
        trie.children(2, root)
