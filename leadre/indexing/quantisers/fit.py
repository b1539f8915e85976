"""Fit the quantiser that a recipe asks for. LEADRE §3.2."""

from __future__ import annotations

from leadre.errors import InvalidInput
from leadre.indexing.quantisers.quantiser import Floats, Quantiser
from leadre.indexing.texts.encoder import Progress
from leadre.recipe import IndexRecipe


def fit_quantiser(embeddings: Floats, recipe: IndexRecipe, *, progress: Progress | None = None) -> Quantiser:
    """Fit codebooks on the embeddings of all ads, float32[N, d].

    Raises:
        InvalidInput: no ads, or a value that is not finite.
        ConfigError: the recipe's width exceeds d (not the RQ-VAE), or is below the levels (product codes only).
    """
    if not len(embeddings):
        raise InvalidInput("there are no ads to fit the codebooks on")
    if recipe.quantiser == "residual_kmeans":
        from leadre.indexing.quantisers.residual_kmeans import fit_residual_kmeans

        return fit_residual_kmeans(
            embeddings, levels=recipe.levels, codes=recipe.codes, width=recipe.width, seed=recipe.seed
        )
    if recipe.quantiser == "product":
        from leadre.indexing.quantisers.product import fit_product

        return fit_product(embeddings, levels=recipe.levels, codes=recipe.codes, width=recipe.width, seed=recipe.seed)
    from leadre.indexing.quantisers.rqvae import fit_rqvae  # torch is needed by the one quantiser only

    return fit_rqvae(
        embeddings,
        levels=recipe.levels,
        codes=recipe.codes,
        width=recipe.width,
        hidden=recipe.hidden,
        beta=recipe.beta_quant,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        seed=recipe.seed,
        progress=progress,
    )
