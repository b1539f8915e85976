"""Follows one user through every step: events, context, prompt, beams, list, ranker features.

LEADRE §4.2.1 (prompt), §3.4 (beams), §4.4.1 (list), §5.3 (features). For operators and for docs/walkthrough.md: it
shows a user's personal data on purpose.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from leadre.domain.ads import Ad
from leadre.domain.identity import id_of, ids_of
from leadre.domain.retrieval import RetrievalList
from leadre.domain.users import Context
from leadre.errors import ConfigError
from leadre.explain import ListExplanation, beam_tree, explain_list
from leadre.pipelines.refresh import LiveRetriever, Progress
from leadre.prompts.render import Prompt
from leadre.retrieval.retriever import Retriever
from leadre.settings import Settings
from leadre.store.features.client import FeatureClient
from leadre.store.records.catalog import read_ads, refuse_unknown
from leadre.store.records.database import connect, transaction
from leadre.store.records.ecpm import ecpm_is_simulated
from leadre.store.records.events import most_active_user
from leadre.store.records.source_ids import user_source_ids
from leadre.store.release.records import named_release

if TYPE_CHECKING:
    from sqlalchemy import Engine

_STEPS = 4
"""Of a walk, as its progress is told: the catalog, the release, the list, the search."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One user's walk.

    Args:
        user: as its owner names it; ads are named by their `source_id`.
        context: what is known of the user.
        prompt: what the LLM reads; `prompt_tokens` is its length.
        retrieved: the list the release gives now.
        ads: the ads named anywhere in the walk, by id.
        target_ads: the ads a ranker asks about.
        features: `ranker_features_v1`, one value a target ad, read through Feast.
        simulated_ecpm: whether eCPMs rest on anything but real ones.
        now: the instant of the walk.
        explanation: how the list came about; None where the engine does not tell its steps.
    """

    user: int | str
    context: Context
    prompt: Prompt
    prompt_tokens: int
    retrieved: RetrievalList
    ads: Mapping[int, Ad]
    target_ads: tuple[int, ...]
    features: Mapping[str, Sequence[Any]]
    simulated_ecpm: bool
    now: datetime
    explanation: ListExplanation | None = None

    def ad_name(self, ad_id: int) -> str:
        """Return an ad's id as its owner writes it; an ad that the catalog has lost keeps its number."""
        return self.ads[ad_id].source_id if ad_id in self.ads else str(ad_id)


def trace_user(
    settings: Settings,
    user: int | str | None = None,
    *,
    ads: Sequence[int | str] = (),
    now: datetime,
    features: FeatureClient | None = None,
    progress: Progress | None = None,
) -> Trace:
    """Refresh a user with the live release and note every step.

    Args:
        settings: where things run.
        user: the user, as its owner names it; None takes one with many behaviors.
        ads: target ads, as their owner names them; none takes some of those retrieved, and as many others.
        now: the instant.
        features: the feature store, if it is open already.
        progress: called with "steps", how many are done, and how many there are.

    Raises:
        ConfigError: no release is live, or there are no behaviors to choose a user by.
        UnknownAd: a target ad is not in the catalog.
        InvalidInput: what is given is no id.
        Unavailable: a server does not answer.
    """
    report = progress or (lambda *_: None)
    database = connect(settings.database_url, application_name="leadre trace")
    try:
        with transaction(database) as connection:
            named_release(connection)
            refuse_unknown(connection, ads)
        report("steps", 0, _STEPS)
        features = features or FeatureClient(settings.feature_repo, settings.feast_environment())
        with transaction(database) as connection:
            catalog = {ad.ad_id: ad for ad in read_ads(connection)}
            user_id = most_active_user(connection, now=now) if user is None else id_of(user)
            if user_id is None:
                raise ConfigError(f"nobody has a behavior before {now.isoformat()}: name a user, or set --now")
            user = user_source_ids(connection, [user_id])[user_id] if user is None else user
            simulated = ecpm_is_simulated(connection)
        report("steps", 1, _STEPS)
        retriever = LiveRetriever(settings, database=database, features=features).current()
        report("steps", 2, _STEPS)
        retrieved = retriever.refresh([user_id], now=now)[0]
        context = features.contexts([user_id], now=now)[0]
        prompt = retriever.prompt(context)
        targets = tuple(ids_of(ads)) or _some_targets(retrieved, catalog)
        report("steps", 3, _STEPS)
        explanation = _explained(retriever, context, database=database, now=now)
        report("steps", _STEPS, _STEPS)
        return Trace(
            user=user,
            context=context,
            prompt=prompt,
            prompt_tokens=len(retriever.encoder.encode(prompt)),
            retrieved=retrieved,
            ads=catalog,
            target_ads=targets,
            features=features.ranker_features(user_id, targets, now=now),
            simulated_ecpm=simulated,
            now=now,
            explanation=explanation,
        )
    finally:
        database.dispose()


def _explained(retriever: Retriever, context: Context, *, database: Engine, now: datetime) -> ListExplanation | None:
    """Return the search of a list, or None where the engine does not tell its steps."""
    try:
        with transaction(database) as connection:
            return explain_list(retriever, context, connection=connection, now=now)
    except ConfigError:
        return None


