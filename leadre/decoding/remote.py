"""The engine `remote`: another process decodes. Token ids go out over HTTP, the same beams come back, to the bit.

LEADRE §4.4.2: proxies render prompts and instances decode. An `Instance` is one `leadre serve engine`; which of several
is asked, leadre.retrieval.balancer decides. Release, index version and revision travel with each request, so that no
list is made by another model than its worker believes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import msgspec
import numpy as np
import urllib3

from leadre.decoding.engine import Score, check_request, check_revision
from leadre.decoding.sent_masks import SentMasks, digest_of
from leadre.decoding.wire import PATH, Answered, Asked, Problem, pack_prompts, unpack_beams
from leadre.domain.retrieval import Beam
from leadre.errors import BrokenModel, InvalidInput, ReleaseMismatch, Unavailable
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie.live_mask import LiveMask

CONNECT_S = 1.0
TOKENS_A_BEAM = 4
"""What a beam costs, in prompt tokens (as `MicroBatcher.tokens_per_batch` counts)."""
_DIGESTS_BYTES = 128 << 20
"""Bitmaps whose digests are remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of an instance; `asked` is without masks, which each instance is sent as it needs them.

    Args:
        asked: the request.
        masks: the filters that `asked.filters` points to, with their digests.
        work: what it costs, in tokens.
    """

    asked: Asked
    masks: tuple[tuple[bytes, LiveMask], ...] = ()
    work: int = 1


Ask = Callable[[Question], list[list[Beam]]]
"""Has a question answered, by `Instance.ask` or by one of many. Raises as `Instance.ask`."""


class Full(Unavailable):
    """An instance's line is full, or it has no release yet: another one may do."""


