"""Table 4: S-IDs from the embeddings of different encoders. LEADRE §5.2.4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace as changed

from msgspec.structs import replace

from leadre.errors import ConfigError
from leadre.experiments.ablation import Trials, Variant, fine_tuned, run_variants
from leadre.experiments.result import Experiment, Row, tabulate
from leadre.indexing.texts.encoder import HASHED
from leadre.recipe import Recipe

METRICS = ("HR@4", "HR@8", "LTRR@4", "LTRR@8")
PAPER = {
    "Hunyuan S-IDs": dict(zip(METRICS, (0.1070, 0.2140, 0.0294, 0.0443), strict=True)),
    "E5 S-IDs": dict(zip(METRICS, (0.1052, 0.2140, 0.0256, 0.0407), strict=True)),
}
"""Table 4 as printed."""
SECOND = HASHED
"""The encoder beside the recipe's, where none are named: no model at all, words and trigrams hashed."""


def table4(recipe: Recipe, trials: Trials, *, encoders: Sequence[str] = ()) -> tuple[Experiment]:
    """Index the ads from each encoder's embeddings, and train a model on each index.

    Args:
        recipe: everything but the encoder.
        trials: what the trainings have in common.
        encoders: two or more, as recipe.index.encoder names them; by default the recipe's and `SECOND`.

    Raises:
        ConfigError: fewer than two encoders, or one that cannot be loaded.
        InvalidInput, Unavailable: as `run_variants`.
    """
    names = list(dict.fromkeys(encoders or (recipe.index.encoder, SECOND)))
    if len(names) < 2:
        raise ConfigError(f"table 4 compares encoders, there is only {names[0]}; name another one, or none")
    tuned = fine_tuned(recipe)
    variants = {
        f"{name} S-IDs": Variant(recipe=replace(tuned, index=replace(tuned.index, encoder=name))) for name in names
    }
    found = tabulate(
        run_variants(variants, trials),
        name="table4",
        title="Table 4: S-IDs of different encoders",
        note="before business alignment; the paper's encoders are others, so its directions say nothing about these",
        seeds=trials.seeds,
        metrics=METRICS,
        paper={},
        seed=recipe.evaluation.seed,
    )
    printed = tuple(Row(name=name, figures={}, seed_sd={}, paper=figures) for name, figures in PAPER.items())
    return (changed(found, rows=(*found.rows, *printed)),)
