"""Attention over pages without a copy of them, where that can be had: on CUDA, with triton.

Owns the decision, which is made once for a model and proven on its device before it is relied on, and what the kernel
is to torch: one operation, which has a shape on devices without contents too. Imports triton at its first use only.
"""

from __future__ import annotations

import importlib.util
import logging
from typing import Any, Final

import torch
from moshi.models.lm import LMModel

from rtc_server.models.kyutai import page_table
from rtc_server.models.kyutai.page_table import NEVER, places

logger = logging.getLogger(__name__)

_LEAST_CAPABILITY: Final = (8, 0)
"""Ampere: the oldest processors that the kernels are compiled for in tests."""
_PROGRAMS: Final = 1024
"""So many at least, if pages allow: an H100 has 132 multiprocessors, on each of which 8 are at work at a time."""
_LEAST_SPLITS: Final = 4
"""However many rows there are: a long one among short ones is read by four programs, not by one that all wait for."""
_TOLERANCE: Final = 2**-6
"""Of each output, or of 1: four times what rounding to bfloat16 may cost. A wrong mask is far beyond it."""


def at_hand(device: torch.device) -> bool:
    """Whether there is a kernel for pages on such a device. Asks no device that is not there."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    return not torch.cuda.is_available() or torch.cuda.get_device_capability(device) >= _LEAST_CAPABILITY


def proven(lm: LMModel, stored: torch.dtype | None) -> bool:
    """Whether attention of ``lm`` may read its pages by the kernel: it is at hand, it can be compiled here, and on this
    device it finds what torch finds in float64. ``stored``: the type of pages; None for the model's.

    Says in the log what it is, and why.
    """
    if not at_hand(lm.device):
        if lm.device.type == "cuda":
            logger.warning(
                "no kernel reads attention's pages in place: it needs triton and a device of compute capability %d.%d; "
                "each step copies them",
                *_LEAST_CAPABILITY,
            )
        return False
    layers: Any = lm.transformer.layers
    attention = layers[0].self_attn
    try:
        largest = _largest_error(
            attention.num_heads,
            attention.num_heads // attention.kv_repeat,
            attention.embed_dim // attention.num_heads,
            lm.dtype,
            stored or lm.dtype,
            lm.device,
        )
    except Exception as error:  # of a compiler, a driver, a package of others, whatever they say: there is another way
        logger.warning(
            "the kernel that reads attention's pages in place does not run; each step copies them: %r", error
        )
        return False
    if not largest <= _TOLERANCE:
        logger.warning(
            "the kernel that reads attention's pages in place is wrong by %g here; each step copies them", largest
        )
        return False
    logger.info("attention reads its pages in place, by a kernel of triton")
    return True


def splits(rows: int, heads: int, at: int) -> int:
    """Into how many parts a row of so many places is read, each by a program of its own."""
    return min(at, max(_LEAST_SPLITS, -(-_PROGRAMS // (rows * heads))))


def working_bytes(rows: int, heads: int, width: int, at: int) -> int:
    """What :func:`attend` takes of memory while it runs, but for what it returns: float32, of each part."""
    return rows * heads * splits(rows, heads, at) * (width + 2) * torch.float32.itemsize


@torch.library.custom_op("rtc_server::attend_to_pages", mutates_args=())
def attend(
    queries: torch.Tensor,
    cache: torch.Tensor,
    pages: torch.Tensor,
    since: torch.Tensor,
    last: torch.Tensor,
    least: torch.Tensor,
    capacity: int,
) -> torch.Tensor:
    """What rows see in rings of ``capacity`` frames: shape and type of ``queries``, zeros where they see nothing.

    ``queries``: shape [rows, heads, width], each row without gaps. ``cache``: keys and values, shape [2, heads or a
    divisor of them, pages, frames of a page, width]; float32, bfloat16, float16, or uint8, which is read as float8
    (e4m3). ``pages``, ``since``: int64, shape [rows, places], the page in each place, and from which position of the
    row on it holds something. ``last``: int64, shape [rows], the newest position.
    ``least``: int64, shape [rows], up to which entry rows are read even if they see nothing there, which must be finite
    then; 0, but for those who measure what reading costs.
    """
    from rtc_server.models.kyutai import page_kernel  # noqa: PLC0415 (imports triton)

    rows, heads, _ = queries.shape
    return page_kernel.launch(queries, cache, pages, since, last, least, capacity, splits(rows, heads, pages.shape[1]))


@attend.register_fake
def _(
    queries: torch.Tensor,
    cache: torch.Tensor,
    pages: torch.Tensor,
    since: torch.Tensor,
    last: torch.Tensor,
    least: torch.Tensor,
    capacity: int,
) -> torch.Tensor:
    return torch.empty(queries.shape, dtype=queries.dtype, device=queries.device)


def _largest_error(
    heads: int, kv_heads: int, width: int, dtype: torch.dtype, stored: torch.dtype, device: torch.device
) -> float:
    """Of two short rows, one of which has wrapped and has forgotten; pages of neither are NaN. NaN if they reach it."""
    frames = page_table.PAGE_FRAMES
    capacity = 3 * frames - frames // 2
    at, last = places(capacity, frames), torch.tensor([frames // 2, capacity + frames // 4])
    numbers = torch.Generator().manual_seed(0)
    cache = torch.randn((2, kv_heads, 2 * at + 1, frames, width), generator=numbers).to(stored)
    queries = torch.randn((2, heads, width), generator=numbers).to(dtype)
    pages = 1 + torch.randperm(2 * at, generator=numbers).view(2, at)
    since = torch.tensor([[0, NEVER, NEVER], [capacity, NEVER, 2 * frames + 1]])
    for page in (0, int(pages[0, 1]), int(pages[0, 2]), int(pages[1, 1])):
        cache[:, :, page] = torch.nan
    kept = cache.view(torch.uint8) if stored.itemsize == 1 else cache
    told = queries, kept, pages, since, last, torch.zeros_like(last)
    found = attend(*(each.to(device) for each in told), capacity)
    expected = reference(queries, cache, pages, since, last, capacity)
    errors = (found.double().cpu() - expected).abs() / expected.abs().clamp(min=1)
    return float(errors.max())


def reference(
    queries: torch.Tensor,
    cache: torch.Tensor,
    pages: torch.Tensor,
    since: torch.Tensor,
    last: torch.Tensor,
    capacity: int,
) -> torch.Tensor:
    """What :func:`attend` comes to, in float64, row by row, head by head. ``cache``: of the type that it means."""
    _, kv_heads, _, frames, width = cache.shape
    heads = queries.shape[1]
    found = torch.zeros(queries.shape, dtype=torch.float64)
    for row, now in enumerate(last.tolist()):
        positions = range(max(0, now - capacity + 1), now + 1)
        entries = [each % capacity for each in positions]
        seen = [
            (int(pages[row, entry // frames]), entry % frames)
            for position, entry in zip(positions, entries, strict=True)
            if position >= since[row, entry // frames]
        ]
        if not seen:
            continue
        of_page, of_frame = (torch.tensor(each) for each in zip(*seen, strict=True))
        for head in range(heads):
            keys, values = cache[:, head * kv_heads // heads, of_page, of_frame].double()
            scores = keys @ queries[row, head].double() / width**0.5
            found[row, head] = scores.softmax(0) @ values
    return found
