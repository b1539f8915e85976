"""The micro-batching front of an engine: single users' requests in, batches of similar length decoded together.

LEADRE §3.4, §4.4.1. A batch is what waits at the moment the engine is free: nobody waits for company, as a lingering
timer only adds latency. Every batch holds the request that waits longest, so a request that arrives behind k others
starts after at most k further batches, whatever arrives later: later requests ride along, they never go ahead.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from threading import Condition, Thread, current_thread
from types import TracebackType

from leadre.decoding.engine import Engine, Score
from leadre.domain.retrieval import Beam
from leadre.errors import InvalidInput, Unavailable
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie.live_mask import LiveMask


class MicroBatcher:
    """Runs an engine on a thread of its own; any thread may ask. It is an engine itself.

    A request is decoded by the engine it was submitted to: `over` gives a batcher over another revision of the index on
    the same thread and the same waiting line, and a batch never mixes two, so a filter of one revision cannot meet the
    other. What waits for the old revision is answered from it.

    Args:
        engine: decodes the batches, one at a time.
        beam_width: ads a request, in `submit`.
        tokens_per_batch: a batch, padded to its longest prompt, has at most this many tokens, a beam counted as four
            (as `BeamSearchEngine.tokens_per_pass`); what bounds a batch's time, and so everybody's waiting. A single
            request may be dearer.
        padding: a batch's share of padding is at most this.
        waiting: requests that may wait; more are refused.

    Raises:
        InvalidInput: a bound that cannot be kept.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        beam_width: int,
        tokens_per_batch: int = 8192,
        padding: float = 0.25,
        waiting: int = 1024,
    ) -> None:
        for name, value in (("beam_width", beam_width), ("tokens_per_batch", tokens_per_batch), ("waiting", waiting)):
            if value < 1:
                raise InvalidInput(f"{value}; it must be at least 1", column=name)
        if not 0 <= padding < 1:
            raise InvalidInput(f"{padding}; it is a share from 0 to below 1", column="padding")
        self._engine, self._beam_width = engine, beam_width
        self._line = _Line(tokens_per_batch=tokens_per_batch, padding=padding, longest=waiting)

    @property
    def index_version(self) -> str:
        """The index whose S-IDs the engine generates."""
        return self._engine.index_version

    @property
    def score(self) -> Score:
        """What its log-probabilities are normalised over."""
        return self._engine.score

    def over(self, index: AdIndex) -> MicroBatcher:
        """Return a batcher over another revision of the index, with this one's thread and waiting line.

        Closing either closes both.

        Raises:
            ReleaseMismatch: `index` is another version.
        """
        other = copy.copy(self)
        other._engine = self._engine.over(index)
        return other

    def submit(self, prompt: Sequence[int], *, mask: LiveMask | None = None) -> Future[list[Beam]]:
        """Hand in one user's prompt.

        Args:
            prompt: token ids; not to be changed until it is answered.
            mask: the ads that may be generated; None for all.

        Returns:
            What `Engine.generate` answers to this prompt alone, up to rounding, or the error it raises. It may be
            cancelled while it waits. Callbacks run on the engine's thread: they are short and wait for nothing.

        Raises:
            Unavailable: too many requests wait, or the batcher is closed.
        """
        return self._line.join([(prompt, mask)], engine=self._engine, beam_width=self._beam_width)[0]

    def submit_together(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        beam_width: int,
        filters: Sequence[LiveMask | None] | None = None,
    ) -> list[Future[list[Beam]]]:
        """Hand in the prompts of one request: all wait, or none. See `submit` and `Engine.generate`.

        Raises:
            InvalidInput: filters that are not one a prompt.
            Unavailable: too many requests wait, or the batcher is closed.
        """
        masks = filters if filters is not None else [None] * len(prompts)
        if len(masks) != len(prompts):
            raise InvalidInput(
                f"{len(masks)} filters for {len(prompts)} prompts; give one a prompt or none", column="filters"
            )
        requests = list(zip(prompts, masks, strict=True))
        return self._line.join(requests, engine=self._engine, beam_width=beam_width)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        beam_width: int,
        filters: Sequence[LiveMask | None] | None = None,
    ) -> list[list[Beam]]:
        """Wait for the best ads of each prompt, decoded beside other threads' requests. See `Engine.generate`.

        Raises:
            InvalidInput: a request outside the contract; `row` is counted within the request's own batch.
            Unavailable: too many requests wait (then none of these does), or the batcher is closed meanwhile.
            Exception: what else the engine raises; the first prompt's that it raises for.
        """
        futures = self.submit_together(prompts, beam_width=beam_width, filters=filters)
        try:
            return [future.result() for future in futures]
        except CancelledError:
            raise Unavailable("the batcher was closed while the request waited; ask another one") from None
        finally:
            for future in futures:  # where one failed, nobody reads the others
                future.cancel()

    @property
    def load(self) -> tuple[int, int]:
        """Prompts that wait, and prompts in the batch that runs."""
        return self._line.load

    def close(self) -> None:
        """Finish the batch that runs, cancel what waits, refuse what comes. Closing twice is closing once."""
        self._line.close()

    def __enter__(self) -> MicroBatcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """One prompt that waits for an engine."""

    prompt: Sequence[int]
    tokens: int
    mask: LiveMask | None
    engine: Engine
    beam_width: int
    answer: Future[list[Beam]] = field(default_factory=Future)


