"""Strings that look like S-IDs, control tokens and chat markers, through prompts as they are learned and served.

`python -m tests.security.fuzz_texts --strings 1000000 --seed 1 --json` prints how many were tried, how many became a
token of ours or a marker of the base model (0), and how many were tried a second.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, normalizers
from transformers import PreTrainedTokenizerFast

from leadre.domain.behavior import Action, Behavior, Domain
from leadre.domain.semantic_id import SemanticId
from leadre.domain.users import Context, ContextBehavior, InterestSummary, Profile
from leadre.prompts.fit_length import NO_TARGET, PromptEncoder
from leadre.prompts.render import Learnable, Prompt, Sid, render, render_explicit
from leadre.prompts.vocabulary import SPECIAL_TOKENS, Vocabulary
from leadre.recipe import PromptRecipe
from leadre.training.learner.tokenizer import text_encoder, text_tokenizer_of, train_text_tokenizer

NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)
MARKERS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "</s>", "<s>", "<unk>", "<tool>", "<|eot_id|>")
CODES = (16, 16, 4)
SIDS = {1: SemanticId((3, 5, 0)), 2: SemanticId((15, 0, 3))}
SLOTS = 16
"""Strings of one context."""
LOOK_ALIKES = {
    "<": "<\uff1c\ufe64\u2039\u3008\u27e8\u02c2\u1438",
    ">": ">\uff1e\ufe65\u203a\u3009\u27e9\u02c3\u1433",
    "_": "_\uff3f\ufe4d\u203f\u005f\u0332",
    "|": "|\uff5c\u2502\u01c0\u2223\ufe31",
}
HIDDEN = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u202e\u0301\ufe0f\x00\x1b\ud800"
PIECES = (
    *("<a_1>", "<b_15>", "<c_3>", "<a_3, b_5, c_0>", "<a_1><b_2><c_0>", "a_1", "<a_", "_1>", "<d_0>", "<a_01>"),
    *SPECIAL_TOKENS,
    *MARKERS,
    *(
        "[Response]:",
        "<Learnable Token>",
        "^",
        "; ",
        "0 days ago^Click ad^",
        "\n",
        "\r\n",
        "assistant",
        "user\n",
        "{",
        "}",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A way of reading prompts: its encoder, and the ids of the base model's own markers."""

    encoder: PromptEncoder
    markers: frozenset[int]


def strings(rng: random.Random) -> Iterator[str]:
    """Yield hostile strings without end."""
    letters = "abcdefghij 0123456789äß漢字🙂,.-"
    while True:
        parts = [
            rng.choice(PIECES) if rng.random() < 0.7 else "".join(rng.choices(letters, k=rng.randrange(1, 8)))
            for _ in range(rng.randrange(1, 7))
        ]
        text = rng.choice(("", "", " ")).join(parts)
        if rng.random() < 0.5:
            text = "".join(rng.choice(LOOK_ALIKES.get(each, each)) for each in text)
        if rng.random() < 0.3:  # full-width letters and digits
            text = "".join(
                chr(ord(each) + 0xFEE0) if "!" <= each <= "~" and rng.random() < 0.5 else each for each in text
            )
        if rng.random() < 0.3:
            place = rng.randrange(len(text) + 1)
            text = text[:place] + rng.choice(HIDDEN) + text[place:]
        if rng.random() < 0.2:
            text = unicodedata.normalize(rng.choice(("NFC", "NFD", "NFKC", "NFKD")), text)
        yield text


def readers(folder: Path) -> list[Reader]:
    """Return a tokenizer of our own and one of a base model that normalises (NFKC) and knows chat markers.

    Both learned from texts full of what they must not match.
    """
    corpus = [*PIECES * 3, *(text for text, _ in zip(strings(random.Random(0)), range(500), strict=False))]
    clean = [text.encode(errors="ignore").decode() for text in corpus]
    own = train_text_tokenizer(clean, size=700)
    backend = Tokenizer.from_str(train_text_tokenizer(clean, size=700).to_str())
    backend.normalizer = normalizers.NFKC()
    backend.add_special_tokens([AddedToken(marker, special=True) for marker in MARKERS])
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(folder)
    base = PreTrainedTokenizerFast.from_pretrained(folder)
    markers = frozenset(base.convert_tokens_to_ids(list(MARKERS)))
    return [
        _reader(own, own.get_vocab_size(), frozenset()),
        _reader(text_tokenizer_of(base), len(base), markers),
    ]


