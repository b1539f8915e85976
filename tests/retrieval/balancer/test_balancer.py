"""The balancer over real engine servers: who is asked, who is passed over, and what a failure costs whom."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from random import Random

import pytest
from redis import Redis

from leadre.decoding.remote import Question, RemoteEngine
from leadre.decoding.stub import StubEngine
from leadre.domain.retrieval import Beam
from leadre.errors import BrokenModel, InvalidInput, ReleaseMismatch, Unavailable
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask
from leadre.retrieval.balancer.addresses import Addresses
from leadre.retrieval.balancer.balancer import Balancer
from leadre.retrieval.balancer.shared import TAG, SharedCounters
from tests.decoding.remote_server import Shelf, index_of, running
from tests.retrieval.balancer.conftest import wipe

HANG_S = 60.0
INDEX = index_of(40)
NOWHERE = "http://127.0.0.1:9"


class Fleet:
    """Some engine servers, each with the release "r" unless emptied."""

    def __init__(self, shelves: Sequence[Shelf], urls: Sequence[str]) -> None:
        self.shelves, self.urls = shelves, list(urls)

    def asked(self) -> list[int]:
        return [len(shelf.asked) for shelf in self.shelves]


@pytest.fixture(scope="module")
def servers() -> Iterator[Fleet]:
    shelves = [Shelf() for _ in range(3)]
    with ExitStack() as stack:
        yield Fleet(shelves, [stack.enter_context(running(shelf)) for shelf in shelves])


@pytest.fixture
def fleet(servers: Fleet) -> Iterator[Fleet]:
    for shelf in servers.shelves:
        shelf.put("r", StubEngine(INDEX, vocabulary_size=30, longest_prompt=9), INDEX)
    yield servers
    for shelf in servers.shelves:
        shelf.close()
        shelf.asked.clear()


class Raising(StubEngine):
    """A model that fails on the token 29, or on everything."""

    def __init__(self, *, always: bool) -> None:
        super().__init__(INDEX, vocabulary_size=30)
        self._always = always

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        beam_width: int,
        filters: Sequence[LiveMask | None] | None = None,
    ) -> list[list[Beam]]:
        if self._always or any(29 in prompt for prompt in prompts):
            raise ZeroDivisionError
        return super().generate(prompts, beam_width=beam_width, filters=filters)


@contextmanager
def balanced(
    urls: Sequence[str], shared: SharedCounters, *, index: AdIndex = INDEX, timeout_s: float = HANG_S
) -> Iterator[RemoteEngine]:
    balancer = Balancer(Addresses(urls), shared, timeout_s=timeout_s, random=Random(1))
    yield RemoteEngine(balancer.ask, index=index, release="r", vocabulary_size=30, score="raw", prompts_per_request=1)
    balancer.close()


@pytest.fixture
def shared(redis: Redis) -> SharedCounters:
    return SharedCounters(redis)


def expected(prompts: list[list[int]]) -> list[list[Beam]]:
    return StubEngine(INDEX, vocabulary_size=30).generate(prompts, beam_width=3)


def test_requests_go_round_and_come_back_in_order(fleet: Fleet, shared: SharedCounters) -> None:
    prompts = [[number] for number in range(24)]
    with balanced(fleet.urls, shared) as engine:
        assert engine.generate(prompts, beam_width=3) == expected(prompts)

    assert sum(fleet.asked()) == 24
    assert min(fleet.asked()) > 0
    assert set(shared.work().values()) == {0}


def test_while_one_instance_is_busy_the_others_are_asked(fleet: Fleet, shared: SharedCounters) -> None:
    shared.acquire(fleet.urls[:1], work=1000)
    with balanced(fleet.urls, shared) as engine:
        for number in range(8):
            engine.generate([[number]], beam_width=3)

    assert fleet.asked()[0] == 0


def test_a_dead_instance_costs_no_answer_and_is_left_out_for_every_proxy(fleet: Fleet, shared: SharedCounters) -> None:
    urls = [NOWHERE, fleet.urls[0]]
    with balanced(urls, shared) as one, balanced(urls, shared) as other:
        for number in range(4):
            assert one.generate([[number]], beam_width=3) == expected([[number]])
            assert other.generate([[number]], beam_width=3) == expected([[number]])

    assert set(shared.work().values()) == {0}


def test_no_instance_that_answers_is_unavailable(shared: SharedCounters) -> None:
    with balanced([NOWHERE], shared) as engine, pytest.raises(Unavailable, match="none of 1 engine instances"):
        engine.generate([[1]], beam_width=3)
    assert set(shared.work().values()) == {0}


def test_an_instance_of_another_release_is_passed_over(fleet: Fleet, shared: SharedCounters) -> None:
    for shelf in fleet.shelves[:2]:
        shelf.close()
        shelf.put("another", StubEngine(INDEX, vocabulary_size=30), INDEX)
    with balanced(fleet.urls, shared) as engine:
        assert engine.generate([[5]], beam_width=3) == expected([[5]])


def test_a_release_that_no_instance_has_is_a_mismatch(fleet: Fleet, shared: SharedCounters) -> None:
    for shelf in fleet.shelves:
        shelf.close()
        shelf.put("another", StubEngine(INDEX, vocabulary_size=30), INDEX)
    with balanced(fleet.urls, shared, timeout_s=0.5) as engine, pytest.raises(ReleaseMismatch, match="so of all 3"):
        engine.generate([[5]], beam_width=3)


def test_a_request_waits_for_the_release_that_instances_are_about_to_have(fleet: Fleet, shared: SharedCounters) -> None:
    for shelf in fleet.shelves:
        shelf.close()
    found: list[list[Beam]] = []
    with balanced(fleet.urls, shared) as engine:
        asking = threading.Thread(target=lambda: found.extend(engine.generate([[5]], beam_width=3)))
        asking.start()
        while min(fleet.asked()) == 0:
            asking.join(0.005)
        fleet.shelves[1].put("r", StubEngine(INDEX, vocabulary_size=30), INDEX)
        asking.join(HANG_S)
    assert found == expected([[5]])
    assert set(shared.work().values()) == {0}


def test_a_request_outside_the_contract_ejects_nobody(fleet: Fleet, shared: SharedCounters) -> None:
    with balanced(fleet.urls, shared) as engine:
        with pytest.raises(InvalidInput, match="10 tokens, the model takes 9"):
            engine.generate([[1] * 10], beam_width=3)
        assert sum(fleet.asked()) == 1
        assert set(shared.work().values()) == {0}


def test_a_prompt_that_breaks_models_is_tried_twice_and_ejects_nobody(fleet: Fleet, shared: SharedCounters) -> None:
    for shelf in fleet.shelves:
        shelf.close()
        shelf.put("r", Raising(always=False), INDEX)
    with balanced(fleet.urls, shared) as engine:
        with pytest.raises(BrokenModel, match="ZeroDivisionError"):
            engine.generate([[29]], beam_width=3)
        assert sum(fleet.asked()) == 2
        with ThreadPoolExecutor(3) as callers:  # one after the other, all would go to the fastest
            for _ in range(100):
                if min(fleet.asked()) > 0:
                    break
                list(callers.map(lambda number: engine.generate([[number]], beam_width=3), range(6)))
    assert min(fleet.asked()) > 0


def test_a_broken_instance_is_left_out_once_another_one_answers(
    fleet: Fleet, shared: SharedCounters, redis: Redis
) -> None:
    fleet.shelves[0].close()
    fleet.shelves[0].put("r", Raising(always=True), INDEX)
    urls = fleet.urls[:2]
    with balanced(urls, shared) as engine:
        for number in range(6):
            assert engine.generate([[number]], beam_width=3) == expected([[number]])
        *_, failures, _ = redis.hget(f"{TAG}:instances", urls[0]).split()
        assert int(failures) >= 1


def test_the_only_instance_that_is_broken_says_so(fleet: Fleet, shared: SharedCounters) -> None:
    fleet.shelves[0].close()
    fleet.shelves[0].put("r", Raising(always=True), INDEX)
    with balanced(fleet.urls[:1], shared) as engine, pytest.raises(BrokenModel):
        engine.generate([[1]], beam_width=3)


def test_without_redis_a_proxy_goes_by_what_it_saw_last_and_by_itself(fleet: Fleet, redis: Redis) -> None:
    class Breakable(SharedCounters):
        away = False

        def acquire(self, *args: object, **kwargs: object) -> object:  # type: ignore[override]
            if self.away:
                raise Unavailable("away")
            return super().acquire(*args, **kwargs)  # type: ignore[arg-type]

    shared = Breakable(redis)
    shared.acquire(fleet.urls[:1], work=10_000)
    with balanced(fleet.urls[:2], shared) as engine:
        engine.generate([[1]], beam_width=3)
        shared.away = True
        for number in range(6):
            assert engine.generate([[number]], beam_width=3) == expected([[number]])
    assert fleet.asked() == [0, 7, 0]


def test_without_redis_from_the_start_requests_are_answered(fleet: Fleet) -> None:
    with balanced(fleet.urls, SharedCounters.connect("redis://127.0.0.1:9")) as engine:
        for number in range(4):
            assert engine.generate([[number]], beam_width=3) == expected([[number]])


def test_what_runs_longer_than_its_lease_stays_counted(fleet: Fleet, redis: Redis) -> None:
    class Waiting(StubEngine):
        gate, entered = threading.Event(), threading.Event()

        def generate(self, *args: object, **kwargs: object) -> list[list[Beam]]:
            self.entered.set()
            assert self.gate.wait(HANG_S)
            return super().generate(*args, **kwargs)  # type: ignore[arg-type]

    fleet.shelves[0].close()
    engine_there = Waiting(INDEX, vocabulary_size=30)
    fleet.shelves[0].put("r", engine_there, INDEX)
    shared = SharedCounters(redis, lease_ms=400)
    found: list[list[Beam]] = []
    with balanced(fleet.urls[:1], shared) as engine:
        asking = threading.Thread(target=lambda: found.extend(engine.generate([[1]], beam_width=3)))
        asking.start()
        assert engine_there.entered.wait(HANG_S)
        first = redis.zrange(f"{TAG}:leases", 0, -1, withscores=True)
        while redis.zrange(f"{TAG}:leases", 0, -1, withscores=True) == first:  # until it has been renewed
            asking.join(0.01)
        [(token, until)] = redis.zrange(f"{TAG}:leases", 0, -1, withscores=True)
        assert token == first[0][0]
        assert until > first[0][1]
        engine_there.gate.set()
        asking.join(HANG_S)

    assert found == expected([[1]])
    assert redis.zcard(f"{TAG}:leases") == 0


def test_a_wiped_redis_costs_nothing(fleet: Fleet, shared: SharedCounters, redis: Redis) -> None:
    with balanced(fleet.urls, shared) as engine:
        engine.generate([[1]], beam_width=3)
        wipe(redis)
        assert engine.generate([[2]], beam_width=3) == expected([[2]])


def test_an_instance_that_appears_is_asked_and_one_that_goes_is_not(fleet: Fleet, shared: SharedCounters) -> None:
    here = [fleet.urls[0]]
    balancer = Balancer(lambda: tuple(here), shared)

    def ask() -> None:
        RemoteEngine(balancer.ask, index=INDEX, release="r", vocabulary_size=30, score="raw").generate(
            [[1]], beam_width=3
        )

    ask()
    here[:] = [fleet.urls[1]]
    ask()
    balancer.close()
    assert fleet.asked() == [1, 1, 0]


def test_a_question_knows_what_it_costs() -> None:
    asked: list[Question] = []

    def note(question: Question) -> list[list[Beam]]:
        asked.append(question)
        return [[]] * 2

    RemoteEngine(note, index=INDEX, release="r", vocabulary_size=30, score="raw").generate(
        [[1, 2, 3], [4]], beam_width=5
    )
    assert [question.work for question in asked] == [4 + 2 * 5 * 4]
