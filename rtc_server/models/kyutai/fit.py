"""Refuses a model that its device has no memory for, before any of it is loaded or downloaded.

A system that runs out of memory does not say so: it kills the process that asks for it, after minutes.
"""

from __future__ import annotations

from typing import Final

import torch

from rtc_server.errors import ModelLoadError
from rtc_server.models.kyutai.checkpoint import checkpoint_directory, checkpoint_name, open_checkpoint
from rtc_server.models.kyutai.estimate import footprint
from rtc_server.models.kyutai.model import KyutaiModel, load
from rtc_server.models.kyutai.options import KyutaiOptions
from rtc_server.system import memory

_SURELY: Final = 64
"""A model whose files fit so many times is not sized up: that takes as long as loading it."""


def load_if_it_fits(options: KyutaiOptions) -> KyutaiModel:
    """:func:`rtc_server.models.kyutai.model.load`. Raises ModelLoadError for a model that does not fit, too."""
    require_room(options)
    return load(options)


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
    return held.weights_bytes + options.slots * (held.session_bytes + held.working_bytes)


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
