"""Triton kernels of the device engine: the trie step, the beams' attention to their own codes, rows to FP8.

LEADRE §3.4, §4.4.2. What they compute is written out in torch: `score_children` in trie.py, `attend_suffix` in
kernels.py, `scaled_rows` in fp8.py, all beside this. tests/decoding/device/triton_cases.py holds them equal, in
Triton's interpreter on a CPU, compiled on a GPU.
"""

# Triton compiles the kernels' source and takes no type hints there.
# mypy: allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators, allow-untyped-defs
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from leadre.decoding.device.trie import LevelArrays, MaskStack
from leadre.decoding.engine import Score

_SIZE_BITS = tl.constexpr(31)  # leadre.indexing.trie.SIZE_BITS


def score_children(
    level: LevelArrays,
    logits: Tensor,
    *,
    beam_score: Tensor,
    node: Tensor,
    slot: Tensor,
    masks: MaskStack,
    score: Score,
) -> tuple[Tensor, Tensor]:
    """Score every code of every beam in one kernel. See `leadre.decoding.device.trie.score_children`."""
    beams, codes = logits.shape
    begin, end = level.positions(node)
    candidates = torch.empty(beams, codes, dtype=torch.float64, device=logits.device)
    children = torch.empty(beams, codes, dtype=torch.int64, device=logits.device)
    _score_children[(beams,)](
        logits.contiguous(),
        beam_score.contiguous(),
        begin.contiguous(),
        end.contiguous(),
        slot.contiguous(),
        level.packed,
        level.packed if level.starts is None else level.starts,
        masks.words,
        masks.ranks,
        candidates,
        children,
        codes,
        level.shift,
        level.mask,
        masks.words.shape[1],
        BLOCK=triton.next_power_of_2(codes),
        STARTS=level.starts is not None,
        SINGLE=level.single,
        LEVEL=score == "level",
        VALID=score == "valid",
    )
    return candidates, children


def attend_suffix(
    queries: Tensor, *, keys: Tensor, values: Tensor, ancestors: Tensor, prefix: tuple[Tensor, Tensor], scale: float
) -> Tensor:
    """Attend to own codes and merge, in one kernel. See `leadre.decoding.device.kernels.attend_suffix`."""
    beams, heads, width = queries.shape
    key_heads, (output, log_sum) = keys.shape[1], prefix
    group = heads // key_heads
    merged = torch.empty_like(queries, memory_format=torch.contiguous_format)
    _attend_suffix[(beams, key_heads)](
        queries.contiguous(),
        keys.contiguous(),
        values.contiguous(),
        ancestors.contiguous(),
        output,
        log_sum,
        merged,
        scale,
        beams // output.shape[0],
        *output.stride(),
        *log_sum.stride(),
        CODES=ancestors.shape[1],
        KEY_HEADS=key_heads,
        GROUP=group,
        WIDTH=width,
        GROUP_BLOCK=triton.next_power_of_2(group),
        WIDTH_BLOCK=triton.next_power_of_2(width),
    )
    return merged


