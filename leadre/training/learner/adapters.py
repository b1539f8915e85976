"""LoRA adapters: a large base learns in a fraction of the memory, and comes out as a plain model.

LEADRE §5.1.3 (the paper trains every weight). PEFT's adapters on every linear layer, and the embeddings of the tokens
that are ours, which a base has never seen, are all that is trained: gradients and AdamW's two moments are kept for
these alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from peft import LoraConfig, LoraModel
from transformers import PreTrainedModel, set_seed

from leadre.recipe import ModelRecipe


@contextmanager
def adapted(model: PreTrainedModel, recipe: ModelRecipe, *, new_tokens: range, seed: int) -> Iterator[None]:
    """Train adapters in place of `model`'s weights as long as the context lasts; then merge them into the weights.

    Args:
        model: a causal LM, changed in place; it stays of its own class, so the training head fits it as before.
        recipe: rank and alpha; of rank 0 nothing happens and every weight is trained.
        new_tokens: ids of the special tokens and codes.
        seed: of the adapters' initial weights.
    """
    if not recipe.lora_rank:
        yield
        return
    set_seed(seed)
    names = {module: name for name, module in model.named_modules()}
    layers = [names[model.get_input_embeddings()]]
    if not model.config.tie_word_embeddings:  # the output of a tied model follows its input
        layers.append(names[model.get_output_embeddings()])
    config = LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        target_modules="all-linear",
        trainable_token_indices={layer: list(new_tokens) for layer in layers},
    )
    adapters = LoraModel(model, config, "default")
    try:
        yield
    finally:
        adapters.merge_and_unload()
        model.requires_grad_(requires_grad=True)
