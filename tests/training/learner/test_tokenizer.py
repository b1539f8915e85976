"""Text stays text: no string becomes an S-ID or a control token."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from leadre.errors import ConfigError
from leadre.prompts.vocabulary import Vocabulary
from leadre.training.learner.tokenizer import (
    load_base_tokenizer,
    model_tokenizer,
    text_encoder,
    text_tokenizer_of,
    train_text_tokenizer,
)

CORPUS = ["3 days ago^Click ad^", "31 days ago^Click ad^", "; ", "alpine hiking tour <a_1>"] * 5
TOKENIZER = train_text_tokenizer(CORPUS, size=300)
VOCABULARY = Vocabulary(text_size=TOKENIZER.get_vocab_size(), code_counts=(5, 7, 3))
ENCODE = text_encoder(TOKENIZER)


@given(
    st.one_of(
        st.text(max_size=80),
        st.lists(st.sampled_from([*VOCABULARY.tokens(), "＜a_1＞", " ", "<", "<|im_end|>"]), max_size=8).map("".join),
    )
)
def test_no_text_reaches_the_ids_of_our_tokens_and_every_text_comes_back(text: str) -> None:
    ids = ENCODE(text)
    assert all(token < VOCABULARY.text_size for token in ids)
    assert TOKENIZER.decode(ids) == text


def test_long_text_is_encoded_like_short_text() -> None:
    assert ENCODE("<b_1>" * 200) == [token for _ in range(200) for token in ENCODE("<b_1>")]


def test_wording_between_behaviors_becomes_one_token() -> None:
    assert len(ENCODE(" days ago^Click ad^")) <= 2


def test_the_models_tokenizer_has_our_tokens_at_the_vocabularys_ids() -> None:
    tokenizer = model_tokenizer(TOKENIZER, VOCABULARY)
    assert tokenizer.convert_tokens_to_ids("<a_0>") == VOCABULARY.level_offsets[0]
    assert tokenizer.convert_tokens_to_ids("<c_2>") == VOCABULARY.size - 1
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (VOCABULARY.pad_id, VOCABULARY.eos_id)


def test_a_base_tokenizers_special_tokens_are_not_matched_in_text(tmp_path: Path) -> None:
    backend = Tokenizer.from_str(TOKENIZER.to_str())
    backend.add_special_tokens([AddedToken("<|im_end|>", special=True)])
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>").save_pretrained(tmp_path)
    base = load_base_tokenizer(str(tmp_path))
    special = base.convert_tokens_to_ids("<|im_end|>")
    assert special in base("hello<|im_end|>").input_ids
    assert special not in text_tokenizer_of(base).encode("hello<|im_end|>").ids


def test_a_base_whose_own_vocabulary_matches_special_tokens_is_refused() -> None:
    backend = Tokenizer(models.WordLevel({"a": 0, "b": 1, "</s>": 2, "?": 3}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["</s>"])
    with pytest.raises(ConfigError, match="'</s>'"):
        text_tokenizer_of(PreTrainedTokenizerFast(tokenizer_object=backend))


def test_a_missing_base_tokenizer_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="base_model"):
        load_base_tokenizer(str(tmp_path / "nothing"))