def scaled_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return values as e4m3 with a scale a row, in one kernel. See `leadre.decoding.device.fp8.scaled_rows`."""
    values, (rows, width) = values.contiguous(), values.shape
    scaled = torch.empty(rows, width, dtype=torch.float8_e4m3fn, device=values.device)
    scale = torch.empty(rows, 1, dtype=torch.float32, device=values.device)
    _scaled_rows[(rows,)](values, scaled, scale, width, BLOCK=triton.next_power_of_2(width))
    return scaled, scale


@triton.jit
def _lower_bound(packed, shift, mask, low, high, wanted):
    """Find in each range of positions the first whose code is not below the wanted one."""
    while tl.max(high - low, axis=0) > 0:
        open_ = low < high
        middle = (low + high) >> 1
        code = (tl.load(packed + middle, mask=open_, other=0).to(tl.int64) >> shift) & mask
        right = open_ & (code < wanted)
        low = tl.where(right, middle + 1, low)
        high = tl.where(right, high, tl.where(open_, middle, high))
    return low


@triton.jit
def _live_before(words, ranks, leaf, here):
    """Count the live leaves before each leaf."""
    word = leaf >> 6
    bits = tl.load(words + word, mask=here, other=0) & ((tl.full(leaf.shape, 1, tl.int64) << (leaf & 63)) - 1)
    bits = bits - ((bits >> 1) & 0x5555555555555555)
    bits = (bits & 0x3333333333333333) + ((bits >> 2) & 0x3333333333333333)
    bits = (bits + (bits >> 4)) & 0x0F0F0F0F0F0F0F0F
    bits = bits + (bits >> 8)
    bits = bits + (bits >> 16)
    bits = (bits + (bits >> 32)) & 0x7F
    return bits + tl.load(ranks + word, mask=here, other=0).to(tl.int64)


@triton.jit(
    do_not_specialize=("shift", "mask", "words_a_mask")
)  # no load is wider for knowing them: one kernel a level
def _score_children(
    logits,
    beam_score,
    begin,
    end,
    slot,
    packed,
    starts,
    words,
    ranks,
    candidates,
    children,
    codes,
    shift,
    mask,
    words_a_mask,
    BLOCK: tl.constexpr,
    STARTS: tl.constexpr,
    SINGLE: tl.constexpr,
    LEVEL: tl.constexpr,
    VALID: tl.constexpr,
):
    """One program a beam: the children's ranges, their live counts, the softmax over the level, the beam's score."""
    beam = tl.program_id(0).to(tl.int64)
    code = tl.arange(0, BLOCK).to(tl.int64)
    inside = code < codes
    first, last = tl.load(begin + beam), tl.load(end + beam)
    ends = tl.where(inside, last, first)
    position = _lower_bound(packed, shift, mask, tl.zeros_like(code) + first, ends, code)
    here = inside & (position < last)
    found = (tl.load(packed + position, mask=here, other=0).to(tl.int64) >> shift) & mask
    here = here & (found == code)
    if SINGLE:
        following = position + 1
    else:
        above = tl.where(here, position, last)
        following = _lower_bound(packed, shift, mask, above, tl.zeros_like(code) + last, code + 1)
    if STARTS:
        low = tl.load(starts + position, mask=here, other=0).to(tl.int64)
        high = tl.load(starts + following, mask=here, other=0).to(tl.int64)
    else:
        low, high = position, following
    filter_ = tl.load(slot + beam)
    if filter_ >= 0:
        offset = filter_ * words_a_mask
        live = _live_before(words + offset, ranks + offset, high, here)
        here = here & (live > _live_before(words + offset, ranks + offset, low, here))
    row = beam * codes + code
    log_probability = tl.load(logits + row, mask=inside, other=-float("inf"))
    if LEVEL or VALID:
        if VALID:
            log_probability = tl.where(here, log_probability, -float("inf"))
        highest = tl.maximum(tl.max(log_probability, axis=0), -3.4e38)  # no live child: not -inf
        log_probability = log_probability - highest
        # the highest adds 1, so that only the sum of a beam without live children is less
        log_probability = log_probability - tl.log(tl.maximum(tl.sum(tl.exp(log_probability), axis=0), 1.0))
    total = tl.load(beam_score + beam) + log_probability.to(tl.float64)
    tl.store(candidates + row, tl.where(here, total, -float("inf")), mask=inside)
    tl.store(children + row, tl.where(here, (low << _SIZE_BITS) | (high - low), 0), mask=inside)


@triton.jit
def _attend_suffix(
    queries,
    keys,
    values,
    ancestors,
    prefix,
    prefix_log_sum,
    merged,
    scale,
    beams,
    prefix_user,
    prefix_head,
    prefix_row,
    prefix_column,
    log_sum_user,
    log_sum_head,
    log_sum_row,
    CODES: tl.constexpr,
    KEY_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    WIDTH: tl.constexpr,
    GROUP_BLOCK: tl.constexpr,
    WIDTH_BLOCK: tl.constexpr,
):
    """One program a beam and key head. The prompt is one more key: its score the log-sum-exp, its value the output."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    user, beam = row // beams, row % beams
    member, column = tl.arange(0, GROUP_BLOCK), tl.arange(0, WIDTH_BLOCK)
    in_width = column < WIDTH
    there = (member < GROUP)[:, None] & in_width[None, :]
    own = ((row * KEY_HEADS + head) * GROUP + member)[:, None] * WIDTH + column[None, :]
    query = tl.load(queries + own, mask=there, other=0.0).to(tl.float32)
    of_prefix = user * prefix_user + head * prefix_head + (beam * GROUP + member)[:, None] * prefix_row
    total = tl.load(prefix + of_prefix + column[None, :] * prefix_column, mask=there, other=0.0).to(tl.float32)
    of_log_sum = user * log_sum_user + head * log_sum_head + (beam * GROUP + member) * log_sum_row
    highest = tl.load(prefix_log_sum + of_log_sum, mask=member < GROUP, other=0.0).to(tl.float32)
    weight = tl.full((GROUP_BLOCK,), 1.0, tl.float32)
    for code in tl.static_range(CODES):
        source = (tl.load(ancestors + row * CODES + code) * KEY_HEADS + head) * WIDTH + column
        key = tl.load(keys + source, mask=in_width, other=0.0).to(tl.float32)
        value = tl.load(values + source, mask=in_width, other=0.0).to(tl.float32)
        score = tl.sum(query * key[None, :], axis=1) * scale
        higher = tl.maximum(highest, score)
        kept, added = tl.exp(highest - higher), tl.exp(score - higher)
        total = total * kept[:, None] + added[:, None] * value[None, :]
        weight, highest = weight * kept + added, higher
    tl.store(merged + own, (total / weight[:, None]).to(merged.dtype.element_ty), mask=there)


@triton.jit
def _scaled_rows(values, scaled, scale, width, BLOCK: tl.constexpr):
    """One program a row: its largest value becomes e4m3's, 448."""
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = column < width
    of_row = tl.load(values + row * width + column, mask=inside, other=0.0).to(tl.float32)
    factor = tl.maximum(tl.max(tl.abs(of_row), axis=0), 1e-12) / 448.0
    tl.store(scaled + row * width + column, (of_row / factor).to(tl.float8e4nv), mask=inside)
    tl.store(scale + row, factor)
