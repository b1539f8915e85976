"""What an engine server holds: it follows the release and its index, and loses no request on the way."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from pathlib import Path

import pytest

from leadre.artifacts import write_artifact
from leadre.decoding.stub import StubEngine
from leadre.decoding.wire import Asked
from leadre.domain.retrieval import Beam
from leadre.errors import ArtifactIncomplete, ConfigError, LeadreError, ReleaseMismatch, Unavailable
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask
from leadre.serving.engine_host import EngineHost, Wanted, named_release
from tests.decoding.remote_server import index_of, save

HANG_S = 60.0
MakeWorld = Callable[..., tuple[EngineHost, dict[str, Wanted]]]


class Held(StubEngine):
    """A stub whose batches wait for the gate."""

    gate = threading.Event()

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        beam_width: int,
        filters: Sequence[LiveMask | None] | None = None,
    ) -> list[list[Beam]]:
        assert self.gate.wait(HANG_S)
        return super().generate(prompts, beam_width=beam_width, filters=filters)


def asked(index: AdIndex, *, release: str) -> Asked:
    return Asked(release, index.version, index.revision, len(index), 3, b"", b"", (), b"")


@pytest.fixture
def world(tmp_path: Path) -> MakeWorld:
    """A host that wants what the dictionary says, over indexes in a folder."""

    def make(engine: type[StubEngine] = StubEngine) -> tuple[EngineHost, dict[str, Wanted]]:
        wanted = {"now": Wanted(release="one", folder=tmp_path / "one", index_version="v1")}

        def load(folder: Path, index: AdIndex) -> StubEngine:
            if folder.name == "broken":
                raise ArtifactIncomplete("the release is broken")
            return engine(index, vocabulary_size=30)

        return EngineHost(wanted=lambda: wanted["now"], indexes=tmp_path, load=load), wanted

    save(index_of(20), tmp_path / "v1")
    save(index_of(30, version="v2"), tmp_path / "v2")
    return make


def test_before_anything_is_loaded_nothing_is_served(world: MakeWorld) -> None:
    host, _ = world()
    with pytest.raises(Unavailable, match="being loaded"):
        host.state()
    with pytest.raises(Unavailable):
        host.batcher(asked(index_of(20), release="one"))


def test_it_serves_what_is_wanted_and_refuses_everything_else(
    world: MakeWorld,
) -> None:
    host, _ = world()
    assert host.look()
    assert not host.look()

    state = host.state()
    assert (state.release, state.index_version, state.revision, state.ads) == ("one", "v1", 0, 20)
    assert len(host.batcher(asked(index_of(20), release="one")).generate([[1]], beam_width=4)[0]) == 4
    assert host.batcher(asked(index_of(20), release="")) is host.batcher(asked(index_of(20), release="one"))
    for request, message in (
        (asked(index_of(20), release="two"), "release one is served here, the request is for two"),
        (asked(index_of(30, version="v2"), release="one"), "index v1 is served here, the request is for v2"),
        (asked(index_of(21, revision=1), release="one"), "0 of 20 ads is served here, the request is for 1 of 21"),
        (asked(index_of(21), release="one"), "the request is for 0 of 21"),
    ):
        with pytest.raises(ReleaseMismatch, match=message):
            host.batcher(request)
    host.close()


def test_a_promotion_takes_over_between_batches_and_what_waited_is_answered(world: MakeWorld, tmp_path: Path) -> None:
    Held.gate.clear()
    host, wanted = world(Held)
    host.look()
    waiting = host.batcher(asked(index_of(20), release="one")).submit_together([[1]] * 3, beam_width=2)
    wanted["now"] = Wanted(release="two", folder=tmp_path / "two", index_version="v2")
    looking = threading.Thread(target=host.look)
    looking.start()
    while host.state().release == "one":
        looking.join(0.005)
    new = host.batcher(asked(index_of(30, version="v2"), release="two")).submit_together([[2]], beam_width=2)
    Held.gate.set()
    looking.join(HANG_S)
    wait([*waiting, *new], HANG_S)

    assert [len(future.result(0)) for future in (*waiting, *new)] == [2, 2, 2, 2]
    with pytest.raises(ReleaseMismatch):
        host.batcher(asked(index_of(20), release="one"))
    host.close()


def test_a_new_revision_takes_the_model_along_and_the_one_before_stays(world: MakeWorld, tmp_path: Path) -> None:
    host, _ = world()
    host.look()
    for revision in (1, 2):
        save(index_of(20 + revision, revision=revision), tmp_path / "v1")
        assert host.look()

    for revision in (1, 2):
        index = index_of(20 + revision, revision=revision)
        found = host.batcher(asked(index, release="one")).generate([[1]], beam_width=50)
        assert len(found[0]) == 20 + revision
    with pytest.raises(ReleaseMismatch, match="1 of 21 ads and 2 of 22 ads"):
        host.batcher(asked(index_of(20), release="one"))
    assert host.state().revision == 2
    host.close()


def test_what_cannot_be_loaded_leaves_what_is_served(world: MakeWorld, tmp_path: Path) -> None:
    host, wanted = world()
    host.look()
    for bad in (
        Wanted(release="broken", folder=tmp_path / "broken", index_version="v1"),
        Wanted(release="two", folder=tmp_path / "two", index_version="absent"),
    ):
        wanted["now"] = bad
        with pytest.raises(LeadreError):
            host.look()
        assert host.state().release == "one"
    host.close()


def test_it_follows_by_itself_from_start_to_close(world: MakeWorld) -> None:
    host, _ = world()
    host.start()
    waited = threading.Event()
    for _ in range(6000):
        try:
            host.state()
        except Unavailable:
            waited.wait(0.01)
        else:
            break
    assert host.state().release == "one"
    host.close()
    with pytest.raises(Unavailable, match="closing"):
        host.state()


def test_a_named_release_is_found_in_its_folder_without_a_database(tmp_path: Path) -> None:
    write_artifact(tmp_path / "r7", kind="release", facts={"index_version": "v3"}, write=lambda _: None)
    wanted = named_release("r7", releases=tmp_path)()
    assert wanted == Wanted(release="r7", folder=tmp_path / "r7", index_version="v3")
    with pytest.raises(ConfigError, match="no release 'r77'; did you mean 'r7'"):
        named_release("r77", releases=tmp_path)()


def test_an_index_built_anew_under_its_old_name_is_no_revision_of_what_was(world: MakeWorld, tmp_path: Path) -> None:
    host, _ = world()
    host.look()
    save(dataclasses.replace(index_of(25), revision=0), tmp_path / "v1")
    assert host.look()
    with pytest.raises(ReleaseMismatch, match="0 of 21"):
        host.batcher(asked(index_of(21), release="one"))
    assert len(host.batcher(asked(index_of(25), release="one")).generate([[1]], beam_width=50)[0]) == 25
    host.close()
