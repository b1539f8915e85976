import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.domain.semantic_id import SemanticId, code_token
from leadre.errors import InvalidInput, InvalidSemanticId
from leadre.prompts.vocabulary import Vocabulary

vocabularies = st.builds(
    Vocabulary,
    text_size=st.integers(0, 200_000),
    code_counts=st.lists(st.integers(1, 300), min_size=1, max_size=6).map(tuple),
)


def test_the_layout_is_text_then_specials_then_levels():
    vocabulary = Vocabulary(text_size=100, code_counts=(4, 7, 2))
    assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.learnable_id) == (100, 101, 102)
    assert vocabulary.level_offsets == (103, 107, 114)
    assert vocabulary.size == 116
    assert vocabulary.sid_ids(SemanticId((3, 0, 1))) == [106, 107, 115]


@given(vocabularies)
def test_every_token_has_its_own_id_and_name(vocabulary):
    names = vocabulary.tokens()
    assert len(set(names)) == len(names) == vocabulary.size - vocabulary.text_size
    for level, count in enumerate(vocabulary.code_counts):
        for code in {0, count - 1}:
            token = vocabulary.level_offsets[level] + code
            assert (vocabulary.level_of(token), vocabulary.code_of(token)) == (level, code)
            assert names[token - vocabulary.text_size] == code_token(level, code)


@given(vocabularies)
def test_ids_outside_the_levels_are_no_codes(vocabulary):
    for token in (-1, 0, vocabulary.pad_id, vocabulary.eos_id, vocabulary.learnable_id, vocabulary.size):
        assert vocabulary.level_of(token) is None
        assert vocabulary.code_of(token) is None


@given(vocabularies)
def test_json_round_trip(vocabulary):
    assert Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json()))) == vocabulary


@pytest.mark.parametrize("codes", [(4, 0, 0), (0, 0), (0, 0, 0, 0), (0, 0, 2)])
def test_an_sid_of_another_shape_is_refused(codes):
    with pytest.raises(InvalidSemanticId, match="code"):
        Vocabulary(text_size=9, code_counts=(4, 7, 2)).sid_ids(SemanticId(codes))


@pytest.mark.parametrize("arguments", [{"text_size": -1, "code_counts": (2,)}, {"text_size": 5, "code_counts": (2, 0)}])
def test_an_impossible_vocabulary_is_refused(arguments):
    with pytest.raises(InvalidInput, match="at least one code"):
        Vocabulary(**arguments)
    with pytest.raises(InvalidInput, match="text_size"):
        Vocabulary.from_json({"code_counts": [1]})
