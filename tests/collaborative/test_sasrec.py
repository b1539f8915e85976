import numpy as np
import pytest
import torch

from leadre.collaborative.sasrec import SasRec
from leadre.errors import ConfigError
from leadre.evaluation.baselines import Histories
from leadre.evaluation.ranking import ABSENT
from leadre.recipe import SasRecRecipe, decode_recipe

TINY = SasRecRecipe(
    width=12, layers=2, heads=3, positions=7, dropout=0.1, epochs=40, patience=40, learning_rate=1e-2, batch_size=8
)
CPU = torch.device("cpu")


def histories(lists):
    return Histories(
        offsets=np.cumsum([0, *map(len, lists)]), items=np.array([item for row in lists for item in row], np.int64)
    )


def cycle(start, length):
    """Items 100 to 110, each followed by the next."""
    return [100 + (start + at) % 11 for at in range(length)]


ROWS = [cycle(start, 2 + start % 7) for start in range(55)]
TRAIN, TARGETS = histories([row[:-1] for row in ROWS]), np.array([row[-1] for row in ROWS])


def fit(**changes):
    settings = {"targets": TARGETS, "recipe": TINY, "seed": 3, "device": CPU, **changes}
    return SasRec.fit(TRAIN, **settings)


@pytest.fixture(scope="module")
def model():
    return fit()


def test_it_learns_which_item_follows(model):
    found = model.top(histories([cycle(2, 3), cycle(9, 5), cycle(6, 1)]), 2, seen="keep")
    assert found[:, 0].tolist() == [105, 103, 107]


def test_seen_items_are_left_out_even_those_that_are_too_old_to_be_read(model):
    asked = histories([cycle(0, 9), cycle(4, 2)])
    found = model.top(asked, 12, seen="leave_out")
    assert sorted(found[0].tolist()) == [ABSENT] * 10 + [109, 110]
    assert sorted(found[1].tolist()) == [ABSENT] * 3 + sorted(set(range(100, 111)) - {104, 105})
    assert (found[:, -3:] == ABSENT).all()


def test_rows_without_a_known_item_get_popular_ones(model):
    found = model.top(histories([[], [7, 8], cycle(3, 2)]), 4, seen="leave_out")
    assert found[0].tolist() == found[1].tolist()
    items, counts = np.unique(TRAIN.items, return_counts=True)
    assert found[0].tolist() == items[np.lexsort((items, -counts))][:4].tolist()


def test_unknown_items_are_passed_over(model):
    with_unknown, without = histories([[7, 102, 8, 103]]), histories([[102, 103]])
    assert (model.top(with_unknown, 5, seen="keep") == model.top(without, 5, seen="keep")).all()


