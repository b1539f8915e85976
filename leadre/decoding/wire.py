"""What goes over the wire between a proxy and an engine instance: token ids and filters out, S-IDs back, in msgpack.

LEADRE §4.4.2. Numbers travel as flat little-endian arrays, scores as float64: an answer has the engine's own bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from leadre.decoding.sent_masks import SentMask
from leadre.domain.retrieval import Beam
from leadre.domain.semantic_id import SemanticId
from leadre.errors import InvalidInput
from leadre.indexing.trie.live_mask import LiveMask

PATH = "/v1/generate"


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """A request: prompts of one release and one revision of its index.

    `lengths` (uint32) cuts `tokens` (int32) into prompts; `filters` (int32) is each prompt's place in `masks`, -1 for
    none.
    """

    release: str
    index_version: str
    revision: int
    ads: int
    beam_width: int
    lengths: bytes
    tokens: bytes
    masks: tuple[SentMask, ...]
    filters: bytes


class Answered(msgspec.Struct, frozen=True, array_like=True):
    """An answer: `counts` (uint32) beams a prompt; of all beams `codes` (int32, row by row), `ad_ids` (int64) and
    `scores` (float64).
    """

    counts: bytes
    codes: bytes
    ad_ids: bytes
    scores: bytes


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a request was not answered, in JSON. `unknown` are the filters, by digest, that have to be sent whole."""

    error: str
    row: int | None = None
    column: str | None = None
    unknown: tuple[str, ...] = ()


def pack_prompts(prompts: Sequence[Sequence[int]]) -> tuple[bytes, bytes]:
    """Return prompts as `Asked.lengths` and `Asked.tokens`."""
    lengths = np.fromiter(map(len, prompts), "<u4", len(prompts))
    tokens = np.concatenate([np.asarray(prompt, "<i4") for prompt in prompts]) if prompts else np.empty(0, "<i4")
    return lengths.tobytes(), tokens.tobytes()


def unpack_prompts(asked: Asked) -> list[list[int]]:
    """Return the prompts of a request.

    Raises:
        InvalidInput: lengths that do not add up to the tokens.
    """
    lengths, tokens = _array(asked.lengths, "<u4"), _array(asked.tokens, "<i4")
    if int(lengths.sum(dtype=np.int64)) != len(tokens):
        raise InvalidInput(f"prompts of {lengths.sum(dtype=np.int64)} tokens, {len(tokens)} came", column="prompts")
    ends = np.cumsum(lengths, dtype=np.int64).tolist()
    everything = tokens.tolist()
    return [everything[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def unpack_filters(asked: Asked, masks: Sequence[LiveMask]) -> list[LiveMask | None]:
    """Return each prompt's filter.

    Raises:
        InvalidInput: a place outside `masks`.
    """
    places = _array(asked.filters, "<i4")
    if len(places) and not (int(places.min()) >= -1 and int(places.max()) < len(masks)):
        raise InvalidInput(f"filters {places.min()} to {places.max()} of {len(masks)}", column="filters")
    return [None if place < 0 else masks[place] for place in places.tolist()]


def pack_beams(answers: Sequence[Sequence[Beam]]) -> Answered:
    """Return an engine's answer as it is sent."""
    beams = [beam for answer in answers for beam in answer]
    return Answered(
        counts=np.fromiter(map(len, answers), "<u4", len(answers)).tobytes(),
        codes=np.array([beam.sid.codes for beam in beams], "<i4").tobytes(),
        ad_ids=np.array([beam.ad_id for beam in beams], "<i8").tobytes(),
        scores=np.array([beam.log_probability for beam in beams], "<f8").tobytes(),
    )


def unpack_beams(answered: Answered) -> list[list[Beam]]:
    """Return an answer's beams, a list a prompt.

    Raises:
        InvalidInput: arrays that do not fit each other.
    """
    counts, scores = _array(answered.counts, "<u4"), _array(answered.scores, "<f8")
    ad_ids, codes = _array(answered.ad_ids, "<i8"), _array(answered.codes, "<i4")
    if not int(counts.sum()) == len(scores) == len(ad_ids) or (len(codes) % len(scores) if len(scores) else len(codes)):
        raise InvalidInput(f"{counts.sum()} beams with {len(scores)} scores and {len(ad_ids)} ads", source="answer")
    sids = codes.reshape(len(scores), -1).tolist() if len(scores) else []
    beams = iter(
        [
            Beam(sid=SemanticId(tuple(sid)), ad_id=ad_id, log_probability=score)
            for sid, ad_id, score in zip(sids, ad_ids.tolist(), scores.tolist(), strict=True)
        ]
    )
    return [[next(beams) for _ in range(count)] for count in counts.tolist()]


def _array(octets: bytes, kind: str) -> NDArray[Any]:
    try:
        return np.frombuffer(octets, kind)
    except ValueError:
        raise InvalidInput(f"{len(octets)} bytes are no array of {kind}", source="request") from None
