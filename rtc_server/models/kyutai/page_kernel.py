"""Attention over pages as two Triton kernels: rows are read where they lie, each as far as it goes, without a copy.

Owns the kernels and their launch. Importing it imports triton, so only
:mod:`rtc_server.models.kyutai.page_attention` does, at the first use. Who sees what is decided as with torch's
attention (``_Transformer._begin`` in :mod:`rtc_server.models.kyutai.attention`), entry by entry.

One query for each row reads each key once and never again: nothing is gained by tensor cores or shared memory, and the
time is that of the memory. So each thread loads 16 bytes at a time, many programs share a multiprocessor, and within
a loop no thread waits for another: each of :data:`_LANES` lanes has a softmax of its own over the frames that it
meets (https://arxiv.org/abs/1805.02867), and they are put together at the end, as are the parts into which a row is
split (https://pytorch.org/blog/flash-decoding/).
"""

from __future__ import annotations

import math
from typing import Final

import torch
import triton
import triton.language as tl

_LANES: Final = 16
"""Frames that are in work at a time: with 128 numbers in a head and four warps, 51 to 64 registers a thread, by which 8
programs and more share a multiprocessor. With 32 lanes it is 80 to 128, and half as many."""
_WARPS: Final = 4
_NATIVE_FLOAT8: Final = (8, 9)
"""From this compute capability on, processors widen float8 themselves."""


@triton.jit  # type: ignore[untyped-decorator]
def _widened(stored, KIND: tl.constexpr):  # type: ignore[no-untyped-def]
    """float32 of numbers as they are stored."""
    if KIND == "float8":
        return stored.to(tl.float8e4nv, bitcast=True).to(tl.float32)
    elif KIND == "float8 by its bits":
        # e4m3 has the layout of float16 with one bit less of exponent, whose bias differs by 8, and no infinity.
        bits = stored.to(tl.int16)
        half = ((bits & 0x80) << 8) | ((bits & 0x7F) << 7)
        number = half.to(tl.float16, bitcast=True).to(tl.float32) * 256.0
        return tl.where((bits & 0x7F) == 0x7F, float("nan"), number)  # noqa: PLR2004
    else:
        return stored.to(tl.float32)


