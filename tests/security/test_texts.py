"""No text becomes an S-ID, a control token or a chat marker: 20,000 hostile strings here, a million by command."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import AddedToken, normalizers

from leadre.prompts.fit_length import PromptEncoder
from leadre.training.learner.tokenizer import train_text_tokenizer
from tests.security.fuzz_texts import SLOTS, Reader, fuzz, leaks, readers


def test_twenty_thousand_strings_leave_no_token_that_is_not_spliced_by_id() -> None:
    found = fuzz(count=20_000, seed=1)
    assert (found["strings"], found["leaks"]) == (20_000, 0)


@pytest.mark.parametrize("text", ["<a_1>", "\uff1ca_1\uff1e", "<leadre_eos>"])
def test_a_tokenizer_that_knows_our_tokens_by_name_would_be_caught(tmp_path: Path, text: str) -> None:
    careful = readers(tmp_path)[0].encoder
    careless = train_text_tokenizer(["some words"], size=300)
    careless.normalizer = normalizers.NFKC()
    ours = careless.get_vocab_size()
    careless.add_tokens([AddedToken(name) for name in careful.vocabulary.tokens()])

    def encode(said: str) -> list[int]:
        shift = careful.vocabulary.text_size - ours
        return [token + shift if token >= ours else token for token in careless.encode(said).ids]

    by_name = PromptEncoder(careful.vocabulary, encode, careful.recipe)
    assert leaks(Reader(encoder=careful, markers=frozenset()), [text] * SLOTS) == 0
    assert leaks(Reader(encoder=by_name, markers=frozenset()), [text] * SLOTS) > 0
