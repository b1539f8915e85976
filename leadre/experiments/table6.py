"""Table 6: ads generated as S-IDs, as their original text, and as a compressed text.

LEADRE §5.2.5. All rows have the same recipe: the same model, context window, curriculum, samples and updates, before
business alignment. A row differs in how an ad is spelled, in histories and in answers alike. Texts get what suits them:
the loss and the score are over the whole vocabulary, an end token is learned, the tokenizer has read the texts as often
as they are answers, and the beam is wider.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from leadre.domain.ads import Ad
from leadre.experiments.ablation import Trials, Variant, fine_tuned, index_of, run_variants
from leadre.experiments.generated_texts.ad_texts import compressed_texts, original_texts, spelled
from leadre.experiments.generated_texts.engine import TextEngine
from leadre.experiments.result import Experiment, Measured, tabulate
from leadre.indexing.ad_index import AdIndex
from leadre.pipelines.learning.evaluate import answer
from leadre.pipelines.learning.measures import by_user
from leadre.pipelines.learning.train import read_training_data
from leadre.recipe import Recipe, encode_recipe
from leadre.training.data.examples import TrainingData
from leadre.training.fine_tune import fine_tune
from leadre.training.learner.learner import fresh_learner
from leadre.training.run.progress import Progress

METRICS = ("HR@1", "HR@4", "HR@8", "NDCG@4", "NDCG@8")
SIDS, ORIGINAL, COMPRESSED = "S-IDs", "Original Text", "Compressed Text"
PAPER = {
    SIDS: dict(zip(METRICS, (0.0800, 0.1526, 0.1975, 0.1194, 0.1353), strict=True)),
    ORIGINAL: dict(zip(METRICS, (0.0306, 0.0551, 0.0679, 0.0439, 0.0487), strict=True)),
    COMPRESSED: dict(zip(METRICS, (0.0572, 0.1102, 0.1317, 0.0861, 0.0967), strict=True)),
}
"""Table 6 as printed."""
TEXTS: dict[str, Callable[[Sequence[Ad]], list[str]]] = {ORIGINAL: original_texts, COMPRESSED: compressed_texts}
WIDER = 2
"""Times the recipe's beam width that texts are searched with: they are longer, so more is pruned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trained:
    """One training on texts: its users' `METRICS`, float64[n, 5], and how many tokens an ad's text has on average."""

    values: NDArray[np.float64]
    tokens_an_ad: float


def table6(recipe: Recipe, trials: Trials) -> tuple[Experiment]:
    """Train a model that names ads by S-IDs, one that names them by their names, and one by compressed names.

    Raises:
        InvalidInput: as `run_variants`; or a text is too long for the prompt's budget.
        ConfigError, Unavailable: as `run_variants`.
    """
    tuned = fine_tuned(recipe)
    index = index_of(recipe.index, trials)
    sids = run_variants({SIDS: Variant(recipe=tuned)}, trials)[SIDS]
    measured = {SIDS: sids.only(METRICS)}
    said = []
    for name in TEXTS:
        runs = [_run(name, tuned, trials, index=index, seed=seed) for seed in trials.seeds]
        measured[name] = Measured(metrics=METRICS, values=np.stack([run.values for run in runs]))
        said.append(f"{name} {runs[0].tokens_an_ad:.1f} tokens")
    found = tabulate(
        measured,
        name="table6",
        title="Table 6: S-IDs against texts of the ads",
        note=f"before business alignment; an ad is {index.codes.shape[1]} codes, {', '.join(said)}; compressed texts "
        "are ours, words of the name by TF-IDF: the paper publishes none; texts are searched with "
        f"{WIDER} times the beams; of ads that share a text the more popular one comes first, and only the right one "
        "is a hit",
        seeds=trials.seeds,
        metrics=METRICS,
        paper=PAPER,
        pairs=[(COMPRESSED, ORIGINAL)],
        seed=recipe.evaluation.seed,
    )
    return (found,)