def _some_targets(retrieved: RetrievalList, ads: Mapping[int, Ad], *, count: int = 20) -> tuple[int, ...]:
    """Return target ads to show: half of them retrieved, half not."""
    found = [beam.ad_id for beam in retrieved.beams]
    others = [ad_id for ad_id in ads if ad_id not in set(found)]
    chosen = found[: count // 2]
    step = max(1, len(others) // max(1, count - len(chosen)))
    return tuple((chosen + others[::step])[:count])


SHOWN_FEATURES = (
    "hit",
    "rank",
    "probability",
    "longest_shared_prefix",
    "prefix_mass_1",
    "prefix_mass_2",
    "first_category_mass",
    "second_category_mass",
    "advertiser_mass",
    "max_cosine",
)
"""Item-side features that fit on a page; docs/features.md lists them all."""
SHOWN_BEAMS = 8


def as_markdown(trace: Trace) -> str:
    """Write the walk as a Markdown document."""
    return "\n".join(chain.from_iterable(_sections(trace)))


def _sections(trace: Trace) -> Iterator[list[str]]:
    command = shlex.join(["leadre", "trace", str(trace.user), *map(trace.ad_name, trace.target_ads)])
    yield [
        "# One user's walk",
        "",
        f"User {_verbatim(str(trace.user))}, release `{trace.retrieved.release}`, at {trace.now:%Y-%m-%d %H:%M} UTC. "
        "Generated by",
        "",
        f"    {command}",
        "",
    ]
    yield ["## 1. Events", "", "Positive behaviors of both domains, oldest first (PostgreSQL, table `behaviors`).", ""]
    rows = [
        (
            f"{entry.behavior.occurred_at:%m-%d %H:%M}",
            entry.behavior.domain.value,
            entry.behavior.action.value,
            entry.title,
        )
        for entry in trace.context.behaviors
    ]
    yield _table(("time", "domain", "action", "title"), rows)
    yield ["## 2. Context", "", "Read through Feast: `prompt_context_v1`.", ""]
    profile = trace.context.profile
    yield _table(
        ("field", "value"),
        [
            (name, str(getattr(profile, name)))
            for name in ("age", "sex", "residence", "education_level", "occupation", "consumption_level", "arpu")
        ]
        + [("interest summary", ", ".join(f"{name} × {count}" for name, count in trace.context.summary.liked))],
    )
    yield [
        "## 3. Prompt",
        "",
        f"{trace.prompt_tokens} tokens (lines are broken for this page). S-IDs are special tokens, spliced in by id.",
        "",
        "```text",
        *chain.from_iterable(wrap(line, 118, break_on_hyphens=False) for line in trace.prompt.text().splitlines()),
        "```",
        "",
    ]
    yield [
        "## 4. Beams",
        "",
        f"Constrained beam search under the trie (Algorithm 2). Share of the {SHOWN_BEAMS} best beams on each prefix:",
        "",
        "```text",
    ]
    names = {beam.sid.codes: beam.ad_id for beam in trace.retrieved.beams}
    for prefix, probability in beam_tree(trace.retrieved.beams[:SHOWN_BEAMS]):
        leaf = f"  {trace.ads[names[prefix]].name}" if prefix in names and names[prefix] in trace.ads else ""
        yield [f"{'  ' * (len(prefix) - 1)}{chr(96 + len(prefix))}_{prefix[-1]}  {probability:.3f}{leaf}"]
    yield ["```", ""]
    yield ["## 5. Retrieval list", "", "Written by the worker to the online store and to `retrieval_log`.", ""]
    yield _table(
        ("rank", "ad", "name", "second-level category", "S-ID", "probability"),
        [
            (
                str(place),
                _verbatim(trace.ad_name(beam.ad_id)),
                trace.ads[beam.ad_id].name if beam.ad_id in trace.ads else "",
                trace.ads[beam.ad_id].second_category if beam.ad_id in trace.ads else "",
                f"`{beam.sid}`",
                f"{math.exp(beam.log_probability):.4f}",
            )
            for place, beam in enumerate(trace.retrieved.beams[:10], start=1)
        ],
    )
    yield ["## 6. User-side features", "", "Derived when the list was written; the same for every target ad.", ""]
    user_side = (
        "retrieved_count",
        "top_probability",
        "entropy",
        "category_concentration",
        "expected_ecpm",
        "list_age_s",
    )
    yield _table(
        ("feature", "value"),
        [(label(trace, name), written(trace.features[name][0])) for name in user_side if name in trace.features],
    )
    yield ["## 7. Item-side features", "", "Derived when read, one row a target ad (`ranker_features_v1`).", ""]
    shown = [name for name in SHOWN_FEATURES if name in trace.features]
    yield _table(
        ("target ad", "name", *shown),
        [
            (
                _verbatim(trace.ad_name(ad)),
                trace.ads[ad].name if ad in trace.ads else "",
                *(written(trace.features[f][row]) for f in shown),
            )
            for row, ad in enumerate(trace.target_ads)
        ],
    )


def label(trace: Trace, feature: str) -> str:
    """Return a feature's name as a page shows it: with a word on it when it rests on an eCPM that is not a real one."""
    return f"{feature} (simulated)" if feature == "expected_ecpm" and trace.simulated_ecpm else feature


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [*lines, ""]


def _verbatim(name: str) -> str:
    """Return an id that Markdown shows as it is: nothing in it is a mark. An underscore inside a word is none."""
    return re.sub(r"[\\`*\[\]<>&~]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", name)


def written(value: object) -> str:
    """Return a feature's value as a page shows it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
