"""Category accuracy of nearest neighbours, against cases that can be counted by hand and a plain sort."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.errors import InvalidInput
from leadre.indexing.texts.neighbours import category_accuracy, sample_per_category


def plainly(embeddings: np.ndarray, categories: list[str], k: int) -> float:
    """Accuracy by a sort per ad, every ad a query."""
    hits = 0
    for row, vector in enumerate(embeddings):
        others = sorted(
            (other for other in range(len(embeddings)) if other != row), key=lambda o: -embeddings[o] @ vector
        )
        hits += sum(categories[other] == categories[row] for other in others[:k])
    return hits / k / len(embeddings)


def test_tight_clusters_are_found_until_they_run_out() -> None:
    embeddings = np.repeat(np.eye(3, dtype=np.float32), 6, axis=0)
    names = [name for name in "abc" for _ in range(6)]
    accuracy = category_accuracy(embeddings, names, cutoffs=(1, 5, 10, 17), seed=0)
    assert accuracy[1] == accuracy[5] == 1  # of 5 other ads of the category
    assert accuracy[10] == 0.5
    assert accuracy[17] == pytest.approx(5 / 17)  # everything is a neighbour: chance


@given(seed=st.integers(0, 99), k=st.integers(1, 28))
def test_it_agrees_with_sorting_all_ads(seed: int, k: int) -> None:
    draw = np.random.default_rng(seed)
    embeddings = draw.normal(size=(29, 6)).astype(np.float32)
    names = [*"aabbcc", *draw.choice(list("abc"), 23).tolist()]
    found = category_accuracy(embeddings, names, cutoffs=(k,), seed=seed)[k]
    assert found == pytest.approx(plainly(embeddings, names, k))


def test_equal_embeddings_do_not_count_the_query_itself() -> None:
    names = [*"aaaa", *"bbbb", *"cccc"]
    accuracy = category_accuracy(np.ones((12, 2), np.float32), names, cutoffs=(11,), seed=0)
    assert accuracy == {11: pytest.approx(3 / 11)}


def test_the_pool_is_the_sample_or_all_ads() -> None:
    draw = np.random.default_rng(3)
    embeddings = draw.normal(size=(90, 4)).astype(np.float32)
    names = [*["a"] * 40, *["b"] * 30, *[""] * 20]
    sampled = sample_per_category(names, per_category=9, seed=5)
    within = category_accuracy(embeddings, names, per_category=9, cutoffs=(17,), seed=5)
    assert within == {17: pytest.approx(8 / 17)}  # all 17 others, 8 of them of the category
    everywhere = category_accuracy(embeddings, names, per_category=9, cutoffs=(89,), seed=5, pool="all")
    assert everywhere == {89: pytest.approx((39 + 29) / 2 / 89)}
    assert len(sampled) == 18
    assert category_accuracy(
        embeddings[sampled], [names[row] for row in sampled], per_category=9, cutoffs=(7,), seed=1
    ) == (category_accuracy(embeddings, names, per_category=9, cutoffs=(7,), seed=5))


def test_the_sample_takes_no_more_than_asked_and_is_decided_by_the_seed() -> None:
    names = [*["a"] * 50, *["b"] * 4, "lonely", *[""] * 9, *["c"] * 6]
    rows = sample_per_category(names, per_category=5, seed=1)
    assert sorted(names[row] for row in rows) == [*"aaaaa", *"bbbb", *"ccccc"]
    np.testing.assert_array_equal(rows, sample_per_category(names, per_category=5, seed=1))
    assert rows.tolist() != sample_per_category(names, per_category=5, seed=2).tolist()


@pytest.mark.parametrize(
    ("embeddings", "names", "cutoffs", "message"),
    [
        (np.empty((0, 3), np.float32), [], (1,), "0 categories have 2 ads"),
        (np.ones((3, 2), np.float32), ["a", "a", "b"], (1,), "1 categories have 2 ads"),
        (np.ones((4, 2), np.float32), [*"aab"], (1,), "do not fit 3 categories"),
        (np.ones((4, 2), np.float32), [*"aabb"], (1, 4), "K = 1 to 4 of 4 ads .* from 1 to 3"),
        (np.ones((4, 2), np.float32), [*"aabb"], (0, 2), "from 1 to 3"),
        (np.array([[0], [1], [np.nan], [1]], np.float32), [*"aabb"], (1,), "row 3, column 'embedding'"),
    ],
)
def test_what_cannot_be_measured_says_why(
    embeddings: np.ndarray, names: list[str], cutoffs: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        category_accuracy(embeddings, names, cutoffs=cutoffs, seed=0)


@pytest.mark.parametrize("order", ["import torch, faiss", "import faiss, torch"])
def test_faiss_and_torch_work_in_one_process_whatever_the_threads(order: str) -> None:
    program = f"""
{order}
import numpy as np
from leadre.indexing.texts.neighbours import category_accuracy
x = np.random.default_rng(0).normal(size=(300, 32)).astype(np.float32)
for _ in range(2):
    torch.randn(300, 300) @ torch.randn(300, 300)
    category_accuracy(x, [str(i % 7) for i in range(300)], seed=0)
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
