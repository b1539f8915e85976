"""The engine that stays on the device from the prompt to the ads: one transfer in, one out.

LEADRE §3.4, §4.4.2. On a GPU a pass is a CUDA graph, recorded the first time that its shape is asked for;
elsewhere the same code runs step by step. Its answers are those of leadre.decoding.exact.engine.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel

from leadre.decoding.device.forward import DevicePass, PassShape
from leadre.decoding.device.kernels import network_of
from leadre.decoding.device.trie import DeviceTrie, MaskStack
from leadre.decoding.engine import Score, beams_at, check_request, check_revision
from leadre.decoding.network.layers import longest_prompt
from leadre.decoding.scores import level_blocks
from leadre.domain.retrieval import Beam
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask
from leadre.prompts.vocabulary import Vocabulary

_PASSES = 16  # shapes whose graphs are kept; the one unused for longest goes
_TOKENS = 64  # prompts are padded to a multiple of this at least


class DeviceEngine:
    """Decodes on the model's device.

    Args:
        model: in evaluation mode; one that `leadre.decoding.network.layers.supports`.
        index: the ads.
        vocabulary: where the levels' tokens are.
        score: what log-probabilities are normalised over.
        users_per_pass: most prompts decoded together; as many filters have room on the device, 1.5 bits an ad each.
        tokens_per_pass: prompts are decoded together up to this many tokens, a beam counted as four.
        prefill_tokens: prompts are read in chunks of about this many tokens: a bound on memory.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        index: AdIndex,
        vocabulary: Vocabulary,
        score: Score,
        users_per_pass: int = 32,
        tokens_per_pass: int = 65_536,
        prefill_tokens: int = 16_384,
    ) -> None:
        self._model, self._index, self._vocabulary, self._score = model, index, vocabulary, score
        self._users_per_pass, self._tokens_per_pass = users_per_pass, tokens_per_pass
        self._prefill_tokens = prefill_tokens
        self._network, self._blocks = network_of(model), level_blocks(vocabulary)
        self._longest_prompt = longest_prompt(model, levels=len(self._blocks))
        device = self._network.device
        self._trie = DeviceTrie(index.trie, device=device)
        self._masks = MaskStack(index.trie.leaves, slots=users_per_pass, device=device)
        self._passes: OrderedDict[PassShape, DevicePass] = OrderedDict()
        self._pool: Any = None  # memory that the graphs share

    @property
    def index_version(self) -> str:
        """The index whose S-IDs this engine generates."""
        return self._index.version

    @property
    def score(self) -> Score:
        """What its log-probabilities are normalised over."""
        return self._score

    def over(self, index: AdIndex) -> DeviceEngine:
        """Return this engine over another revision of its index. See `leadre.decoding.engine.Engine.over`.

        Its graphs are recorded anew, as its shapes are asked for: a graph holds the addresses of the trie.

        Raises:
            ReleaseMismatch: `index` is another version.
        """
        check_revision(index, index_version=self.index_version)
        return DeviceEngine(
            self._model,
            index=index,
            vocabulary=self._vocabulary,
            score=self._score,
            users_per_pass=self._users_per_pass,
            tokens_per_pass=self._tokens_per_pass,
            prefill_tokens=self._prefill_tokens,
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
            BrokenModel: the model gives NaN.
        """
        masks = check_request(
            prompts,
            beam_width=beam_width,
            filters=filters,
            vocabulary_size=self._vocabulary.size,
            longest_prompt=self._longest_prompt,
            leaves=self._index.trie.leaves,
        )
        answer: list[list[Beam]] = [[] for _ in prompts]
        live = [
            request
            for request, mask in enumerate(masks)
            if self._index.trie.leaves and (mask is None or mask.live_leaves)
        ]
        for together in self._grouped({request: len(prompts[request]) for request in live}, beam_width=beam_width):
            shape = PassShape(
                users=min(_power_of_two(len(together)), self._users_per_pass),
                tokens=_padded(max(len(prompts[request]) for request in together)),
                beams=beam_width,
            )
            slots = self._masks.place([masks[request] for request in together])
            found = self._pass(shape).decode([prompts[request] for request in together], slots)
            for request, (leaves, scores) in zip(together, found, strict=True):
                answer[request] = beams_at(self._index, leaves, scores.tolist())
        return answer

    def _grouped(self, tokens: dict[int, int], *, beam_width: int) -> list[list[int]]:
        """Group requests of similar length, within the limits of a pass."""
        groups: list[list[int]] = []
        for request in sorted(tokens, key=lambda request: tokens[request]):
            cost = max(_padded(tokens[request]), 4 * beam_width)
            if (
                groups
                and len(groups[-1]) < self._users_per_pass
                and (len(groups[-1]) + 1) * cost <= self._tokens_per_pass
            ):
                groups[-1].append(request)
            else:
                groups.append([request])
        return groups

    def _pass(self, shape: PassShape) -> DevicePass:
        """Return the pass of a shape, recorded where that is possible."""
        if shape not in self._passes:
            made = DevicePass(
                self._network,
                blocks=self._blocks,
                score=self._score,
                trie=self._trie,
                masks=self._masks,
                shape=shape,
                prefill_tokens=self._prefill_tokens,
            )
            if self._network.device.type == "cuda":
                self._pool = made.capture(self._pool)
            self._passes[shape] = made
            if len(self._passes) > _PASSES:
                self._passes.popitem(last=False)
        self._passes.move_to_end(shape)
        return self._passes[shape]


def _power_of_two(users: int) -> int:
    return 1 << (users - 1).bit_length()


def _padded(tokens: int) -> int:
    """Round a prompt's tokens up: to a multiple of 64, of 128 beyond 512, of 256 beyond 1,024, and so on."""
    step = max(_TOKENS, (1 << (tokens - 1).bit_length()) // 8)
    return -(-tokens // step) * step
