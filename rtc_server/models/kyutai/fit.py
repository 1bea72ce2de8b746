"""Fits a model to its device's memory: refuses one that there is no room for, before any of it is loaded or downloaded,
and gives the conversations of another what is left when its weights are there.

A system that runs out of memory does not say so: it kills the process that asks for it, after minutes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import torch
from moshi.models import loaders

from rtc_server.audio import FRAME_MS
from rtc_server.errors import ModelLoadError
from rtc_server.models.kyutai.beside import weights_bytes
from rtc_server.models.kyutai.checkpoint import checkpoint_directory, checkpoint_name, open_checkpoint
from rtc_server.models.kyutai.estimate import Footprint, footprint, footprint_of
from rtc_server.models.kyutai.model import KyutaiModel, load
from rtc_server.models.kyutai.options import KyutaiOptions
from rtc_server.models.kyutai.page_count import (
    RESERVE_BYTES,
    DeviceMemory,
    PagedNeeds,
    left_by_others,
    pages_that_fit,
)
from rtc_server.models.kyutai.page_table import PAGE_FRAMES
from rtc_server.system import memory

logger = logging.getLogger(__name__)

MemoryOf = Callable[[str], DeviceMemory | None]
"""The memory of a device, by its name; None where that is not known."""
_SURELY: Final = 64
"""A model whose files fit so many times is not sized up: that takes as long as loading it."""


def load_if_it_fits(options: KyutaiOptions) -> KyutaiModel:
    """:func:`rtc_server.models.kyutai.model.load`. Raises ModelLoadError for a model that does not fit, too."""
    require_room(options)
    return load(options, count_pages)


def memory_of(device: str) -> DeviceMemory | None:
    """As it is now: what torch keeps of it for later use is free."""
    if device == "cpu":
        free = memory.free_bytes()
        return None if free is None else DeviceMemory(free)
    torch.cuda.empty_cache()
    return DeviceMemory(*torch.cuda.mem_get_info(device))


def count_pages(
    checkpoint: loaders.CheckpointInfo, options: KyutaiOptions, in_place: bool, memory_of: MemoryOf = memory_of
) -> int:
    """As many pages as the device has memory for beside this model's weights, which are there, the rest of what it
    takes, and the models beside it. Where its memory is not known, as many as all slots can fill. ``in_place``: whether
    they are read where they are."""
    needs = paged_needs(footprint_of(checkpoint, options, in_place), options.slots)
    if needs is None:
        return 0
    most = needs.slots * needs.pages_a_slot
    device = memory_of(options.device)
    count = most if device is None else pages_that_fit(needs, left_by_others(needs, device, _others_bytes(options)))
    seconds = min(count / needs.slots, needs.pages_a_slot) * PAGE_FRAMES * FRAME_MS / 1000
    logger.info(
        "%d pages of attention's memory, %s each, for %s: %.0f s for each of all in the mean",
        *(count, memory.size_text(needs.page_bytes), _slots(needs.slots), seconds),
    )
    return count


def paged_needs(held: Footprint, slots: int) -> PagedNeeds | None:
    """What a model with one page for each slot takes, part by part; None of one that has no pages."""
    if not held.page_bytes:
        return None
    rest = slots * (held.session_bytes + held.working_bytes - held.page_bytes)
    return PagedNeeds(slots, held.pages_a_slot, held.page_bytes, held.weights_bytes, rest)


def _others_bytes(options: KyutaiOptions) -> int:
    """What the models beside this one take. One that cannot be sized up will not be loaded either."""
    found = 0
    for needed in (*map(_needed_bytes, options.beside), *map(weights_bytes, options.translators)):
        found += 0 if needed is None else needed + RESERVE_BYTES
    return found


def require_room(options: KyutaiOptions) -> None:
    """Raises ModelLoadError, with both sizes. What cannot be known, such as what else will want memory meanwhile, is no
    reason to refuse."""
    free = _free_bytes(options.device)
    if free is None or _files_bytes(options.model) * _SURELY < free:
        return
    needed = _needed_bytes(options)
    if needed is not None and needed > free:
        where = "this machine" if options.device == "cpu" else options.device
        raise ModelLoadError(
            f"{checkpoint_name(options.model)} does not fit into memory: with {_slots(options.slots)} it needs "
            f"{memory.size_text(needed)}, and {where} has {memory.size_text(free)} free.",
            "Use fewer slots, or a smaller --context, --dtype or model: rtc-server check says what each needs.",
        )


def _needed_bytes(options: KyutaiOptions) -> int | None:
    """The least that it takes: what it holds once it is loaded. None of a model that cannot be sized up."""
    try:
        try:
            held = footprint(options)
        except ModelLoadError:  # it may be on the hub; what else is wrong with it is said here
            open_checkpoint(options.model)
            held = footprint(options)
    except ModelLoadError:
        return None  # loading it says why
    return held.bytes_of(options.slots)


def _free_bytes(device: str) -> int | None:
    if device == "cpu":
        return memory.free_bytes()
    try:
        return torch.cuda.mem_get_info(device)[0]
    except (RuntimeError, ValueError, AssertionError):  # there is no such device, which loading says better
        return None


def _files_bytes(model: str) -> float:
    """Size of the weights in a directory; unknown for a model elsewhere."""
    directory = checkpoint_directory(model)
    if directory is None:
        return float("inf")
    return sum(path.stat().st_size for path in directory.glob("*.safetensors"))


def _slots(count: int) -> str:
    return "one slot" if count == 1 else f"{count} slots"
