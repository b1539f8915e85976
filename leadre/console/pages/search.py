"""The search that makes a user's list, level by level on the trie: the one page that runs the LLM. LEADRE §3.4."""

from __future__ import annotations

from time import perf_counter

from leadre.console.answers import page
from leadre.console.pages.asked import named
from leadre.console.sight import Sight
from leadre.console.tree import tree
from leadre.explain import explain_list
from leadre.serving.http.messages import Answer, Request
from leadre.store.records.database import transaction

BELOW_CUT = 3
"""Prefixes of each level that are shown beside those that were kept (ours)."""


def show(sight: Sight, request: Request) -> Answer:
    """Decode a user as a worker would, and show the search. Nothing is stored.

    Raises:
        ConfigError: the engine does not tell its steps.
        InvalidInput: no id.
        Unavailable: a server does not answer, or no release is in memory.
    """
    user, now = named(request, "id"), sight.clock()
    with sight.decoding() as retriever, transaction(sight.database) as connection:
        (context,) = sight.features.contexts([user.number], now=now)
        began = perf_counter()
        explanation = explain_list(retriever, context, connection=connection, now=now, below_cut=BELOW_CUT)
        took_s = perf_counter() - began
    return page(
        "search.html",
        here="user",
        tab="search",
        user=user,
        found=explanation,
        tree=tree(explanation.levels),
        took_ms=1000 * took_s,
    )