@triton.jit(do_not_specialize=["count"])  # type: ignore[untyped-decorator]
def read_parts(  # type: ignore[no-untyped-def]
    queries,
    cache,
    pages,
    since,
    last,
    least,
    mixtures,
    weights,
    count,
    scale,
    CAPACITY: tl.constexpr,
    PLACES: tl.constexpr,
    FRAMES: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    HEADS: tl.constexpr,
    REPEAT: tl.constexpr,
    STRIDE: tl.constexpr,
    LANES: tl.constexpr,
    SPLITS: tl.constexpr,
    KIND: tl.constexpr,
):
    """One part of one row, for one head: the mixture of values, the largest score, and the sum of the weights, which
    are relative to it. ``count``: pages of a head. ``scale``: of scores, as powers of two. ``STRIDE``: of a row of
    queries. Heads that share keys are neighbours in the grid: the second finds them in the cache of the device.
    """
    head = tl.program_id(0)
    part = tl.program_id(1)
    row = tl.program_id(2)
    now = tl.load(last + row).to(tl.int32)
    newest = now % CAPACITY
    filled = tl.minimum(now + 1, CAPACITY)
    aged = tl.load(least + row).to(tl.int32)
    begun = (tl.maximum(filled, aged) + FRAMES - 1) // FRAMES
    share = (begun + SPLITS - 1) // SPLITS  # of a short row some parts are empty, and end at once
    column = tl.arange(0, PADDED)
    inside = column < WIDTH
    query = tl.load(queries + row * STRIDE + head * WIDTH + column, mask=inside, other=0).to(tl.float32) * scale
    lane = tl.arange(0, LANES)
    highest = tl.full([LANES], float("-inf"), tl.float32)
    total = tl.full([LANES], 0.0, tl.float32)
    mixture = tl.full([LANES, PADDED], 0.0, tl.float32)
    kv_head = (head // REPEAT).to(tl.int64)
    values = (HEADS // REPEAT) * count.to(tl.int64) * (FRAMES * WIDTH)
    for place in range(part * share, tl.minimum((part + 1) * share, begun)):
        page = tl.load(pages + row * PLACES + place)
        first = tl.load(since + row * PLACES + place).to(tl.int32)
        here = cache + (kv_head * count + page) * (FRAMES * WIDTH)
        for begin in tl.static_range(0, FRAMES, LANES):
            entry = place * FRAMES + begin + lane
            # What lies behind the newest is of the round before.
            position = now - newest + entry - tl.where(entry > newest, CAPACITY, 0)
            seen = (entry < filled) & (position >= first)
            at = here + (begin + lane)[:, None] * WIDTH + column[None, :]
            # What is not seen is not even read, for it may be NaN: but by those who measure what reading it takes.
            wanted = (seen | (entry < aged))[:, None] & inside[None, :]
            stored_key = tl.load(at, mask=wanted, other=0)
            stored_value = tl.load(at + values, mask=wanted, other=0)
            score = tl.sum(_widened(stored_key, KIND) * query[None, :], 1)
            score = tl.where(seen, score, float("-inf"))
            higher = tl.maximum(highest, score)
            base = tl.where(higher == float("-inf"), 0.0, higher)
            fade = tl.exp2(highest - base)
            weight = tl.exp2(score - base)
            total = total * fade + weight
            mixture = mixture * fade[:, None] + _widened(stored_value, KIND) * weight[:, None]
            highest = higher
    most = tl.max(highest, 0)
    fade = tl.exp2(highest - tl.where(most == float("-inf"), 0.0, most))
    out = (row * HEADS + head) * SPLITS + part
    tl.store(weights + 2 * out, most)
    tl.store(weights + 2 * out + 1, tl.sum(total * fade, 0))
    tl.store(mixtures + out * WIDTH + column, tl.sum(mixture * fade[:, None], 0), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def join_parts(  # type: ignore[no-untyped-def]
    mixtures,
    weights,
    found,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    SPLITS: tl.constexpr,
    PARTS: tl.constexpr,
):
    """All parts of one head of one row: zeros where none of them has seen anything."""
    head = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, PADDED)
    inside = column < WIDTH
    part = tl.arange(0, PARTS)
    there = part < SPLITS
    at = head * SPLITS + part
    highest = tl.load(weights + 2 * at, mask=there, other=float("-inf"))
    total = tl.load(weights + 2 * at + 1, mask=there, other=0)
    most = tl.max(highest, 0)
    fade = tl.exp2(highest - tl.where(most == float("-inf"), 0.0, most))
    of_a_part = mixtures + at[:, None] * WIDTH + column[None, :]
    mixture = tl.load(of_a_part, mask=there[:, None] & inside[None, :], other=0)
    weight = tl.sum(total * fade, 0)
    mean = tl.sum(mixture * fade[:, None], 0) / tl.where(weight == 0, 1.0, weight)
    tl.store(found + head * WIDTH + column, mean.to(found.dtype.element_ty), mask=inside)


def kind_of(stored: torch.dtype, capability: tuple[int, int]) -> str:
    """How the kernel widens what is stored as such."""
    if stored is not torch.uint8:
        return "as it is"
    return "float8" if capability >= _NATIVE_FLOAT8 else "float8 by its bits"


def lanes(page_frames: int) -> int:
    return min(_LANES, page_frames)


def launch(
    queries: torch.Tensor,
    cache: torch.Tensor,
    pages: torch.Tensor,
    since: torch.Tensor,
    last: torch.Tensor,
    least: torch.Tensor,
    capacity: int,
    splits: int,
) -> torch.Tensor:
    """:func:`rtc_server.models.kyutai.page_attention.attend`, in so many parts."""
    rows, heads, width = queries.shape
    _, kv_heads, count, page_frames, _ = cache.shape
    padded = triton.next_power_of_2(width)
    mixtures = torch.empty((rows, heads, splits, width), dtype=torch.float32, device=queries.device)
    weights = torch.empty((rows, heads, splits, 2), dtype=torch.float32, device=queries.device)
    found = torch.empty((rows, heads, width), dtype=queries.dtype, device=queries.device)
    on_cuda = queries.device.type == "cuda"
    capability = torch.cuda.get_device_capability(queries.device) if on_cuda else _NATIVE_FLOAT8
    # Fused or not, said here: or triton wonders, in each start, what it will be in later versions.
    options = {"num_warps": _WARPS, "enable_fp_fusion": True} if on_cuda else {}
    read_parts[(heads, splits, rows)](
        queries,
        cache,
        pages,
        since,
        last,
        least,
        mixtures,
        weights,
        count,
        math.log2(math.e) / math.sqrt(width),
        CAPACITY=capacity,
        PLACES=pages.shape[1],
        FRAMES=page_frames,
        WIDTH=width,
        PADDED=padded,
        HEADS=heads,
        REPEAT=heads // kv_heads,
        STRIDE=queries.stride(0),
        LANES=lanes(page_frames),
        SPLITS=splits,
        KIND=kind_of(cache.dtype, capability),
        **options,
    )
    join_parts[(rows * heads,)](
        mixtures,
        weights,
        found,
        WIDTH=width,
        PADDED=padded,
        SPLITS=splits,
        PARTS=triton.next_power_of_2(splits),
        **options,
    )
    return found
