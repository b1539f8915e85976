"""What was known when: the rule, and a random stream of everything that may happen, beside plain Python."""

from __future__ import annotations

import pytest

from leadre.store.records.database import connect
from tests.store.replay import Replay


@pytest.mark.parametrize("seed", range(2))  # 5,000 instants
def test_whatever_happens_the_rows_say_what_was_known_at_every_instant(database_url: str, seed: int) -> None:
    engine = connect(database_url)
    try:
        Replay(engine, seed=seed).run(instants=2500)
    finally:
        engine.dispose()
