"""Explanations as plain values. Ours; for HTTP and `--json`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def plain(explanation: DataclassInstance) -> dict[str, Any]:
    """Return an explanation as dicts, tuples, texts and numbers: what `json.dumps` takes."""
    return asdict(explanation)
