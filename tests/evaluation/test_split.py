import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from leadre.evaluation.split import HELD_OUT_FROM, global_time, hold_out, leave_one_out, swap, swapped

sequences = st.lists(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=9), max_size=12)


def arrays(users):
    """Offsets, is_ad and rising times from lists of (is ad, days since the one before)."""
    offsets = np.cumsum([0, *map(len, users)])
    is_ad = np.array([ad for rows in users for ad, _ in rows], bool)
    times = [np.cumsum([days for _, days in rows]) for rows in users if rows]
    return offsets, is_ad, np.concatenate([*times, []]).astype(float)


def test_the_last_ad_is_the_test_and_the_one_before_the_validation():
    users = [[(True, 1), (True, 1), (False, 1), (True, 0), (False, 2)], [(True, 1), (True, 1)], [(True, 1)] * 4]
    split = leave_one_out(*arrays(users))
    assert split.users.tolist() == [0, 2]
    assert split.test.tolist() == [3, 10]
    assert split.validation.tolist() == [1, 9]
    assert split.tied.tolist() == [False, False]
    assert split.learn_until.tolist() == [1, 7, 9]


@given(sequences)
def test_training_never_reaches_a_held_out_ad(users):
    offsets, is_ad, times = arrays(users)
    split = leave_one_out(offsets, is_ad, times)
    assert (split.learn_until[split.users] == split.validation).all()
    assert (split.validation < split.test).all()
    counts = [sum(ad for ad, _ in rows) for rows in users]
    assert split.users.tolist() == [user for user, count in enumerate(counts) if count >= HELD_OUT_FROM]
    for user, test, tied, validation in zip(split.users, split.test, split.tied, split.validation, strict=True):
        assert not is_ad[test + 1 : offsets[user + 1]].any()
        assert is_ad[validation : test + 1].sum() == 2
        assert tied == (times[test] == times[validation])


@given(sequences, st.integers(0, 99))
def test_shuffling_ties_exchanges_held_out_ads_only(users, seed):
    split = leave_one_out(*arrays(users))
    chosen = swapped(split, seed=seed)
    assert not (chosen & ~split.tied).any()
    values = np.arange(sum(map(len, users)))
    exchanged = swap(values, split, chosen)
    assert (exchanged[split.test[chosen]] == split.validation[chosen]).all()
    assert sorted(exchanged) == sorted(values)
    held_out = np.concatenate([split.test[chosen], split.validation[chosen]])
    assert set(np.flatnonzero(exchanged != values)) == set(held_out.tolist())


def test_about_half_of_the_ties_are_exchanged():
    split = leave_one_out(*arrays([[(True, 0)] * 3] * 1_000))
    assert split.tied.all()
    assert 430 < swapped(split, seed=5).sum() < 570
    part = split.take(np.array([7, 900]))
    assert part.users.tolist() == [7, 900]


def test_one_instant_cuts_all_histories():
    users = [
        [(True, 0), (True, 5), (False, 1), (True, 2), (False, 1), (True, 1), (True, 1)],  # days 0 5 6 8 9 10 11
        [(True, 3), (True, 6), (True, 1)],  # 3 9 10: one ad before the cut
        [(True, 1), (True, 1), (False, 8)],  # 1 2 10: no ad after it
        [(True, 2), (True, 5), (True, 13)],  # 2 7 20
    ]
    split = global_time(*arrays(users), test_share=0.6)  # from day 8 on
    assert split.users.tolist() == [0, 3]
    assert split.test.tolist() == [3, 15]
    assert split.validation.tolist() == [1, 14]
    assert split.learn_until.tolist() == [1, 8, 12, 14]
    assert not split.tied.any()


@given(sequences, st.floats(0.01, 0.99))
def test_nothing_learned_is_as_late_as_any_test_ad(users, share):
    offsets, is_ad, times = arrays(users)
    split = global_time(offsets, is_ad, times, test_share=share)
    learnt = [times[first:end] for first, end in zip(offsets, split.learn_until, strict=False)]
    for test, validation in zip(split.test, split.validation, strict=True):
        assert is_ad[test]
        assert is_ad[validation]
        assert not is_ad[validation + 1 : test].any()
        assert times[validation] < times[test]
        assert all((part < times[split.test].min()).all() for part in learnt)
    assert (split.learn_until >= offsets[:-1]).all()
    assert (split.learn_until <= offsets[1:]).all()
    assert (split.learn_until[split.users] == split.validation).all()


def test_the_recipe_s_word_chooses_the_split():
    data = arrays([[(True, 1)] * 5])
    assert hold_out("leave_one_out", *data, test_share=0.5).test.tolist() == [4]
    assert hold_out("global_time", *data, test_share=0.5).test.tolist() == [2]
