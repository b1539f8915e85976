"""The batcher: every request is answered once, as the engine alone would, and none is overtaken."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, wait
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadre.decoding.batcher import MicroBatcher
from leadre.decoding.engine import Engine
from leadre.decoding.stub import StubEngine
from leadre.domain.retrieval import Beam
from leadre.errors import InvalidInput, ReleaseMismatch, Unavailable
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask

POISON = 8
MakeIndex = Callable[..., AdIndex]
HANG_S = 30.0
"""After this a test fails instead of hanging; none waits for it."""


class GatedEngine(StubEngine):
    """A stub whose batches wait for the gate, and are noted; prompts with the poison token kill theirs."""

    def __init__(self, index: AdIndex) -> None:
        super().__init__(index, vocabulary_size=9)
        self.gate, self.entered = threading.Event(), threading.Event()
        self.batches: list[list[list[int]]] = []
        self.threads: set[int] = set()

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        beam_width: int,
        filters: Sequence[LiveMask | None] | None = None,
    ) -> list[list[Beam]]:
        self.batches.append([list(prompt) for prompt in prompts])
        self.threads.add(threading.get_ident())
        self.entered.set()
        assert self.gate.wait(HANG_S)
        if any(POISON in prompt for prompt in prompts):
            raise ZeroDivisionError("poison")
        return super().generate(prompts, beam_width=beam_width, filters=filters)

    def held(self, batcher: MicroBatcher) -> None:
        """Occupy the engine with a request of one token, so that what follows waits."""
        batcher.submit([0])
        assert self.entered.wait(HANG_S)


@pytest.fixture
def engine(make_index: MakeIndex) -> Iterator[GatedEngine]:
    made = GatedEngine(make_index(40))
    yield made
    made.gate.set()


def alone(make_index: MakeIndex) -> Engine:
    return StubEngine(make_index(40), vocabulary_size=9)


arrivals = st.lists(
    st.tuples(
        st.lists(st.integers(0, POISON), min_size=0, max_size=12),  # empty prompts are refused by every engine
        st.sampled_from(["all", "some", "none", "foreign"]),
        st.integers(0, 3),  # the client that sends it
        st.booleans(),  # whether the client waits for the answer first
    ),
    max_size=24,
)


@settings(deadline=None, max_examples=60)
@given(arrivals=arrivals, tokens=st.sampled_from([1, 40, 200, 10_000]), padding=st.sampled_from([0.0, 0.3, 0.9]))
def test_every_request_is_answered_once_with_what_the_engine_gives_alone(
    make_index: MakeIndex, arrivals: list[tuple[list[int], str, int, bool]], tokens: int, padding: float
) -> None:
    engine, expected = GatedEngine(make_index(40)), alone(make_index)
    engine.gate.set()
    live = np.random.default_rng(1).random(40) < 0.3
    masks = {
        "all": None,
        "some": LiveMask.of(live),
        "none": LiveMask.of(live & False),
        "foreign": LiveMask.of(live[1:]),
    }
    futures: dict[int, Future[list[Beam]]] = {}
    answered: Counter[int] = Counter()

    with MicroBatcher(engine, beam_width=5, tokens_per_batch=tokens, padding=padding) as batcher:

        def client(name: int) -> None:
            for number, (prompt, mask, sender, waits) in enumerate(arrivals):
                if sender == name:
                    futures[number] = batcher.submit(prompt, mask=masks[mask])
                    futures[number].add_done_callback(lambda _, number=number: answered.update([number]))
                    if waits:
                        wait([futures[number]], HANG_S)

        clients = [threading.Thread(target=client, args=(name,)) for name in range(4)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join(HANG_S)
        wait(futures.values(), HANG_S)

    assert answered == Counter(range(len(arrivals)))
    for number, (prompt, mask, _, _) in enumerate(arrivals):
        done = futures[number]
        if POISON in prompt:
            assert isinstance(done.exception(), ZeroDivisionError)
        elif not prompt or mask == "foreign":
            assert isinstance(done.exception(), InvalidInput)
        else:
            assert done.result() == expected.generate([prompt], beam_width=5, filters=[masks[mask]])[0]
    assert len(engine.threads) <= 1
    for batch in engine.batches:
        lengths = [len(prompt) for prompt in batch]
        assert len(batch) == 1 or len(batch) * max(*lengths, 20) <= tokens
        assert len(batch) * max(lengths) - sum(lengths) <= padding * len(batch) * max(lengths)


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40),
    tokens=st.sampled_from([1, 100, 400]),
    padding=st.sampled_from([0.0, 0.25]),
)
def test_every_batch_starts_with_the_request_that_waits_longest(
    make_index: MakeIndex, lengths: list[int], tokens: int, padding: float
) -> None:
    engine = GatedEngine(make_index(40))
    with MicroBatcher(engine, beam_width=3, tokens_per_batch=tokens, padding=padding) as batcher:
        engine.held(batcher)
        futures = [batcher.submit([number % 8] * length) for number, length in enumerate(lengths)]
        engine.gate.set()
        wait(futures, HANG_S)

    left = [[number % 8] * length for number, length in enumerate(lengths)]
    for batch in engine.batches[1:]:
        assert batch[0] == left[0]
        for prompt in batch:
            left.remove(prompt)
    assert left == []


def test_what_waits_is_decoded_together_and_a_long_prompt_by_itself(engine: GatedEngine) -> None:
    with MicroBatcher(engine, beam_width=3) as batcher:
        engine.held(batcher)
        for prompt in ([1] * 30, [2] * 900, [3] * 28, [4] * 25):
            batcher.submit(prompt)
        engine.gate.set()
        batcher.generate([[5]], beam_width=3)

    assert [[len(prompt) for prompt in batch] for batch in engine.batches] == [[1], [30, 28, 25], [900], [1]]


def test_a_request_that_breaks_its_batch_fails_alone(engine: GatedEngine) -> None:
    with MicroBatcher(engine, beam_width=3) as batcher:
        engine.held(batcher)
        futures = [batcher.submit(prompt) for prompt in ([1, 2], [POISON, 1], [3, 4])]
        engine.gate.set()
        assert len(futures[0].result(HANG_S)) == len(futures[2].result(HANG_S)) == 3
        with pytest.raises(ZeroDivisionError):
            futures[1].result(HANG_S)

    assert [len(batch) for batch in engine.batches] == [1, 3, 1, 1, 1]


def test_a_full_line_refuses_with_the_numbers_and_takes_nothing(engine: GatedEngine) -> None:
    with MicroBatcher(engine, beam_width=3, waiting=2) as batcher:
        engine.held(batcher)
        first = batcher.submit([1])
        with pytest.raises(Unavailable, match="1 requests wait for the engine and 2 more would be over the 2"):
            batcher.generate([[2], [3]], beam_width=3)
        second = batcher.submit([4])
        with pytest.raises(Unavailable, match="2 requests wait"):
            batcher.submit([5])
        engine.gate.set()
        wait([first, second], HANG_S)

    assert sorted(map(tuple, chain.from_iterable(engine.batches))) == [(0,), (1,), (4,)]


def test_closing_finishes_what_runs_and_cancels_what_waits(engine: GatedEngine) -> None:
    batcher = MicroBatcher(engine, beam_width=3)
    running = batcher.submit([1])
    assert engine.entered.wait(HANG_S)
    waiting = batcher.submit([2])
    closing = threading.Thread(target=batcher.close)
    closing.start()
    assert wait([waiting], HANG_S).done == {waiting}
    engine.gate.set()
    closing.join(HANG_S)

    assert len(running.result(HANG_S)) == 3
    assert waiting.cancelled()
    assert engine.batches == [[[1]]]
    batcher.close()
    with pytest.raises(Unavailable, match="closed"):
        batcher.submit([3])


def test_who_waits_in_generate_is_told_that_the_batcher_was_closed(engine: GatedEngine) -> None:
    batcher = MicroBatcher(engine, beam_width=3)
    engine.held(batcher)
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            batcher.generate([[1], [2]], beam_width=3)
        except Unavailable as error:
            errors.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    while not batcher._line._waiting:
        asking.join(0.001)
    closing = threading.Thread(target=batcher.close)
    closing.start()
    asking.join(HANG_S)
    engine.gate.set()
    closing.join(HANG_S)

    assert "closed while the request waited" in str(errors)


def test_a_callback_may_submit_and_close(engine: GatedEngine) -> None:
    engine.gate.set()
    batcher = MicroBatcher(engine, beam_width=3)
    second: list[Future[list[Beam]]] = []
    closed = threading.Event()

    def ask_again(_: object) -> None:
        second.append(batcher.submit([2]))
        batcher.close()
        closed.set()

    batcher.submit([1]).add_done_callback(ask_again)
    assert closed.wait(HANG_S)

    assert second[0].cancelled()


def test_a_cancelled_request_is_not_decoded(engine: GatedEngine) -> None:
    with MicroBatcher(engine, beam_width=3) as batcher:
        engine.held(batcher)
        unwanted, wanted = batcher.submit([1]), batcher.submit([2])
        assert unwanted.cancel()
        engine.gate.set()
        wanted.result(HANG_S)
        with pytest.raises(CancelledError):
            unwanted.result(HANG_S)

    assert engine.batches == [[[0]], [[2]]]


def test_a_request_keeps_the_revision_it_was_submitted_under(make_index: MakeIndex, engine: GatedEngine) -> None:
    old_mask, grown = LiveMask.of(np.arange(40) % 2 == 0), make_index(50, seed=3)
    new_mask = LiveMask.of(np.arange(50) % 2 == 0)
    with MicroBatcher(engine, beam_width=3) as batcher:
        engine.held(batcher)
        before = batcher.submit([1], mask=old_mask)
        moved = batcher.over(grown)
        after = moved.submit([1], mask=new_mask)
        late = batcher.submit([2], mask=old_mask)
        engine.gate.set()
        found = [future.result(HANG_S) for future in (before, after, late)]

    expected = StubEngine(make_index(40), vocabulary_size=9)
    assert found[0] == expected.generate([[1]], beam_width=3, filters=[old_mask])[0]
    assert found[1] == expected.over(grown).generate([[1]], beam_width=3, filters=[new_mask])[0]
    assert found[2] == expected.generate([[2]], beam_width=3, filters=[old_mask])[0]
    assert engine.batches == [[[0]], [[1], [2]]]
    with pytest.raises(Unavailable):
        moved.submit([1])


def test_an_index_of_another_version_is_refused(make_index: MakeIndex, engine: GatedEngine) -> None:
    other = make_index(40)
    object.__setattr__(other, "version", "other")
    with MicroBatcher(engine, beam_width=3) as batcher, pytest.raises(ReleaseMismatch):
        batcher.over(other)


def test_beam_widths_do_not_mix_and_each_asker_gets_his_own(make_index: MakeIndex, engine: GatedEngine) -> None:
    with MicroBatcher(engine, beam_width=3) as batcher:
        engine.held(batcher)
        wide: list[list[Beam]] = []
        asking = threading.Thread(target=lambda: wide.extend(batcher.generate([[1], [2]], beam_width=7)))
        asking.start()
        while not batcher._line._waiting:
            asking.join(0.001)
        narrow = batcher.submit([1])
        engine.gate.set()
        asking.join(HANG_S)
        assert (len(narrow.result(HANG_S)), [len(beams) for beams in wide]) == (3, [7, 7])

    assert wide == StubEngine(make_index(40), vocabulary_size=9).generate([[1], [2]], beam_width=7)
    assert (batcher.index_version, batcher.score) == ("tiny", "raw")


@pytest.mark.parametrize(
    ("name", "value"), [("beam_width", 0), ("tokens_per_batch", 0), ("waiting", 0), ("padding", 1.0), ("padding", -0.1)]
)
def test_a_bound_that_cannot_be_kept_is_refused(engine: GatedEngine, name: str, value: float) -> None:
    with pytest.raises(InvalidInput, match=name):
        MicroBatcher(engine, **{"beam_width": 3, name: value})  # type: ignore[arg-type]


def test_the_batcher_loads_without_torch() -> None:
    program = "import sys; import leadre.decoding.batcher; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_who_has_the_answer_finds_nothing_running(engine: GatedEngine) -> None:
    found: list[tuple[int, int]] = []
    with MicroBatcher(engine, beam_width=3) as batcher:
        first = batcher.submit([1])
        assert engine.entered.wait(HANG_S)
        assert batcher.load == (0, 1)
        first.add_done_callback(lambda _: found.append(batcher.load))
        engine.gate.set()
        assert len(first.result(HANG_S)) == 3
    assert found == [(0, 0)]
