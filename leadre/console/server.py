"""The console as an application: its routes, each in a thread of its own, and what becomes of their failures. Ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from datetime import datetime
from urllib.parse import parse_qs

from leadre.console.answers import page, static
from leadre.console.door import LOOPBACK_NAMES, FormGuard, HostGuard
from leadre.console.pages import ad, index, overview, queue, releases, search, user, why
from leadre.console.sight import Show, Sight
from leadre.errors import ConfigError, InvalidInput, LeadreError, Unavailable, UnknownAd
from leadre.serving.http.application import Application, Background
from leadre.serving.http.messages import Answer, Refusal, Request
from leadre.serving.http.routes import Handler, Route
from leadre.settings import Settings

_STATIC = ("console.css", "console.js", "icon.svg")
_STATUS: tuple[tuple[type[LeadreError], int], ...] = (
    (InvalidInput, 400),
    (UnknownAd, 404),
    (Unavailable, 503),
    (ConfigError, 409),
)


def create_app(
    settings: Settings,
    *,
    clock: Callable[[], datetime],
    names: Collection[str] = (),
    changes: FormGuard | None = None,
) -> Application:
    """Return the console.

    Args:
        settings: where things run.
        clock: the instant that pages act as of.
        names: by which browsers reach it, besides those of the loopback.
        changes: what forms have to pass; None: the console is read-only.
    """
    sight = Sight(settings, clock=clock)

    def shown(path: str, show: Show, does: str) -> Route:
        return Route(method="GET", path=path, handler=_handler(sight, show), does=does)

    routes = [
        shown("/", overview.show, "Say what is live, and find users and ads."),
        shown("/find", overview.find, "Go to the user, the ad or the prefix that a text names."),
        shown("/user", user.show, "Show a user."),
        shown("/user/search", search.show, "Decode a user, and draw the search."),
        shown("/user/ad", why.show, "Explain an ad's place in a user's list."),
        shown("/ad", ad.show, "Show an ad."),
        shown("/index", index.show, "Show the index, or what is below a prefix."),
        shown("/queue", queue.show, "Show who waits."),
        shown("/releases", releases.shown(changes), "List the releases."),
        *(_file(name) for name in _STATIC),
    ]
    if changes is not None:
        routes += [
            shown("/releases/change", releases.confirmation(changes), "Ask whether to promote or roll back."),
            _form("/releases/change", sight, changes),
        ]
    return Application(
        "console", routes, background=[sight.follow, _closing(sight)], guard=HostGuard([*LOOPBACK_NAMES, *names])
    )


def _handler(sight: Sight, show: Show) -> Handler:
    async def answered(request: Request) -> Answer:
        return await asyncio.to_thread(_or_why_not, sight, show, request)

    return answered


def _form(path: str, sight: Sight, changes: FormGuard) -> Route:
    def change(sight: Sight, request: Request) -> Answer:
        fields = {name: values[-1] for name, values in parse_qs(request.body.decode("utf-8", "replace")).items()}
        changes.check(request, fields.get("token", ""))
        return releases.change(sight, fields)

    return Route(method="POST", path=path, handler=_handler(sight, change), does="Promote or roll back.")


def _or_why_not(sight: Sight, show: Show, request: Request) -> Answer:
    """Return a page, or one that says why there is none. What nobody expected is the application's business."""
    try:
        return show(sight, request)
    except Refusal as refused:
        return page("problem.html", status=refused.status, problem=refused.problem, here="")
    except LeadreError as error:
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
        return page("problem.html", status=status, problem=str(error), here="")


def _file(name: str) -> Route:
    def found(_: Request) -> Answer:
        return static(name)

    return Route(method="GET", path=f"/static/{name}", handler=found, does="A file of the pages.")


def _closing(sight: Sight) -> Background:
    async def until_the_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            sight.close()

    return until_the_end
