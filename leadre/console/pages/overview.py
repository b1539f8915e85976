"""The first page: what is live and who waits; and the way from a text that was typed to a page. Ours."""

from __future__ import annotations

import re

from leadre.console.answers import elsewhere, page
from leadre.console.sight import Sight
from leadre.domain.identity import id_of
from leadre.errors import LeadreError, Unavailable
from leadre.serving.http.messages import Answer, Request
from leadre.store.records.database import session
from leadre.store.records.source_ids import example_ids, holders
from leadre.store.release.records import live_release

_PREFIX = re.compile(r"<?\s*[a-z]_\d{1,9}(\s*[,\s]\s*[a-z]_\d{1,9})*\s*,?\s*>?", re.ASCII)
"""An S-ID, or the beginning of one, with or without its brackets."""


def show(sight: Sight, _: Request) -> Answer:
    """Show what is live."""
    with session(sight.database) as connection:
        live = live_release(connection)
        user, ad = example_ids(connection)
    index, no_index = None, ""
    try:
        index = sight.index().index
    except LeadreError as error:
        no_index = str(error)
    try:
        stats = sight.queue.stats(now=sight.clock())
    except Unavailable:
        stats = None
    return page(
        "overview.html",
        here="overview",
        live=live,
        index=index,
        no_index=no_index,
        stats=stats,
        trouble=sight.trouble,
        user=user,
        ad=ad,
    )


def find(sight: Sight, request: Request) -> Answer:
    """Go to what the text in the search field names.

    Raises:
        InvalidInput: it can be no id.
        Unavailable: PostgreSQL does not answer.
    """
    text = (request.asked("q") or "").strip()
    if not text:
        return elsewhere("/")
    if _PREFIX.fullmatch(text):
        return elsewhere("/index", prefix="-".join(re.findall(r"\d+", text)))
    number = id_of(text)
    with session(sight.database) as connection:
        having = holders(connection, [number])
    found = [kind for kind, table in (("user", "users"), ("ad", "ads")) if number in having[table]]
    if len(found) == 1:
        return elsewhere(f"/{found[0]}", id=text)
    return page("find.html", status=200 if found else 404, here="", text=text, found=found)
