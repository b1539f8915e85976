"""Tokenizers: one for text, without any special token, and Hugging Face's view of the whole vocabulary.

LEADRE §3.2, §4.2. Text of users and advertisers is untrusted: it is only ever encoded by a tokenizer that has no
special tokens, so no title can turn into an S-ID or an end of sequence; codes are spliced in by id.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import lru_cache

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from leadre.errors import ConfigError
from leadre.prompts.vocabulary import Vocabulary


def train_text_tokenizer(texts: Iterable[str], *, size: int) -> Tokenizer:
    """Train a byte-level BPE on the corpus.

    Every string can be encoded (256 bytes are in it) and decoded again. Merges may cross words: the fixed wording
    between two S-IDs of a sequence then costs one or two tokens instead of ten.

    Args:
        texts: segments as prompts hold them.
        size: of the vocabulary at most, 256 bytes included.
    """
    tokenizer = Tokenizer(models.BPE())
    # "<" stands alone, so that no title can teach the tokenizer a token that is spelled like one of ours.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("<", "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=64,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return tokenizer


def load_base_tokenizer(base_model: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a pretrained base.

    Raises:
        ConfigError: there is none, or it is not one of the `tokenizers` library.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(base_model, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 - somebody else's files may make it raise anything
        raise ConfigError(f"model.base_model={base_model!r} has no tokenizer that can be loaded: {error}") from None
    if not tokenizer.is_fast:
        raise ConfigError(f"model.base_model={base_model!r} has no tokenizer.json; export it with save_pretrained")
    return tokenizer


def text_tokenizer_of(base: PreTrainedTokenizerBase) -> Tokenizer:
    """Return the base's tokenizer without its special tokens: for untrusted text.

    Raises:
        ConfigError: special tokens are still matched inside text (they are in the vocabulary itself).
    """
    plain = json.loads(base.backend_tokenizer.to_str())
    specials = {token["content"]: token["id"] for token in plain["added_tokens"]}
    plain |= {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
    tokenizer = Tokenizer.from_str(json.dumps(plain))
    matched = [content for content, token in specials.items() if token in tokenizer.encode(f"a {content} b").ids]
    if matched:
        raise ConfigError(f"the base model's tokenizer matches {matched[0]!r} inside text; choose another base model")
    return tokenizer


def text_encoder(tokenizer: Tokenizer) -> Callable[[str], list[int]]:
    """Return the function from text to token ids. It remembers short strings, for most segments repeat."""

    @lru_cache(maxsize=65_536)
    def remembered(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False).ids)

    def encode(text: str) -> list[int]:
        if len(text) > 512:  # rare and large: not worth the memory
            ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
            return ids
        return list(remembered(text))

    return encode


def model_tokenizer(base: PreTrainedTokenizerBase | Tokenizer, vocabulary: Vocabulary) -> PreTrainedTokenizerBase:
    """Return Hugging Face's view of the whole vocabulary: for the trainer's padding and for other tools.

    It matches special tokens inside text, so it never reads untrusted text.

    Args:
        base: the base model's tokenizer, or our own text tokenizer.
        vocabulary: names and ids of the tokens that follow the text's.

    Raises:
        ConfigError: the base's ids have gaps, so that our tokens would land elsewhere.
    """
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=base) if isinstance(base, Tokenizer) else base
    names = vocabulary.tokens()
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    if tokenizer.convert_tokens_to_ids(names) != list(range(vocabulary.text_size, vocabulary.size)):
        raise ConfigError("the base model's token ids have gaps or clash with S-ID tokens; choose another base model")
    tokenizer.pad_token, tokenizer.eos_token = names[0], names[1]
    return tokenizer
