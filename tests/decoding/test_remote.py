"""The remote engine: the bits of the engine in process, and every refusal as the error that a worker knows."""

from __future__ import annotations

import dataclasses
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from leadre.decoding.batcher import MicroBatcher
from leadre.decoding.load import engine_of
from leadre.decoding.remote import Full, Instance, RemoteEngine
from leadre.decoding.sent_masks import KeptMasks
from leadre.decoding.stub import StubEngine
from leadre.domain.retrieval import Beam
from leadre.errors import BrokenModel, InvalidInput, ReleaseMismatch, Unavailable
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask
from leadre.prompts.vocabulary import Vocabulary
from tests.decoding.remote_server import Shelf, running

MakeIndex = Callable[..., AdIndex]
HANG_S = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Shelf, str]]:
    shelf = Shelf()
    with running(shelf) as url:
        yield shelf, url


@pytest.fixture
def shelf(server: tuple[Shelf, str]) -> Iterator[Shelf]:
    yield server[0]
    server[0].close()
    server[0].asked.clear()


@pytest.fixture
def url(server: tuple[Shelf, str]) -> str:
    return server[1]


def client(url: str, index: AdIndex, *, release: str = "r", prompts_per_request: int = 32) -> RemoteEngine:
    return RemoteEngine(
        Instance(url=url, timeout_s=HANG_S).ask,
        index=index,
        release=release,
        vocabulary_size=45,
        score="raw",
        prompts_per_request=prompts_per_request,
    )


class Held(StubEngine):
    """A stub that waits for the gate, or raises what it is given."""

    def __init__(self, index: AdIndex, *, error: Exception | None = None) -> None:
        super().__init__(index, vocabulary_size=45)
        self.gate, self.entered, self.error = threading.Event(), threading.Event(), error

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        beam_width: int,
        filters: Sequence[LiveMask | None] | None = None,
    ) -> list[list[Beam]]:
        if self.error is not None:
            raise self.error
        self.entered.set()
        assert self.gate.wait(HANG_S)
        return super().generate(prompts, beam_width=beam_width, filters=filters)


@pytest.mark.parametrize("kind", ["hf", "shared_prefix", "device"])
def test_a_models_scores_arrive_with_the_bits_they_have_in_process(
    kind: str,
    shelf: Shelf,
    url: str,
    make_index: MakeIndex,
    make_model: Callable[..., PreTrainedModel],
    make_prompts: Callable[..., list[list[int]]],
    vocabulary: Vocabulary,
) -> None:
    index, prompts = make_index(90), make_prompts(8)
    masks = [LiveMask.of(np.random.default_rng(row).random(90) < 0.6) if row % 3 else None for row in range(8)]
    engine = engine_of(make_model(seed=2), index=index, vocabulary=vocabulary, score="level", kind=kind)  # type: ignore[arg-type]
    with MicroBatcher(engine, beam_width=1) as batcher:
        expected = batcher.generate(prompts, beam_width=6, filters=masks)
    shelf.put("r", engine, index)

    found = client(url, index).generate(prompts, beam_width=6, filters=masks)

    assert found == expected  # floats compare by value: -0.0 aside, these are the same bits


