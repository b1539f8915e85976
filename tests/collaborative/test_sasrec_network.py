import numpy as np
import pytest
import torch
from torch.nn import functional

from leadre.collaborative.sasrec_network import SasRecNetwork, softmax_loss
from leadre.recipe import SasRecRecipe

TINY = SasRecRecipe(width=12, layers=2, heads=3, positions=7, dropout=0.1)


def test_a_state_depends_on_no_later_item_and_on_no_padding():
    network = SasRecNetwork(17, TINY).eval()
    short, long = torch.tensor([[3, 8, 5]]), torch.tensor([[3, 8, 16]])
    assert torch.allclose(network(short)[:, :2], network(long)[:, :2], atol=1e-6)
    padded = torch.tensor([[3, 8, 5, -1, -1], [1, 2, 3, 4, 5]])
    assert torch.allclose(network(padded)[0, :3], network(short)[0], atol=1e-5)


def test_the_loss_and_its_gradients_are_those_of_the_cross_entropy():
    generator = torch.Generator().manual_seed(2)
    states = torch.randn(301, 16, generator=generator, requires_grad=True)
    table = torch.randn(53, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, 53, (301,), generator=generator)
    loss = softmax_loss(states, table, targets) / 7
    loss.backward()
    found = loss.detach(), states.grad.clone(), table.grad.clone()
    states.grad = table.grad = None
    plain = torch.nn.functional.cross_entropy(states @ table.T, targets, reduction="sum") / 7
    plain.backward()
    for value, wanted in zip(found, (plain.detach(), states.grad, table.grad), strict=True):
        assert (value - wanted).norm() <= 0.02 * wanted.norm()  # bfloat16 where it is native


def test_items_with_like_texts_start_near_each_other_yet_not_equal():
    random = np.random.default_rng(3)
    centres = random.normal(size=(4, 30))
    texts = (centres[np.arange(21) % 4] + 0.1 * random.normal(size=(21, 30))).astype(np.float32)
    texts[4] = texts[0]
    torch.manual_seed(5)
    network = SasRecNetwork(21, TINY)
    before = float(network.items.weight.detach().std())
    network.start_from(texts)
    directions = functional.normalize(network.items.weight.detach(), dim=1)
    like = (directions @ directions.T).numpy()
    same = np.equal.outer(np.arange(21) % 4, np.arange(21) % 4) & ~np.eye(21, dtype=bool)
    assert like[same].mean() > 0.8
    assert abs(like[~same & ~np.eye(21, dtype=bool)].mean()) < 0.5
    assert not torch.equal(network.items.weight[0], network.items.weight[4])
    assert 0.5 * before < float(network.items.weight.detach().std()) < 2 * before


def test_texts_that_say_nothing_or_are_narrow_leave_finite_embeddings():
    for items, texts in ((17, np.ones((17, 5), np.float32)), (1, np.ones((1, 30), np.float32))):
        network = SasRecNetwork(items, TINY)
        network.start_from(texts)
        assert torch.isfinite(network.items.weight).all()
    narrow = SasRecNetwork(17, TINY)
    narrow.start_from(np.random.default_rng(0).normal(size=(17, 5)).astype(np.float32))
    assert (narrow.items.weight[:, :5].std() > 2 * narrow.items.weight[:, 5:].std()).item()


@pytest.mark.parametrize("distinct", [48, 24])
def test_few_ads_and_ads_of_one_text_have_components_too(distinct: int) -> None:
    rng = np.random.default_rng(distinct)
    texts = np.zeros((48, 512), np.float32)
    for row in texts[:distinct]:
        row[rng.integers(0, texts.shape[1], 12)] = rng.choice([-1.0, 1.0], 12)
    texts[distinct:] = texts[: 48 - distinct]
    network = SasRecNetwork(48, SasRecRecipe(width=16, heads=2))
    network.start_from(texts)
    assert torch.isfinite(network.items.weight).all()
    assert float(network.items.weight.detach().std()) > 0.01
