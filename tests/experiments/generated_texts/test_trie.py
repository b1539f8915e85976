import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.errors import InvalidInput
from leadre.experiments.generated_texts.trie import INSIDE, TextTrie

END = 9
texts_of_tokens = st.lists(
    st.lists(st.integers(0, 4), max_size=5).map(lambda text: (*text, END)), min_size=1, unique=True
)


@given(texts=texts_of_tokens)
def test_children_are_the_tokens_that_follow_a_prefix_in_some_text(texts: list[tuple[int, ...]]) -> None:
    trie = TextTrie(texts)
    frontier = {(): 0}
    reached = {}
    while frontier:
        nodes = np.array(list(frontier.values()), np.int64)
        found = trie.children(nodes)
        grown = {}
        for place, (prefix, node) in enumerate(frontier.items()):
            own = found.parent == place
            depth = len(prefix)
            expected = sorted({text[depth] for text in texts if text[:depth] == prefix and len(text) > depth})
            assert found.code[own].tolist() == expected
            for token, child in zip(found.code[own].tolist(), found.node[own].tolist(), strict=True):
                grown[*prefix, token] = child
            if trie.text_of[node] != INSIDE:
                reached[prefix] = int(trie.text_of[node])
        frontier = grown
    assert reached == {text: number for number, text in enumerate(texts)}
    assert (trie.texts, trie.longest) == (len(texts), max(map(len, texts)))


@pytest.mark.parametrize("texts", [[], [()], [(1, 2), (1, 2)], [(1, 2), (1, 2, 3)], [(1, 2, 3), (1,)]])
def test_texts_that_are_empty_repeated_or_begin_with_another_are_refused(texts: list[tuple[int, ...]]) -> None:
    with pytest.raises(InvalidInput):
        TextTrie(texts)
