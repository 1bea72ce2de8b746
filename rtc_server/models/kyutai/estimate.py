"""Estimates a model's memory from its configuration alone: reads no weights, downloads nothing.

The architecture is built on torch's ``meta`` device, where tensors have shapes and no contents, by the same calls that
load the real one, and counted in the same way.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from moshi.models import loaders

from rtc_server.models.kyutai.attention import read_what_is_filled
from rtc_server.models.kyutai.buckets import sizes
from rtc_server.models.kyutai.checkpoint import checkpoint_name, load_errors, read_configuration, without_weights
from rtc_server.models.kyutai.footprint import state_bytes, weight_bytes
from rtc_server.models.kyutai.kv_cache import stored_as, widened_bytes
from rtc_server.models.kyutai.model import lm_dtype, lm_overrides, make_generator, streaming_states
from rtc_server.models.kyutai.options import KyutaiOptions
from rtc_server.models.kyutai.page_attention import at_hand
from rtc_server.models.kyutai.pages import pages_for
from rtc_server.models.kyutai.quantize import is_quantized, saved_bytes


@dataclass(frozen=True, slots=True)
class Footprint:
    """``weights_bytes`` are there once; ``session_bytes`` for each slot, in use or not, and ``working_bytes`` for each
    while a step runs. Of attention's memory in pages: ``page_bytes``, of one, which ``session_bytes`` include as far as
    there are pages, and ``pages_a_slot``, how many one slot can fill."""

    weights_bytes: int
    session_bytes: int
    working_bytes: int = 0
    page_bytes: int = 0
    pages_a_slot: int = 0

    def bytes_of(self, slots: int) -> int:
        """All that a model holds with so many, as many as were asked for."""
        return self.weights_bytes + slots * (self.session_bytes + self.working_bytes)


def footprint(options: KyutaiOptions) -> Footprint:
    """Estimate what :func:`~rtc_server.models.kyutai.model.load` would allocate with these options but for ``slots``.

    Where the number of pages is left to the device, with the fewest that there may be: one for each slot. Other working
    memory comes on top. Raises ModelLoadError, with a hint, where the configuration is not at hand.
    """
    return footprint_of(read_configuration(options.model), options)


def footprint_of(checkpoint: loaders.CheckpointInfo, options: KyutaiOptions, in_place: bool | None = None) -> Footprint:
    """:func:`footprint` of a checkpoint that is open. Its weights are not read. ``in_place``: whether pages are read
    where they are; None: if that can be had, for all that is known without running it."""
    checkpoint = without_weights(checkpoint)
    quantized = options.quantize != "none" or is_quantized(checkpoint)
    if quantized:  # without bitsandbytes, which need not be there
        config = checkpoint.lm_config or loaders._lm_kwargs
        checkpoint = dataclasses.replace(checkpoint, lm_config=config | {"quantize": False})
    hint = "Its config.json may not be that of a Kyutai model."
    with load_errors(f"{checkpoint_name(options.model)} cannot be sized up", hint), torch.no_grad():
        with torch.device("meta"):
            mimi = checkpoint.get_mimi("meta")
            lm = checkpoint.get_moshi("meta", lm_dtype(options), lm_kwargs_overrides=lm_overrides(options))
        weights = weight_bytes(mimi, lm) - (saved_bytes(lm) if quantized else 0)
        narrow = options.kv_dtype != "auto"
        if quantized and not narrow:  # the package's choice then
            options = dataclasses.replace(options, kv_dtype="float16")
        lm_gen = make_generator(lm, checkpoint, options)
        if in_place is None:
            in_place = at_hand(torch.device(options.device))
        count = options.slots if options.pages is None else options.pages
        pages = pages_for(lm, options.slots, count, in_place=in_place)
        filled = read_what_is_filled(mimi, lm, stored_as(options.kv_dtype), pages)
        mimi.streaming_forever(options.slots)
        lm_gen.streaming_forever(options.slots)
        cache = state_bytes(streaming_states(mimi, lm_gen))
        working = widened_bytes(lm) if narrow else 0
        if pages is None:
            return Footprint(weights, cache // options.slots, working // options.slots)
        lengths = filled.buckets_on_cuda  # each is a graph, which keeps the memory that it works in
        graphs = sum(lengths) / lengths[0] if options.device != "cpu" else 1
        if options.device != "cpu":
            graphs *= sum(sizes(options.slots, cpu=False)) / options.slots
        working = int(pages.working_bytes * graphs) + (pages.widened_bytes(lm.dtype) if narrow else 0)
        each = cache // options.slots, working // options.slots
        return Footprint(weights, *each, pages.page_bytes, pages.pages_a_slot)
