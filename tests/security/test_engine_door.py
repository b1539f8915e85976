"""An engine server behind keys answers workers that have one, and says to the others what they lack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leadre.decoding.remote import Instance, RemoteEngine
from leadre.decoding.stub import StubEngine
from leadre.errors import Unavailable
from leadre.indexing.ad_index import AdIndex
from leadre.serving.guard import Guarded
from leadre.serving.keys import Keys, new_key
from tests.decoding.remote_server import Shelf, running


def test_an_engine_server_asks_for_a_key(tmp_path: Path) -> None:
    index = AdIndex.assemble(
        version="v1",
        ad_ids=np.arange(6),
        codes=np.stack([np.arange(6) % 3, np.arange(6) // 3], axis=1).astype(np.int32),
        first_categories=[""] * 6,
        second_categories=[""] * 6,
        advertiser_ids=np.zeros(6, np.int64),
        embeddings=np.zeros((6, 2), np.float32),
        code_counts=(3, 2),
        quality={},
    )
    key, line = new_key("workers")
    (tmp_path / "keys.txt").write_text(line + "\n")
    shelf = Shelf()
    shelf.put("r", StubEngine(index, vocabulary_size=30), index)
    with running(shelf, behind=lambda app: Guarded(app, Keys(tmp_path / "keys.txt"))) as url:

        def ask(**more: str) -> int:
            instance = Instance(url=url, timeout_s=60, **more)
            engine = RemoteEngine(instance.ask, index=index, release="r", vocabulary_size=30, score="raw")
            return len(engine.generate([[1, 2]], beam_width=2)[0])

        assert ask(key=key) == 2
        for wrong in ({}, {"key": "another"}):
            with pytest.raises(Unavailable, match="401: a valid API key is needed"):
                ask(**wrong)
    shelf.close()
    assert key not in repr(Instance(url=url, key=key))