class _Line:
    """The requests that wait, oldest first, and the thread that serves them."""

    def __init__(self, *, tokens_per_batch: int, padding: float, longest: int) -> None:
        self._tokens_per_batch, self._padding, self._longest = tokens_per_batch, padding, longest
        self._waiting: deque[_Request] = deque()
        self._running = 0
        self._closed = False
        self._changed = Condition()
        self._thread = Thread(target=self._serve, name="leadre-decoding", daemon=True)
        self._thread.start()

    @property
    def load(self) -> tuple[int, int]:
        with self._changed:
            return len(self._waiting), self._running

    def join(
        self, requests: Sequence[tuple[Sequence[int], LiveMask | None]], *, engine: Engine, beam_width: int
    ) -> list[Future[list[Beam]]]:
        """Let all requests wait, or none."""
        joining = [
            _Request(prompt=prompt, tokens=len(prompt), mask=mask, engine=engine, beam_width=beam_width)
            for prompt, mask in requests
        ]
        with self._changed:
            if self._closed:
                raise Unavailable("the batcher is closed; make another one")
            if len(self._waiting) + len(joining) > self._longest:
                raise Unavailable(
                    f"{len(self._waiting)} requests wait for the engine and {len(joining)} more would be over the "
                    f"{self._longest} that may; ask again later, or add workers"
                )
            self._waiting += joining
            self._changed.notify()
        return [request.answer for request in joining]

    def close(self) -> None:
        with self._changed:
            self._closed = True
            waiting, self._waiting = self._waiting, deque()
            self._changed.notify()
        for request in waiting:
            if request.answer.cancel():
                request.answer.set_running_or_notify_cancel()  # wakes `concurrent.futures.wait`
        if current_thread() is not self._thread:  # a callback of a request may close
            self._thread.join()

    def _serve(self) -> None:
        while self._serve_one():
            pass

    def _serve_one(self) -> bool:
        """Wait for requests and decode a batch. Returns False when closed; keeps no request meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return False
            batch = self._take()
            self._running = len(batch)
        answers = _decode(batch) if batch else []
        with self._changed:
            self._running = 0  # before anybody is told: who has the answer finds nothing running
        for request, answer in zip(batch, answers, strict=True):
            if isinstance(answer, BaseException):
                request.answer.set_exception(answer)
            else:
                request.answer.set_result(answer)
        return True

    def _take(self) -> list[_Request]:
        """Take the oldest request and, in order of arrival, those that go with it; none if all were cancelled."""
        batch: list[_Request] = []
        left: deque[_Request] = deque()
        longest = tokens = 0
        for request in self._waiting:
            longer, more = max(longest, request.tokens), tokens + request.tokens
            if batch and not self._go_together(batch, request, longest=longer, tokens=more):
                left.append(request)
            elif request.answer.set_running_or_notify_cancel():
                batch.append(request)
                longest, tokens = longer, more
        self._waiting = left
        return batch

    def _go_together(self, batch: Sequence[_Request], request: _Request, *, longest: int, tokens: int) -> bool:
        """Whether a request may join a batch, which then has `tokens` tokens in prompts of up to `longest`."""
        first, count = batch[0], len(batch) + 1
        return (
            request.engine is first.engine
            and request.beam_width == first.beam_width
            and count * max(longest, 4 * request.beam_width) <= self._tokens_per_batch
            and count * longest - tokens <= self._padding * count * longest
        )


def _decode(batch: Sequence[_Request]) -> list[list[Beam] | BaseException]:
    """Return a batch's answers; when the engine raises, each request is asked alone, so that only the culprit fails."""
    first = batch[0]
    try:
        answers = first.engine.generate(
            [request.prompt for request in batch],
            beam_width=first.beam_width,
            filters=[request.mask for request in batch],
        )
        if len(answers) != len(batch):
            raise RuntimeError(f"the engine gave {len(answers)} answers to {len(batch)} prompts")
    except BaseException as error:  # noqa: BLE001 - whatever it is, somebody waits for it
        if len(batch) == 1:
            return [error]
    else:
        return [*answers]
    return [answer for request in batch for answer in _decode([request])]
