"""The OpenAPI document of an application, made from the contracts of its routes. LEADRE §4.4.1."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from leadre import __version__
from leadre.domain.identity import MAX_SOURCE_ID
from leadre.serving.http.messages import Problem
from leadre.serving.http.routes import Route

_COMMON = {400: Problem, 413: Problem, 415: Problem, 500: Problem}
"""What any route that takes a body may answer besides; one without a body answers 400 and 500 alone."""
_USER_ID = {"type": "string", "minLength": 1, "maxLength": MAX_SOURCE_ID}


def document(name: str, routes: Sequence[Route]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of a server's routes.

    Args:
        name: what the server is called.
        routes: all it has.
    """
    types = [it for route in routes for it in (route.takes, *_answers(route).values()) if it not in (None, bytes)]
    types = list(dict.fromkeys(types))
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": f"leadre {name}", "version": __version__},
        "paths": paths,
        "components": {"schemas": components},
    }


def _answers(route: Route) -> dict[int, Any]:
    others = {status: kind for status, kind in _COMMON.items() if route.takes is not None or status in (400, 500)}
    return {**dict(route.gives), **others}


def _operation(route: Route, schema_of: dict[Any, Any]) -> dict[str, Any]:
    named = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": dict(_USER_ID)} for name in named
    ]
    parameters += [
        {"name": query.name, "in": "query", "required": False, "schema": dict(query.schema), "description": query.means}
        for query in route.queries
    ]
    operation: dict[str, Any] = {"summary": route.does, "parameters": parameters, "responses": {}}
    if route.takes is not None:
        content = {route.media_type: {"schema": {} if route.takes is bytes else schema_of[route.takes]}}
        operation["requestBody"] = {"required": True, "content": content}
    for status, kind in sorted(_answers(route).items()):
        answer: dict[str, Any] = {"description": HTTPStatus(status).phrase}
        if kind is not bytes and kind is not None:
            answer["content"] = {"application/json": {"schema": schema_of[kind]}}
        operation["responses"][str(status)] = answer
    return operation
