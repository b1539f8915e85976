"""From templates to answers: escaped HTML, with the headers that keep a page to itself. Ours."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined

from leadre.serving.http.messages import Answer, Headers

_POLICY = (
    b"default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; "
    b"base-uri 'none'; frame-ancestors 'none'"
)
SEALED: Headers = (
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),  # with no-referrer a browser sends forms from the origin "null"
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),  # what is shown of persons stays in no cache
)
"""Headers of every answer."""
_TYPES = {"css": b"text/css; charset=utf-8", "js": b"text/javascript; charset=utf-8", "svg": b"image/svg+xml"}


def page(template: str, *, status: int = 200, **values: Any) -> Answer:
    """Return a page.

    Args:
        template: its name in `templates`.
        status: of HTTP.
        values: what it shows; everything is escaped.
    """
    body = _environment().get_template(template).render(**values)
    return Answer(body.encode(), status=status, content_type=b"text/html; charset=utf-8", headers=SEALED)


def elsewhere(path: str, **query: str) -> Answer:
    """Send the browser to another page of the console, by GET."""
    return Answer(b"", status=303, headers=[(b"location", link(path, **query).encode()), *SEALED])


@cache
def static(name: str) -> Answer:
    """Return a file of `static`, by a name of ours."""
    body = files("leadre.console").joinpath("static", name).read_bytes()
    return Answer(body, content_type=_TYPES[name.rpartition(".")[2]], headers=SEALED)


def link(path: str, **query: object) -> str:
    """Return the path of a page with its query, percent-encoded."""
    return f"{path}?{urlencode(query)}" if query else path


def probability(value: float) -> str:
    """Write a probability so that small ones stay apart."""
    if value == 0 or value >= 0.001:
        return f"{value:.3f}"
    return f"{value:.0e}".replace("e-0", "e-")


def moment(value: datetime | None) -> str:
    """Write an instant, to the minute, UTC."""
    return "never" if value is None else f"{value:%Y-%m-%d %H:%M}"


def span(seconds: float) -> str:
    """Write a length of time in its two largest units."""
    left = timedelta(seconds=math.floor(abs(seconds)))
    days, (hours, rest) = left.days, divmod(left.seconds, 3600)
    minutes, of_minute = divmod(rest, 60)
    parts = [f"{n} {unit}" for n, unit in ((days, "d"), (hours, "h"), (minutes, "min"), (of_minute, "s")) if n]
    return " ".join(parts[:2]) or "0 s"


def figure(value: object) -> str:
    """Write a feature's value: four digits of a number, the first entries of a list."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        shown = ", ".join(map(figure, value[:4]))
        return f"{shown}, … ({len(value)})" if len(value) > 4 else shown
    return str(value)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("leadre.console", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["link"] = link
    environment.filters.update(
        probability=probability, moment=moment, span=span, figure=figure, whole="{:,}".format, share="{:.1%}".format
    )
    return environment