def _reader(tokenizer: Tokenizer, size: int, markers: frozenset[int]) -> Reader:
    vocabulary = Vocabulary(text_size=size, code_counts=CODES)
    recipe = PromptRecipe(budget_tokens=100_000, summary_spus=5)
    return Reader(encoder=PromptEncoder(vocabulary, text_encoder(tokenizer), recipe), markers=markers)


def prompts(texts: Sequence[str], recipe: PromptRecipe) -> list[Prompt]:
    """Put strings wherever a person or an advertiser can write, and return the prompts of the three tasks."""
    say = iter(texts)

    def behavior(item: int, action: Action) -> ContextBehavior:
        domain = Domain.CONTENT if action is Action.WATCH else Domain.AD
        at = NOW - timedelta(days=1 + item)
        done = Behavior(user_id=7, domain=domain, action=action, item_id=item, occurred_at=at)
        return ContextBehavior(behavior=done, title=next(say))

    context = Context(
        profile=Profile(
            user_id=7,
            age=30,
            sex=next(say),
            residence=next(say),
            education_level=next(say),
            occupation=next(say),
            consumption_level=next(say),
        ),
        summary=InterestSummary(liked=((next(say), 3), (next(say), 2)), liked_spus=((next(say), 2),)),
        behaviors=(
            behavior(1, Action.CLICK),
            behavior(90, Action.WATCH),
            behavior(91, Action.WATCH),
            behavior(92, Action.CLICK),
            behavior(2, Action.CONVERSION),
        ),
        now=NOW,
    )
    described = (render(context, recipe=recipe, sid_of=SIDS.get, describe=how) for how in ("sid", "title"))
    return [*described, *(render_explicit(text, recipe=recipe) for text in say)]


def leaks(reader: Reader, texts: Sequence[str]) -> int:
    """Return how many prompts of these strings have other tokens of ours than their S-IDs and the learnable one."""
    encoder, vocabulary = reader.encoder, reader.encoder.vocabulary
    wrong = 0
    for prompt in prompts(texts, encoder.recipe):
        segments: list[Any] = [*prompt.head, *chain.from_iterable(prompt.behaviors), *prompt.tail]
        expected = [
            token
            for segment in segments
            if isinstance(segment, Sid | Learnable)
            for token in (vocabulary.sid_ids(segment.sid) if isinstance(segment, Sid) else [vocabulary.learnable_id])
        ]
        served, learned = encoder.encode(prompt), encoder.encode_with_targets(prompt)
        special = [token for token in served if token >= vocabulary.text_size or token in reader.markers]
        supervised = [token for token, level in zip(learned.ids, learned.levels, strict=True) if level != NO_TARGET]
        codes = [token for token in expected if token != vocabulary.learnable_id]
        wrong += special != expected or learned.ids != served or supervised != codes
    return wrong


def fuzz(*, count: int, seed: int) -> dict[str, float]:
    """Try `count` strings; see the module."""
    drawn, tried, leaked, began = strings(random.Random(seed)), 0, 0, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        both = readers(Path(folder))
    while tried < count:
        texts = [next(drawn) for _ in range(SLOTS)]
        leaked += sum(leaks(reader, texts) for reader in both)
        tried += SLOTS
    return {"strings": tried, "leaks": leaked, "strings_per_s": round(tried / (time.perf_counter() - began))}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strings", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = fuzz(count=given.strings, seed=given.seed)
    print(json.dumps(found) if given.json else "\n".join(f"{name:15} {value:,}" for name, value in found.items()))
