"""Why an ad is in a user's list, or is not. Runs the LLM. LEADRE §3.3, §3.4."""

from __future__ import annotations

from leadre.console.answers import page
from leadre.console.pages.asked import named
from leadre.console.sight import Sight
from leadre.explain import why
from leadre.serving.http.messages import Answer, Request
from leadre.store.records.database import transaction


def show(sight: Sight, request: Request) -> Answer:
    """Explain an ad's place in a user's list; without an ad, ask for one.

    Raises:
        ConfigError: the engine does not tell its steps.
        InvalidInput: no id.
        Unavailable: a server does not answer, or no release is in memory.
    """
    user, now = named(request, "id"), sight.clock()
    if not (request.asked("ad") or "").strip():
        return page("why.html", here="user", tab="why", user=user, ad=None, found=None)
    ad = named(request, "ad")
    with sight.decoding() as retriever, transaction(sight.database) as connection:
        (context,) = sight.features.contexts([user.number], now=now)
        found = why(retriever, context, ad.number, connection=connection, now=now)
    return page("why.html", here="user", tab="why", user=user, ad=ad, found=found)
