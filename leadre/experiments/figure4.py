"""Figure 4: (a) what the learnable soft-prompt token is worth; (b) DPO against RRHF. LEADRE §5.2.1, §5.2.3."""

from __future__ import annotations

from dataclasses import replace as changed

from msgspec.structs import replace

from leadre.experiments.ablation import CUTOFFS, Trials, Variant, fine_tuned, run_variants, simulated_ecpm
from leadre.experiments.result import Curve, Direction, Experiment, tabulate
from leadre.recipe import Recipe

SOFT_METRICS = tuple(f"{metric}@{cutoff}" for metric in ("HR", "NDCG") for cutoff in CUTOFFS)
ALIGNED_METRICS = ("diversity", "LTRR@4", "LTRR@8", "eCPM", "HR@4", "HR@8")
WITHOUT, WITH = "w.o. SoftPrompt", "w. SoftPrompt"
SFT, RRHF, DPO = "SFT", "RRHF", "DPO"
RAISED: dict[str, Direction] = {"diversity": 1, "LTRR@4": 1, "LTRR@8": 1, "eCPM": 1}
"""What the paper says of (b) in words; the figure prints no numbers. eCPM is what the alignment is for (§4.3.2)."""


def figure4(recipe: Recipe, trials: Trials) -> tuple[Experiment, Experiment]:
    """Train with and without the token; align the model with the token by RRHF and by DPO. One training serves both.

    Raises:
        InvalidInput, ConfigError, Unavailable: as `run_variants`.
    """
    tuned = fine_tuned(recipe)
    soft = replace(tuned, prompt=replace(tuned.prompt, learnable_token=True))
    hard = replace(tuned, prompt=replace(tuned.prompt, learnable_token=False))
    rrhf = replace(soft, dpo=replace(recipe.dpo, enabled=True, method="rrhf"))
    dpo = replace(soft, dpo=replace(recipe.dpo, enabled=True, method="dpo"))
    found = run_variants(
        {
            WITHOUT: Variant(recipe=hard),
            WITH: Variant(recipe=soft),
            RRHF: Variant(recipe=rrhf, after=WITH),
            DPO: Variant(recipe=dpo, after=WITH),
        },
        trials,
    )
    seed = recipe.evaluation.seed
    token = tabulate(
        {WITHOUT: found[WITHOUT], WITH: found[WITH]},
        name="figure4a",
        title="Figure 4 (a): the soft-prompt token",
        note="before business alignment; the paper draws a figure without numbers",
        seeds=trials.seeds,
        metrics=SOFT_METRICS,
        paper={},
        directions={(WITH, WITHOUT): dict.fromkeys(SOFT_METRICS, 1)},
        seed=seed,
    )
    simulated = "; eCPM is simulated" if simulated_ecpm(trials) else ""
    aligned = tabulate(
        {SFT: found[WITH], RRHF: found[RRHF], DPO: found[DPO]},
        name="figure4b",
        title="Figure 4 (b): business alignment",
        note="of the first 8 ads: diversity (mean of the users' own), LTRR, mean eCPM; the paper draws a figure "
        f"without numbers and speaks of no hit ratio{simulated}",
        seeds=trials.seeds,
        metrics=ALIGNED_METRICS,
        paper={},
        pairs=[(DPO, RRHF)],
        directions={(RRHF, SFT): RAISED, (DPO, SFT): RAISED, (DPO, RRHF): RAISED},
        seed=seed,
    )
    return changed(token, curves=_by_cutoff(token), x_label="K", y_label="hit ratio, NDCG"), aligned


def _by_cutoff(token: Experiment) -> tuple[Curve, ...]:
    return tuple(
        Curve(
            panel=f"{metric}@K",
            name=row.name,
            x=tuple(float(cutoff) for cutoff in CUTOFFS),
            y=tuple(row.figures[f"{metric}@{cutoff}"] for cutoff in CUTOFFS),
        )
        for metric in ("HR", "NDCG")
        for row in token.rows
    )
