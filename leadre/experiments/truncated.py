"""What an engine retrieves when parts of the users' behavior sequences are taken away.

LEADRE §5.2.6. Profile and interest summary stay as they are, and so do the times of the behaviors that are left: the
sequence alone gets shorter. A sequence is what the prompt holds of it, within window and token budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from leadre.decoding.engine import Engine
from leadre.domain.behavior import Domain
from leadre.errors import InvalidInput
from leadre.evaluation.ranking import ABSENT
from leadre.indexing.ad_index import AdIndex
from leadre.pipelines.histories import split_of
from leadre.prompts.fit_length import PromptEncoder
from leadre.prompts.render import Prompt, render
from leadre.recipe import EvaluationRecipe
from leadre.store.records.database import connect, transaction
from leadre.store.records.events import read_sequences
from leadre.training.data.contexts import read_contexts

Progress = Callable[[str, int, int | None], None]

WHOLE, NEWER, OLDER, LAST = "whole sequence", "newer half", "older half", "last behavior"
WITHOUT_ADS, WITHOUT_CONTENT = "without ads", "without content"

Kept = tuple[int, ...]
"""Places of a sequence that are kept, ascending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Histories:
    """Evaluated users whose prompts hold two behaviors or more.

    Args:
        prompts: of n users, as of their test ads.
        is_ad: for each the domain of the prompt's behaviors, bool[L], oldest first.
        targets: int64[n], the test ads.
    """

    prompts: Sequence[Prompt]
    is_ad: Sequence[NDArray[np.bool_]]
    targets: NDArray[np.int64]


def read_histories(
    *, database_url: str, index: AdIndex, encoder: PromptEncoder, recipe: EvaluationRecipe, now: datetime
) -> Histories:
    """Return the histories of the users that `leadre.pipelines.learning.evaluate` asks with this recipe.

    Raises:
        InvalidInput: there are none with two behaviors before the test ad.
        Unavailable: PostgreSQL does not answer.
    """
    engine = connect(database_url)
    try:
        with transaction(engine) as connection:
            sequences = read_sequences(connection, until=now)
            contexts = read_contexts(connection, sequences, recipe=encoder.recipe)
    finally:
        engine.dispose()
    split = split_of(sequences, recipe)
    if 0 < recipe.max_users < len(split.users):
        chosen = np.random.default_rng(recipe.seed).permutation(len(split.users))[: recipe.max_users]
        split = split.take(np.sort(chosen))
    sids = {ad_id: index.sid_at(row) for row, ad_id in enumerate(index.ad_ids.tolist())}
    prompts, domains, targets = [], [], []
    for user, test in zip(split.users.tolist(), split.test.tolist(), strict=True):
        at = datetime.fromtimestamp(float(sequences.occurred_at_s[test]), UTC)
        context = contexts.context(user, test - int(sequences.offsets[user]), at)
        prompt = encoder.fitted(render(context, recipe=encoder.recipe, sid_of=sids.get))
        length = len(prompt.behaviors)
        if length > 1:
            shown = [row.behavior.domain is Domain.AD for row in context.behaviors]
            prompts.append(prompt)
            domains.append(np.array([ad for ad in shown if ad or encoder.recipe.content][-length:]))
            targets.append(int(sequences.item_ids[test]))
    if not prompts:
        raise InvalidInput("no evaluated user has two behaviors before the test ad; import behaviors first")
    return Histories(prompts=prompts, is_ad=domains, targets=np.array(targets, np.int64))


def parts_of(is_ad: NDArray[np.bool_], points: Sequence[int], *, seed: int) -> dict[str, Kept]:
    """Return the parts of a sequence that Figure 5 asks for, by name.

    Without the n oldest behaviors, by the number n; `WHOLE`, `NEWER`, `OLDER` and `LAST`; and where both domains are
    there, `WITHOUT_ADS` and `WITHOUT_CONTENT`: without as many behaviors of either, as many as there are of the rarer.

    Args:
        is_ad: bool[L], the domain of each behavior.
        points: numbers of oldest behaviors to remove; as many as L or more are left out.
        seed: of which ads and which content are removed.
    """
    length = len(is_ad)
    parts = {str(point): tuple(range(point, length)) for point in points if point < length}
    parts |= {
        WHOLE: tuple(range(length)),
        NEWER: tuple(range(length // 2, length)),
        OLDER: tuple(range(length - length // 2)),
        LAST: (length - 1,),
    }
    ads, content = np.flatnonzero(is_ad), np.flatnonzero(~is_ad)
    if removed := min(len(ads), len(content)):
        rng = np.random.default_rng(seed)
        for name, places in ((WITHOUT_ADS, ads), (WITHOUT_CONTENT, content)):
            gone = rng.permutation(places)[:removed]
            parts[name] = tuple(np.setdiff1d(np.arange(length), gone).tolist())
    return parts


def keep(prompt: Prompt, places: Kept) -> Prompt:
    """Return the prompt with these of its behaviors alone."""
    behaviors = [prompt.behaviors[place] for place in places]
    if behaviors and places[-1] + 1 < len(prompt.behaviors):
        behaviors[-1] = behaviors[-1][:-1]  # the separator
    return changed(prompt, behaviors=tuple(behaviors))


def retrieve(
    histories: Histories,
    wanted: Sequence[Mapping[str, Kept]],
    *,
    engine: Engine,
    encoder: PromptEncoder,
    recipe: EvaluationRecipe,
    beam_width: int,
    count: int,
    progress: Progress | None = None,
) -> dict[str, NDArray[np.int64]]:
    """Return the first ads of the lists that the engine gives for parts of the sequences.

    Args:
        histories: of n users.
        wanted: for each user the parts that are asked for, by name; a user may lack some. Each is read once.
        engine: of the release.
        encoder: of the release.
        recipe: says how many prompts are decoded together.
        beam_width: of the search.
        count: ads of a list that are kept, K.
        progress: called with what is being done, how much is done, and how much there is.

    Returns:
        Name to int64[n, K], padded with `ABSENT`; all of it where a user was not asked.
    """
    asked = [(user, places) for user, parts in enumerate(wanted) for places in dict.fromkeys(parts.values())]
    prompts = [encoder.encode(keep(histories.prompts[user], places)) for user, places in asked]
    order = sorted(range(len(asked)), key=lambda at: len(prompts[at]))  # prompts of like length share a batch
    lists: dict[tuple[int, Kept], list[int]] = {}
    for start in range(0, len(order), recipe.batch_users):
        batch = order[start : start + recipe.batch_users]
        for at, beams in zip(batch, engine.generate([prompts[at] for at in batch], beam_width=beam_width), strict=True):
            lists[asked[at]] = [beam.ad_id for beam in beams[:count]]
        if progress is not None:
            progress("truncated sequences", start + len(batch), len(order))
    found: dict[str, NDArray[np.int64]] = {}
    for user, parts in enumerate(wanted):
        for name, places in parts.items():
            made = found.setdefault(name, np.full((len(wanted), count), ABSENT, np.int64))
            ads = lists[user, places]
            made[user, : len(ads)] = ads
    return found