def test_the_same_seed_gives_the_same_model_and_leaves_the_global_generator_alone():
    short = SasRecRecipe(width=8, layers=1, heads=2, positions=6, epochs=2, batch_size=16)
    state = torch.get_rng_state()
    first, second, other = (fit(recipe=short, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [model.network.items.weight for model in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_same_seed_and_texts_give_the_same_model_and_other_texts_another():
    short = SasRecRecipe(width=8, layers=1, heads=2, positions=6, epochs=2, batch_size=16)
    texts = np.random.default_rng(1).normal(size=(11, 5)).astype(np.float32)
    first, second, other, without = (fit(recipe=short, seed=5, texts=given) for given in (texts, texts, -texts, None))
    weights = [model.network.items.weight for model in (first, second, other, without)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[3])


def test_log_probabilities_rank_as_the_list_and_are_even_without_a_known_item(model):
    asked = histories([cycle(2, 3), [7], cycle(9, 5)])
    said = model.log_probabilities(asked, seen="leave_out")
    assert np.exp(said).sum(axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert said[1] == pytest.approx(np.full(11, -np.log(11)), abs=1e-6)
    assert np.isneginf(said[0]).nonzero()[0].tolist() == [2, 3, 4]
    top = model.top(asked, 4, seen="leave_out")
    for row in (0, 2):
        assert (100 + np.argsort(-said[row])[:4]).tolist() == top[row].tolist()


def test_it_stops_without_progress_and_keeps_the_best_weights(monkeypatch):
    reached = iter([0.1, 0.4, 0.2, 0.3, 0.9])
    weights, told = [], []

    def validate(self, rows, wanted, *, seen):
        weights.append(self.network.items.weight.detach().clone())
        return next(reached)

    monkeypatch.setattr(SasRec, "validate", validate)
    recipe = SasRecRecipe(width=8, layers=1, heads=1, positions=5, epochs=9, patience=2, batch_size=64)
    model = fit(recipe=recipe, progress=lambda *said: told.append(said))
    assert told == [*(("SASRec epochs", epoch, 9) for epoch in (1, 2, 3)), ("SASRec epochs", 4, 4)]  # it is done
    assert torch.equal(model.network.items.weight, weights[1])


def test_validation_counts_what_ranks_before_the_right_item(model):
    rows = [np.array([2, 3]), np.array([5])]
    assert model.validate(rows, np.array([4, 6]), seen="leave_out") == 1
    assert model.validate(rows, np.array([4, ABSENT]), seen="leave_out") == 0.5


@pytest.mark.parametrize("rows", [[[]], [[4], [9]], []])
def test_nothing_to_learn_is_no_error(rows):
    train = histories(rows)
    model = SasRec.fit(train, targets=np.full(len(rows), ABSENT), recipe=TINY, seed=0, device=CPU)
    found = model.top(histories([[4], []]), 3, seen="leave_out")
    assert found.shape == (2, 3)
    assert set(found.ravel().tolist()) <= {ABSENT, *train.items.tolist()}


def test_without_held_out_items_all_epochs_are_trained():
    told = []
    recipe = SasRecRecipe(width=8, layers=1, heads=1, positions=5, epochs=4, patience=1, batch_size=64)
    fit(targets=np.full(len(ROWS), ABSENT), recipe=recipe, progress=lambda *said: told.append(said[1]))
    assert told == [1, 2, 3, 4]


def test_a_width_that_the_heads_cannot_share_is_refused():
    with pytest.raises(ConfigError, match="width=10 must be a multiple of heads=4"):
        decode_recipe({"name": "x", "evaluation": {"sasrec": {"width": 10, "heads": 4}}}, source="here")


def test_states_before_are_those_of_training_in_one_pass_and_of_windows_where_rows_are_long(model):
    rows = [cycle(0, 6), [7, 103], cycle(3, 8), [], cycle(1, 20), [104, 7, 105]]
    found = model.states_before(histories(rows))
    ends = np.cumsum([0, *map(len, rows)])

    def after(items):
        with torch.no_grad():
            return model.network.eval()(torch.tensor([items]) - 100)[0].numpy()

    assert found.shape == (39, TINY.width)
    for row in range(len(rows)):
        if rows[row]:
            assert not found[ends[row]].any()  # nothing is known before the first
    assert found[1:6] == pytest.approx(after(rows[0][:-1]), abs=1e-5)
    assert found[ends[2] + 1 : ends[3]] == pytest.approx(after(rows[2][:-1]), abs=1e-5)
    assert not found[ends[1] + 1].any()  # nor after an item that nobody knows
    long = found[ends[4] : ends[5]]
    assert long[1:8] == pytest.approx(after(rows[4][:7]), abs=1e-5)
    assert long[8:12] == pytest.approx(after(rows[4][4:11])[3:], abs=1e-5)
    assert found[ends[5] + 1] == pytest.approx(after([104])[0], abs=1e-5)
    assert found[ends[5] + 2] == pytest.approx(after([104])[0], abs=1e-5)


def test_it_may_know_items_of_others_and_says_after_how_many_epochs_it_was_best():
    fitted = fit(items=np.arange(95, 120), recipe=decode_changed(epochs=3))
    assert fitted.items.tolist() == list(range(95, 120))
    assert 1 <= fitted.epochs <= 3
    assert np.isfinite(fitted.log_probabilities(histories([cycle(1, 3)]), seen="keep")).all()


def decode_changed(**changes):
    import msgspec

    return msgspec.structs.replace(TINY, **changes)
