import torch

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