def test_a_larger_batch_goes_out_in_parts_and_comes_back_in_order(
    shelf: Shelf, url: str, make_index: MakeIndex, make_prompts: Callable[..., list[list[int]]]
) -> None:
    index, prompts = make_index(), make_prompts(23)
    stub = StubEngine(index, vocabulary_size=45)
    shelf.put("r", stub, index)

    found = client(url, index, prompts_per_request=5).generate(prompts, beam_width=4)

    assert found == stub.generate(prompts, beam_width=4)
    assert sorted(len(asked.lengths) // 4 for asked in shelf.asked) == [3, 5, 5, 5, 5]


def test_users_whom_no_ad_tells_apart_send_their_filter_once_and_then_its_name(
    shelf: Shelf, url: str, make_index: MakeIndex
) -> None:
    index = make_index()
    shelf.put("r", StubEngine(index, vocabulary_size=45), index)
    mask, engine = LiveMask.of(np.arange(60) % 2 == 0), client(url, index)

    for _ in range(2):
        engine.generate([[1], [2], [3]], beam_width=2, filters=[mask, None, mask])

    assert [len(asked.masks) for asked in shelf.asked] == [1, 1]
    assert shelf.asked[0].masks[0].packed
    assert not shelf.asked[1].masks[0].packed


def test_an_instance_that_was_restarted_is_sent_the_filters_again(make_index: MakeIndex) -> None:
    index, mask = make_index(), LiveMask.of(np.arange(60) % 2 == 0)
    stub = StubEngine(index, vocabulary_size=45)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    engine, expected = client(f"http://127.0.0.1:{port}", index), stub.generate([[1]], beam_width=3, filters=[mask])
    for _ in range(2):
        shelf = Shelf()
        shelf.put("r", stub, index)
        with running(shelf, port=port):
            assert engine.generate([[1]], beam_width=3, filters=[mask]) == expected
        shelf.close()


def test_an_instance_without_memory_for_filters_is_an_error_and_no_loop(make_index: MakeIndex) -> None:
    index, shelf = make_index(6000, counts=(20, 20, 20, 4)), Shelf()
    masks = [LiveMask.of(np.random.default_rng(row).random(6000) < 0.5) for row in range(3)]
    stub = StubEngine(index, vocabulary_size=99)
    shelf.put("r", stub, index)
    with running(shelf, masks=KeptMasks(most_bytes=1)) as url:
        engine = RemoteEngine(Instance(url=url).ask, index=index, release="r", vocabulary_size=99, score="raw")
        for filters in (masks, masks[::-1], masks):
            assert engine.generate([[1]] * 3, beam_width=2, filters=filters) == stub.generate(
                [[1]] * 3, beam_width=2, filters=filters
            )
    shelf.close()


@pytest.mark.parametrize(
    "other", [{"version": "other"}, {"revision": 1}], ids=["another index version", "another revision"]
)
def test_an_instance_with_another_index_refuses(
    other: dict[str, object], shelf: Shelf, url: str, make_index: MakeIndex
) -> None:
    index = make_index()
    shelf.put("r", StubEngine(index, vocabulary_size=45), index)
    with pytest.raises(ReleaseMismatch, match="is not served here"):
        client(url, dataclasses.replace(index, **other)).generate([[1]], beam_width=2)  # type: ignore[arg-type]


def test_an_instance_with_another_release_refuses(shelf: Shelf, url: str, make_index: MakeIndex) -> None:
    index = make_index()
    shelf.put("r", StubEngine(index, vocabulary_size=45), index)
    with pytest.raises(ReleaseMismatch, match="r2 over tiny"):
        client(url, index, release="r2").generate([[1]], beam_width=2)


def test_a_full_line_is_an_error_that_says_so(shelf: Shelf, url: str, make_index: MakeIndex) -> None:
    index = make_index()
    held = Held(index)
    batcher = shelf.put("r", held, index, waiting=2)
    first = batcher.submit([1])
    assert held.entered.wait(HANG_S)
    with pytest.raises(Full, match="0 requests wait for the engine and 3 more"):
        client(url, index).generate([[1], [2], [3]], beam_width=2)
    held.gate.set()
    first.result(HANG_S)


def test_a_line_that_is_closed_under_a_request_says_that_it_may_ask_again(
    shelf: Shelf, url: str, make_index: MakeIndex
) -> None:
    index = make_index()
    held = Held(index)
    batcher = shelf.put("r", held, index)
    batcher.submit([1])
    assert held.entered.wait(HANG_S)
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            client(url, index).generate([[2]], beam_width=2)
        except Unavailable as error:
            errors.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    while batcher.load[0] < 1:
        asking.join(0.005)
    closing = threading.Thread(target=batcher.close)
    closing.start()
    asking.join(HANG_S)
    held.gate.set()
    closing.join(HANG_S)
    assert "ask again" in str(errors)


def test_who_gives_up_takes_its_prompts_out_of_the_line(shelf: Shelf, url: str, make_index: MakeIndex) -> None:
    index = make_index()
    held = Held(index)
    batcher = shelf.put("r", held, index)
    running_ = batcher.submit([1])
    assert held.entered.wait(HANG_S)
    hasty = RemoteEngine(
        Instance(url=url, timeout_s=0.3).ask, index=index, release="r", vocabulary_size=45, score="raw"
    )
    with pytest.raises(Unavailable, match="does not answer"):
        hasty.generate([[2], [3]], beam_width=2)
    held.gate.set()
    wait([running_], HANG_S)
    while any(batcher.load):  # what was cancelled leaves the line with the next batch
        wait([batcher.submit([4])], HANG_S)


@pytest.mark.parametrize("error", [BrokenModel("NaN"), torch.cuda.OutOfMemoryError("secret"), ValueError("secret")])
def test_a_failing_model_is_an_error_without_the_inputs_words(
    error: Exception, shelf: Shelf, url: str, make_index: MakeIndex
) -> None:
    index = make_index()
    shelf.put("r", Held(index, error=error), index)
    with pytest.raises(BrokenModel, match=f"{type(error).__name__}: (NaN|the instance's log)") as raised:
        client(url, index).generate([[1]], beam_width=2)
    assert "secret" not in str(raised.value)


def test_an_address_where_nothing_listens_is_unavailable(make_index: MakeIndex) -> None:
    with pytest.raises(Unavailable, match="NewConnectionError"):
        client("http://127.0.0.1:9", make_index()).generate([[1]], beam_width=2)


def test_a_server_that_is_no_engine_is_unavailable(make_index: MakeIndex) -> None:
    class Quiet(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
            pass

    with HTTPServer(("127.0.0.1", 0), Quiet) as other:
        answering = threading.Thread(target=other.handle_request)
        answering.start()
        with pytest.raises(Unavailable, match="answered 501: status 501 without a reason"):
            client(f"http://127.0.0.1:{other.server_port}", make_index()).generate([[1]], beam_width=2)
        answering.join(HANG_S)


def test_no_prompt_asks_nobody(make_index: MakeIndex) -> None:
    assert client("http://127.0.0.1:9", make_index()).generate([], beam_width=2) == []


def test_more_beams_than_none_are_asked_for(make_index: MakeIndex) -> None:
    with pytest.raises(InvalidInput, match="at least one beam"):
        client("http://127.0.0.1:9", make_index()).generate([[1]], beam_width=0)
