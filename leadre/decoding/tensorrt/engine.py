"""An engine on TensorRT-LLM's LLM API (PyTorch backend): its kernels, our trie and our scores.

LEADRE §4.4.2. The model is a Hugging Face folder, as trained or quantised with ModelOpt
(`leadre.decoding.tensorrt.setup.quantise_command`). Beams, filters and scores are those of
`leadre.decoding.exact.search`; the processor beside this says how.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from leadre.decoding.engine import Score, beams_at, check_request, check_revision
from leadre.decoding.tensorrt.processor import SPREAD, TrieProcessor
from leadre.decoding.tensorrt.setup import (
    check_hardware,
    import_tensorrt_llm,
    llm_arguments,
    quantisation_of,
    sampling_arguments,
)
from leadre.domain.retrieval import Beam
from leadre.errors import ConfigError, InvalidInput
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask
from leadre.indexing.trie.torch_trie import TorchLiveMask, TorchTrie
from leadre.prompts.vocabulary import Vocabulary


class Llm(Protocol):
    """What this engine needs of `tensorrt_llm.LLM`."""

    def generate(self, inputs: Any, sampling_params: Any, *, use_tqdm: bool) -> Any:
        """Generate for each of the inputs."""
        ...


class TensorRtEngine:
    """Generates ads with TensorRT-LLM.

    Args:
        llm: made with `llm_arguments`, in this process.
        sampling_params: makes TensorRT-LLM's sampling parameters of `sampling_arguments`.
        index: the ads.
        vocabulary: the release's.
        score: what log-probabilities are normalised over.
        beam_width: what `llm` was made with.
        longest_prompt: what `llm` was made with.
        device: where the logits are.

    Raises:
        ConfigError: a vocabulary below three tokens a beam.
    """

    def __init__(
        self,
        llm: Llm,
        sampling_params: Callable[[dict[str, Any]], Any],
        *,
        index: AdIndex,
        vocabulary: Vocabulary,
        score: Score,
        beam_width: int,
        longest_prompt: int,
        device: str = "cuda",
    ) -> None:
        if vocabulary.size < SPREAD * beam_width:
            raise ConfigError(
                f"{beam_width} beams over a vocabulary of {vocabulary.size} tokens; at most {vocabulary.size // SPREAD}"
            )
        self._llm, self._sampling_params, self._index, self._vocabulary = llm, sampling_params, index, vocabulary
        self._score, self._beam_width, self._longest_prompt, self._device = score, beam_width, longest_prompt, device
        self._trie = TorchTrie(index.trie, device=device)

    @classmethod
    def load(
        cls,
        model_folder: Path,
        *,
        index: AdIndex,
        vocabulary: Vocabulary,
        score: Score,
        beam_width: int,
        users: int,
        longest_prompt: int,
    ) -> TensorRtEngine:
        """Check the machine and load a checkpoint; the arguments are those of `llm_arguments` and of the class.

        Raises:
            ArtifactIncomplete: no checkpoint there.
            ConfigError: TensorRT-LLM is missing, a stub, or of another version, or the machine cannot run this.
        """
        capability = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
        check_hardware(capability, quantisation=quantisation_of(model_folder))
        tensorrt_llm = import_tensorrt_llm()
        arguments = llm_arguments(
            model_folder,
            beam_width=beam_width,
            users=users,
            longest_prompt=longest_prompt,
            levels=vocabulary.levels,
        )
        cache = tensorrt_llm.llmapi.KvCacheConfig(**arguments.pop("kv_cache_config"))
        return cls(
            tensorrt_llm.LLM(**arguments, kv_cache_config=cache),
            lambda arguments: tensorrt_llm.SamplingParams(**arguments),
            index=index,
            vocabulary=vocabulary,
            score=score,
            beam_width=beam_width,
            longest_prompt=longest_prompt,
        )

    @property
    def index_version(self) -> str:
        """The index whose S-IDs this engine generates."""
        return self._index.version

    @property
    def score(self) -> Score:
        """What its log-probabilities are normalised over."""
        return self._score

    def over(self, index: AdIndex) -> TensorRtEngine:
        """Return this engine over another revision of its index. See `leadre.decoding.engine.Engine.over`.

        Raises:
            ReleaseMismatch: `index` is another version.
        """
        check_revision(index, index_version=self.index_version)
        return TensorRtEngine(
            self._llm,
            self._sampling_params,
            index=index,
            vocabulary=self._vocabulary,
            score=self._score,
            beam_width=self._beam_width,
            longest_prompt=self._longest_prompt,
            device=self._device,
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
            InvalidInput: a request outside the contract, or more beams than the engine was made for.
            BrokenModel: the model gives NaN.
            ConfigError: TensorRT-LLM behaved otherwise than checked; no answer is better than a wrong one.
        """
        masks = check_request(
            prompts,
            beam_width=beam_width,
            filters=filters,
            vocabulary_size=self._vocabulary.size,
            longest_prompt=self._longest_prompt,
            leaves=self._index.trie.leaves,
        )
        if beam_width > self._beam_width:
            raise InvalidInput(
                f"{beam_width}; this engine was made for at most {self._beam_width}", column="beam_width"
            )
        answer: list[list[Beam]] = [[] for _ in prompts]
        leaves = self._index.trie.leaves
        alive = [row for row, mask in enumerate(masks) if leaves and (mask is None or mask.live_leaves)]
        if not alive:
            return answer
        distinct = {id(mask): mask for mask in masks}
        on_device = {
            key: None if mask is None else TorchLiveMask(mask, device=self._device) for key, mask in distinct.items()
        }
        processors = [
            TrieProcessor(
                self._trie,
                live=on_device[id(masks[row])],
                vocabulary=self._vocabulary,
                score=self._score,
                beam_width=beam_width,
                width=self._beam_width,
                prompt_tokens=len(prompts[row]),
                device=self._device,
            )
            for row in alive
        ]
        outputs = self._llm.generate(
            [list(prompts[row]) for row in alive],
            [
                self._sampling_params(
                    sampling_arguments(beam_width=self._beam_width, vocabulary=self._vocabulary, processor=processor)
                )
                for processor in processors
            ],
            use_tqdm=False,
        )
        for row, processor, output in zip(alive, processors, outputs, strict=True):
            answer[row] = self._beams(processor, [list(beam.token_ids) for beam in output.outputs])
        return answer

    def _beams(self, processor: TrieProcessor, generated: Sequence[Sequence[int]]) -> list[Beam]:
        """Name the ads a processor chose, after comparing them with what TensorRT-LLM says it generated."""
        leaves, scores = processor.result()
        expected = (self._index.codes[leaves] + self._vocabulary.level_offsets).tolist()
        if generated[: len(leaves)] != expected:
            raise ConfigError(
                "TensorRT-LLM generated other S-IDs than were chosen for it; its beam search is not the one that this "
                "adapter was checked against"
            )
        return beams_at(self._index, np.array(leaves, np.int64), scores)
