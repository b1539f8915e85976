"""The teacher's rows equal the definition: a distribution over all ads, added up below every code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from leadre.collaborative.blend import Collaborative
from leadre.collaborative.cross_fit import CrossFitted
from leadre.collaborative.sasrec import SasRec
from leadre.collaborative.sasrec_network import SasRecNetwork
from leadre.evaluation.baselines import CoVisitation, Histories, Popularity
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import Trie
from leadre.recipe import SasRecRecipe
from leadre.training.teacher import masses
from leadre.training.teacher.masses import write_teacher
from leadre.training.teacher.positions import Positions
from leadre.training.teacher.reference import likely_ads, rows_of
from leadre.training.teacher.rows import TeacherRows

SIZES = SasRecRecipe(width=8, layers=1, heads=2, positions=5)
COUNTS = (4, 5, 3)


def index_of(ads: int, *, seed: int) -> AdIndex:
    flat = np.random.default_rng(seed).choice(int(np.prod(COUNTS)), ads, replace=False)
    codes = np.stack(np.unravel_index(np.sort(flat), COUNTS), axis=1).astype(np.int32)
    return AdIndex(
        version="tiny",
        ad_ids=np.random.default_rng(seed + 1).permutation(ads) + 100,
        codes=codes,
        first_categories=np.zeros(ads, np.int32),
        second_categories=np.zeros(ads, np.int32),
        category_names=("all",),
        advertiser_ids=np.zeros(ads, np.int64),
        embeddings=np.zeros((ads, 3), np.float32),
        trie=Trie.build(codes),
        code_counts=COUNTS,
        quality={},
    )


def network(items: np.ndarray, *, seed: int) -> SasRec:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = SasRecNetwork(len(items), SIZES).eval()
        torch.nn.init.normal_(made.items.weight, std=0.6)
    return SasRec(items, made, Popularity(items))


def signal_of(train: Histories, *, seed: int, share: float, seen: str) -> Collaborative:
    items, popular = np.unique(train.items, return_counts=True)
    return Collaborative(
        sasrec=network(items, seed=seed),
        co_visitation=CoVisitation.fit(train),
        popular=popular.astype(np.float64),
        share=share,
        seen=seen,
    )


def positions_of(index: AdIndex, train: Histories, users: np.ndarray) -> Positions:
    """Every item that the index holds is a target."""
    rows = index.rows(train.items)
    place = np.flatnonzero(rows >= 0)
    return Positions(users=users, histories=train, place=place, leaf=rows[place])


ROWS = st.lists(st.lists(st.integers(95, 124), min_size=1, max_size=11), min_size=1, max_size=5)


@settings(max_examples=25, deadline=None)
@given(
    rows=ROWS,
    ads=st.integers(1, 22),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    temperature=st.sampled_from([1.0, 2.5, 0.7]),
    seen=st.sampled_from(["keep", "leave_out"]),
    folds=st.sampled_from([0, 3]),
    seed=st.integers(0, 5),
    small=st.booleans(),
)
def test_rows_are_the_signal_added_up_below_every_code(
    rows, ads, share, temperature, seen, folds, seed, small
) -> None:
    index = index_of(ads, seed=seed)
    train = Histories.of([np.array(row, np.int64) for row in rows])
    positions = positions_of(index, train, np.arange(len(rows)) * 7 + 3)
    assume(len(positions) > 0)
    signal = signal_of(train, seed=seed, share=share, seen=seen)
    teacher = CrossFitted(
        signal=signal, folds=tuple(network(signal.items, seed=9 + fold) for fold in range(folds)), seed=seed
    )
    with TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        if small:  # many blocks and pieces
            for name, size in (("POSITIONS_AT_ONCE", 5), ("_LEAVES_AT_ONCE", 3), ("_ROWS_AT_ONCE", 2)):
                patch.setattr(masses, name, size)
            patch.setattr(masses, "_SCORES_AT_ONCE", 7)
        folder = Path(scratch) / "teacher"
        write_teacher(folder, positions, teacher=teacher, index=index, temperature=temperature)
        made = TeacherRows.load(folder)
        assert len(made) == 3 * len(positions)
        of_fold = teacher.fold_of(positions.users)
        states = [teacher.of_fold(fold).sasrec.states_before(train) for fold in range(max(1, folds))]
        for target in range(len(positions)):
            user, place = int(positions.row[target]), int(positions.place[target])
            mine = teacher.of_fold(int(of_fold[user]))
            logits = states[of_fold[user]][place] @ mine.sasrec.network.items.weight.detach().numpy().T
            wanted = by_definition(
                mine, train, logits, user=user, place=place, temperature=temperature, cross=folds > 0
            )
            wanted = rows_of(wanted, int(positions.leaf[target]), items=signal.items, index=index)
            which, code, logs = made.read(np.arange(3 * target, 3 * target + 3))
            for level, said in enumerate(wanted):
                here = which == level
                assert code[here].tolist() == sorted(said)
                assert np.exp(logs[here]) == pytest.approx([said[c] for c in sorted(said)], rel=0.02, abs=1e-6)


def by_definition(
    signal: Collaborative,
    train: Histories,
    logits: np.ndarray,
    *,
    user: int,
    place: int,
    temperature: float,
    cross: bool,
) -> np.ndarray:
    first = int(train.offsets[user])
    history = Histories.of([train.items[first:place]])
    counted, popular = signal.co_visitation, signal.popular
    if cross:  # counted without the user
        others = train.take(np.array([row for row in range(len(train)) if row != user], np.int64))
        counted = CoVisitation.fit(others)
        ids, times = np.unique(others.items, return_counts=True)
        popular = np.array([dict(zip(ids.tolist(), times.tolist(), strict=True)).get(i, 0) for i in signal.items.tolist()])
    counts = np.zeros(len(signal.items))
    if len(counted.items):
        at = np.searchsorted(signal.items, counted.items)
        counts[at] = counted.scores(history, seen="keep").toarray()[0]
    return likely_ads(
        logits.astype(np.float64),
        counts,
        popular=popular.astype(np.float64),
        share=signal.share,
        temperature=temperature,
        had=np.searchsorted(signal.items, history.items) if signal.seen == "leave_out" else np.empty(0, np.int64),
    )


def test_at_the_end_of_a_history_the_teacher_says_what_the_signal_serves() -> None:
    index = index_of(20, seed=1)
    train = Histories.of([np.array(row, np.int64) for row in ([101, 104, 107, 103], [110, 101], [105, 119, 101, 104])])
    signal = signal_of(train, seed=2, share=0.4, seen="leave_out")
    for row in range(3):
        before = train.items[train.offsets[row] : train.offsets[row + 1] - 1]
        state = signal.sasrec.states_before(train)[train.offsets[row + 1] - 1]
        own = np.searchsorted(signal.items, before)
        wanted = signal.log_probabilities(Histories.of([before]))[0]
        counts = signal.co_visitation.scores(Histories.of([before]), seen="keep").toarray()[0]
        said = likely_ads(
            state @ signal.sasrec.network.items.weight.detach().numpy().T,
            counts,
            popular=signal.popular,
            share=signal.share,
            temperature=1.0,
            had=own,
        )
        assert said == pytest.approx(np.exp(wanted), abs=1e-5)
    assert replace(signal, seen="keep").seen == "keep"
    assert len(index) == 20
