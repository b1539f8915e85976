"""The optimizer of fine-tuning where it is Muon: the layers' matrices by Muon, everything else by AdamW.

Ours; the paper uses AdamW (LEADRE §5.1.3). Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon)
replaces a matrix's momentum by the nearest matrix whose singular values are one, so that a step goes as far in rare
directions as in common ones. Its steps are scaled to be as long as AdamW's (Liu et al., 2025, arXiv:2502.16982), and so
both have the same rate. Embeddings and gains are no maps from one space to another and stay with AdamW.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from leadre.errors import ConfigError


class MuonWithAdamW(Optimizer):
    """Both optimizers as one: one schedule moves both rates.

    Args:
        model: what is trained are its parameters that require a gradient.
        rate: of both.
        decay: weight decay of both.
        decayed: names of the parameters that AdamW decays; a matrix of Muon's always does.

    Raises:
        ConfigError: no linear layer of the model is trained.
    """

    def __init__(self, model: nn.Module, *, rate: float, decay: float, decayed: Collection[str]) -> None:
        matrices = matrices_of(model)
        if not matrices:
            raise ConfigError(
                "sft.optimizer='muon' trains the matrices of linear layers, and this model has none that is trained; "
                "set it to 'adamw'"
            )
        taken = {id(matrix) for matrix in matrices}
        others = [
            (name, each) for name, each in model.named_parameters() if each.requires_grad and id(each) not in taken
        ]
        groups = [
            {"params": [each for name, each in others if (name in decayed) is wanted], "weight_decay": decay * wanted}
            for wanted in (True, False)
        ]
        self._muon = Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
        self._adamw = AdamW([group for group in groups if group["params"]], lr=rate, fused=True)
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {"lr": rate})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take a step of each."""
        if closure is not None:
            raise TypeError(
                "MuonWithAdamW takes its gradients as they are; call backward before step, without a closure"
            )
        self._muon.step()  # type: ignore[no-untyped-call]
        self._adamw.step()

    def state_dict(self) -> dict[str, Any]:
        """Return both states."""
        return {"muon": self._muon.state_dict(), "adamw": self._adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with what `state_dict` returned."""
        self._muon.load_state_dict(state_dict["muon"])
        self._adamw.load_state_dict(state_dict["adamw"])
        self.param_groups = [*self._muon.param_groups, *self._adamw.param_groups]


def matrices_of(model: nn.Module) -> list[torch.Tensor]:
    """Return the trained weights of linear layers, adapters' too, but for the output embedding's."""
    find = getattr(model, "get_output_embeddings", None)
    head = find() if find is not None else None
    return [
        layer.weight
        for layer in model.modules()
        if isinstance(layer, nn.Linear) and layer is not head and layer.weight.requires_grad
    ]
