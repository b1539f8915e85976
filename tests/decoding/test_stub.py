from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from leadre.decoding.stub import StubEngine
from leadre.indexing.ad_index import AdIndex


def test_prompts_and_seeds_rank_ads_differently_and_repeatably(make_index: Callable[..., AdIndex]) -> None:
    index = make_index(100)
    first, again, other = (StubEngine(index, vocabulary_size=9, seed=seed) for seed in (1, 1, 2))

    one, two = first.generate([[1, 2], [2, 1]], beam_width=10)

    assert one != two
    assert again.generate([[1, 2]], beam_width=10) == [one]
    assert other.generate([[1, 2]], beam_width=10) != [one]


def test_scores_are_the_same_in_every_process_and_release(make_index: Callable[..., AdIndex]) -> None:
    beams = StubEngine(make_index(100), vocabulary_size=9, seed=1).generate([[1, 2]], beam_width=3)[0]

    assert [beam.ad_id for beam in beams] == [1058, 1029, 1014]


def test_the_stub_loads_without_torch() -> None:
    program = "import sys; import leadre.decoding.stub; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
