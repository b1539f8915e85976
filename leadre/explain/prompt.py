"""A prompt's parts by kind. LEADRE §4.2.1."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from leadre.prompts.render import Learnable, Prompt, Sid, Text


def prompt_parts(prompt: Prompt) -> Iterator[tuple[str, str]]:
    """Yield the prompt as (kind, text) pieces; kind is "text", "sid" or "learnable". For colouring."""
    for segment in chain(prompt.head, *prompt.behaviors, prompt.tail):
        match segment:
            case Text(text):
                yield "text", text
            case Sid(sid):
                yield "sid", str(sid)
            case Learnable():
                yield "learnable", "<Learnable Token>"