class RemoteEngine:
    """An engine elsewhere. It obeys the contract of `leadre.decoding.engine.Engine`.

    Args:
        ask: has a question answered.
        index: the ads; the instances have the same revision.
        release: the release that must answer; "" for any of the index.
        vocabulary_size: token ids are below it.
        score: what the release's log-probabilities are normalised over.
        prompts_per_request: more prompts than this go out as several requests at once, for several instances (ours).
    """

    def __init__(
        self,
        ask: Ask,
        *,
        index: AdIndex,
        release: str,
        vocabulary_size: int,
        score: Score,
        prompts_per_request: int = 32,
    ) -> None:
        self._ask, self._index, self._release = ask, index, release
        self._vocabulary_size, self._score, self._at_once = vocabulary_size, score, prompts_per_request
        self._digests: OrderedDict[int, tuple[LiveMask, bytes]] = OrderedDict()

    @property
    def index_version(self) -> str:
        """The index whose S-IDs the instances generate."""
        return self._index.version

    @property
    def score(self) -> Score:
        """What the log-probabilities are normalised over."""
        return self._score

    def over(self, index: AdIndex) -> RemoteEngine:
        """Return this engine over another revision of its index. See `leadre.decoding.engine.Engine.over`.

        Raises:
            ReleaseMismatch: `index` is another version.
        """
        check_revision(index, index_version=self.index_version)
        return RemoteEngine(
            self._ask,
            index=index,
            release=self._release,
            vocabulary_size=self._vocabulary_size,
            score=self._score,
            prompts_per_request=self._at_once,
        )

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        beam_width: int,
        filters: Sequence[LiveMask | None] | None = None,
    ) -> list[list[Beam]]:
        """Return the best ads of each prompt, best first. See `leadre.decoding.engine.Engine.generate`.

        Raises:
            InvalidInput: a request outside the contract.
            ReleaseMismatch: no instance has this release over this revision of its index.
            BrokenModel: the instance's engine failed.
            Unavailable: no instance answers in time.
        """
        masks = check_request(
            prompts,
            beam_width=beam_width,
            filters=filters,
            vocabulary_size=self._vocabulary_size,
            longest_prompt=None,  # the instance knows
            leaves=self._index.trie.leaves,
        )
        cuts = range(0, len(prompts), self._at_once)
        questions = [
            self._question(prompts[cut : cut + self._at_once], masks[cut : cut + self._at_once], beam_width=beam_width)
            for cut in cuts
        ]
        if len(questions) < 2:
            return [beams for question in questions for beams in self._ask(question)]
        with ThreadPoolExecutor(len(questions), thread_name_prefix="leadre-remote") as threads:
            return [beams for part in threads.map(self._ask, questions) for beams in part]

    def _question(
        self, prompts: Sequence[Sequence[int]], masks: Sequence[LiveMask | None], *, beam_width: int
    ) -> Question:
        different: dict[bytes, tuple[int, LiveMask]] = {}
        places = np.full(len(prompts), -1, "<i4")
        for row, mask in enumerate(masks):
            if mask is not None:
                places[row] = different.setdefault(self._digest(mask), (len(different), mask))[0]
        lengths, tokens = pack_prompts(prompts)
        asked = Asked(
            release=self._release,
            index_version=self._index.version,
            revision=self._index.revision,
            ads=len(self._index),
            beam_width=beam_width,
            lengths=lengths,
            tokens=tokens,
            masks=(),
            filters=places.tobytes(),
        )
        return Question(
            asked=asked,
            masks=tuple((digest, mask) for digest, (_, mask) in different.items()),
            work=sum(map(len, prompts)) + TOKENS_A_BEAM * beam_width * len(prompts),
        )

    def _digest(self, mask: LiveMask) -> bytes:
        """Return a filter's digest, computed once: an inventory gives users whom no ad tells apart the same object."""
        kept = self._digests.get(id(mask))
        if kept is None or kept[0] is not mask:
            kept = mask, digest_of(mask)
            self._digests[id(mask)] = kept
            while len(self._digests) > max(64, _DIGESTS_BYTES // mask.words.nbytes):
                self._digests.popitem(last=False)
        return kept[1]


@dataclass(slots=True, kw_only=True)
class Instance:
    """A client of one engine server. Thread-safe; connections are kept open.

    Args:
        url: `http://host:port`.
        timeout_s: an answer has to begin within this.
        connections: kept open at once.
        key: API key that the server asks for; empty for one that asks for none.
    """

    url: str
    timeout_s: float = 30.0
    connections: int = 16
    key: str = field(default="", repr=False)
    _pool: urllib3.HTTPConnectionPool = field(init=False, repr=False)
    _masks: SentMasks = field(init=False, repr=False, default_factory=SentMasks)

    def __post_init__(self) -> None:
        self._pool = urllib3.connection_from_url(
            self.url,
            maxsize=self.connections,
            retries=False,
            timeout=urllib3.Timeout(connect=min(CONNECT_S, self.timeout_s), read=self.timeout_s),
        )

    def ask(self, question: Question) -> list[list[Beam]]:
        """Have a question answered.

        Raises:
            InvalidInput: the request is outside the contract.
            ReleaseMismatch: the instance has another release, index version or revision.
            BrokenModel: its engine failed.
            Full: its line is full, or it has no release yet.
            Unavailable: it does not answer in time, or not as an engine server does.
        """
        for _ in range(3):
            sent = msgspec.structs.replace(question.asked, masks=self._masks.pack(question.masks))
            status, body = self._post(msgspec.msgpack.encode(sent))
            if status == 412:  # a new process, or it had to forget some: they are sent whole
                self._masks.forget()
                continue
            if status == 200:
                self._masks.arrived(question.masks)
                return self._beams(body, prompts=len(question.asked.lengths) // 4)
            raise self._error(status, body)
        raise Unavailable(f"engine {self.url} forgets filters as soon as it has them; give it more memory")

    def _post(self, body: bytes) -> tuple[int, bytes]:
        headers = {"content-type": "application/msgpack"}
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        try:
            try:
                response = self._pool.request("POST", PATH, body=body, headers=headers)
            except urllib3.exceptions.ProtocolError:  # the server may just have closed an idle connection
                response = self._pool.request("POST", PATH, body=body, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            raise Unavailable(f"engine {self.url} does not answer ({type(error).__name__}); is it running?") from error
        return response.status, response.data

    def _beams(self, body: bytes, *, prompts: int) -> list[list[Beam]]:
        try:
            beams = unpack_beams(msgspec.msgpack.decode(body, type=Answered))
        except (msgspec.MsgspecError, InvalidInput) as error:
            raise Unavailable(f"engine {self.url} gave no engine's answer: {error}") from None
        if len(beams) != prompts:
            raise Unavailable(f"engine {self.url} gave {len(beams)} answers to {prompts} prompts")
        return beams

    def _error(self, status: int, body: bytes) -> Exception:
        try:
            problem = msgspec.json.decode(body, type=Problem)
        except msgspec.MsgspecError:
            problem = Problem(error=f"status {status} without a reason")
        if status in (400, 413):
            return InvalidInput(problem.error, row=problem.row, column=problem.column)
        if status == 409:
            return ReleaseMismatch(f"engine {self.url}: {problem.error}")
        if status == 503:
            return Full(f"engine {self.url}: {problem.error}")
        if status == 500:
            return BrokenModel(f"engine {self.url}: {problem.error}")
        return Unavailable(f"engine {self.url} answered {status}: {problem.error}")