def _run(name: str, recipe: Recipe, trials: Trials, *, index: AdIndex, seed: int) -> _Trained:
    """Return one row of texts with one seed; as with `run_variants`, what is kept is not trained again."""
    seeded = replace(
        recipe,
        sft=replace(
            recipe.sft,
            seed=recipe.sft.seed + seed,
            level_loss=False,
            checkpoint_steps=0,
            validate_users=0,
            patience=0,
        ),
        decoding=replace(recipe.decoding, beam_width=WIDER * recipe.decoding.beam_width),
    )
    data = read_training_data(database_url=trials.database_url, index=index, recipe=seeded, now=trials.now)
    by_id = {ad.ad_id: ad for ad in data.ads}
    texts = TEXTS[name]([by_id[ad_id] for ad_id in index.ad_ids.tolist()])
    kept = trials.kept / f"{_key(seeded, trials, index=index, data=data, texts=texts)}.npz"
    if not kept.is_file():
        made = _train(seeded, trials, index=index, data=data, texts=texts, name=f"{name}, seed {seed}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_suffix(".unfinished")
        with unfinished.open("wb") as file:
            np.savez(file, values=made.values, tokens_an_ad=made.tokens_an_ad)
        unfinished.replace(kept)
    with np.load(kept, allow_pickle=False) as stored:
        return _Trained(values=stored["values"], tokens_an_ad=float(stored["tokens_an_ad"]))


def _train(
    recipe: Recipe, trials: Trials, *, index: AdIndex, data: TrainingData, texts: Sequence[str], name: str
) -> _Trained:
    """Train and measure a model that names ads by `texts`, one for each row of the index."""
    text_of = dict(zip(index.ad_ids.tolist(), texts, strict=True))
    learned = [data.sequences[user][at].item_id for user, places in enumerate(data.targets) for at in places]
    learner = spelled(
        fresh_learner(recipe, index, data, more_text=(text_of[ad_id] for ad_id in learned)),
        {index.sid_at(row): text for row, text in enumerate(texts)},
    )
    progress = _named(name, trials.progress)
    with tempfile.TemporaryDirectory(prefix="leadre-table6-") as scratch:
        fine_tune(learner, data, recipe=recipe, start=name, work=Path(scratch), progress=progress)
    of_ads = [learner.encoder.vocabulary.sid_ids(index.sid_at(row)) for row in range(len(index))]
    times = Counter(learned)
    answers = answer(
        database_url=trials.database_url,
        index=index,
        engine=TextEngine(
            learner.model.to(trials.device),
            texts=of_ads,
            index=index,
            precedence=np.array([-times[ad_id] for ad_id in index.ad_ids.tolist()], np.int64),
            vocabulary_size=learner.vocabulary.size,
        ),
        encoder=learner.encoder,
        recipe=recipe,
        progress=progress,
    )
    names, values = by_user(answers)
    return _Trained(
        values=values[:, [names.index(metric) for metric in METRICS]],
        tokens_an_ad=float(np.mean([len(text) - 1 for text in of_ads])),  # but for the end token
    )


def _key(recipe: Recipe, trials: Trials, *, index: AdIndex, data: TrainingData, texts: Sequence[str]) -> str:
    """Return what names a training's figures: made of all that decides them."""
    plain = encode_recipe(recipe)
    made_of = [plain["prompt"], plain["model"], plain["sft"], plain["decoding"], plain["evaluation"]]
    newest = max(row.occurred_at for behaviors in data.sequences for row in behaviors)
    made_of += [index.version, list(texts), min(trials.now, newest).isoformat()]
    mark = hashlib.blake2b(json.dumps(made_of).encode(), digest_size=12)
    for behaviors in data.sequences:
        mark.update(repr([(row.user_id, row.item_id, row.domain, row.occurred_at) for row in behaviors]).encode())
    return mark.hexdigest()


def _named(name: str, progress: Progress | None) -> Progress:
    """Return a progress that says of which training it speaks."""

    def report(what: str, done: int, total: int | None) -> None:
        if progress is not None:
            progress(f"{name}: {what.removeprefix('train: ')}", done, total)

    return report
