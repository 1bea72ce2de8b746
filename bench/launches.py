"""``python -m bench launches``: how many kernels a step of Moshi 7B is, counted at its real shapes without a GPU.

On torch's ``meta`` device nothing is computed and nothing is held, but every operation is called. Each that computes
counts as a kernel, and what is compiled on CUDA as the few that it becomes. ``tests/bench/test_launches.py`` holds the
numbers.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final
from unittest import mock

import torch
from moshi.models import loaders
from moshi.models.compression import MimiModel
from moshi.models.lm import LMGen
from moshi.modules import gating, rope, transformer
from moshi.utils.compile import no_compile
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from bench.table import publish
from rtc_server.models.kyutai import attention, page_attention
from rtc_server.models.kyutai.attention import read_what_is_filled
from rtc_server.models.kyutai.depth import without_rings
from rtc_server.models.kyutai.pages import pages_for

HELP = "the kernels of a step of Moshi 7B, counted without a GPU"

ROWS: Final = 8
COMPILED: Final = {
    (transformer, "_rms_norm"): 1,
    (gating, "gating_forward_kernel"): 3,  # two products of matrices, and what is between them
    (rope, "apply_rope"): 1,
    (attention, "_turned"): 1,
    (functional, "scaled_dot_product_attention"): 1,
    (page_attention, "attend"): 2,
}
"""Functions that are so many kernels on CUDA, where they are compiled, however many operations they are made of."""
NO_KERNELS: Final = {"empty", "_unsafe_view", "lift_fresh", "detach", "new_empty", "empty_like"}
_PAGES: Final = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def run(arguments: argparse.Namespace) -> None:
    ways = {
        "the moshi package": kernels(moshi_7b(ours=False)),
        "rings": kernels(moshi_7b()),
        "pages, copied": kernels(moshi_7b(_PAGES)),
        "pages, read in place": kernels(moshi_7b(_PAGES, in_place=True)),
    }
    parts = next(iter(ways.values()))
    publish(
        "Kernels of a step of Moshi 7B",
        ["", *ways],
        [[part, *(f"{found[part]:,}" for found in ways.values())] for part in parts],
        [f"{ROWS} rows, attention of 750 frames, on torch's meta device. What is compiled counts as the few it is."],
    )


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations that compute: all but views and allocations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels = 0
        self._within = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        views = any(value.alias_info is not None and not value.alias_info.is_write for value in func._schema.returns)
        if not self._within and not views and func._schema.name.removeprefix("aten::") not in NO_KERNELS:
            self.kernels += 1
        return func(*args, **(kwargs or {}))

    def as_one(self, function: Callable[..., Any], kernels: int) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if self._within == 0:
                self.kernels += kernels
            self._within += 1
            try:
                return function(*args, **kwargs)
            finally:
                self._within -= 1

        return counted


@contextlib.contextmanager
def counting() -> Iterator[Counter]:
    counter = Counter()
    with contextlib.ExitStack() as stack, torch.no_grad(), no_compile():
        for (module, name), many in COMPILED.items():
            counted = counter.as_one(getattr(module, name), many)
            stack.enter_context(mock.patch.object(module, name, counted))
        with counter:
            yield counter


def moshi_7b(pages: int = 0, in_place: bool = False, ours: bool = True) -> tuple[MimiModel, LMGen]:
    """Mimi and the language model in streaming, of :data:`ROWS` rows. ``ours``: not as the package has them."""
    with torch.device("meta"):
        checkpoint = loaders.CheckpointInfo(None, None, None)  # type: ignore[arg-type]
        mimi, lm = checkpoint.get_mimi("meta"), checkpoint.get_moshi("meta", torch.bfloat16)
    if ours:
        assert without_rings(lm)
        paged = pages_for(lm, ROWS, pages, in_place=in_place)
        read_what_is_filled(mimi, lm, None, paged).to(750)
        if paged is not None:
            paged.read_from(torch.zeros((ROWS, paged.width), device="meta"))
    lm_gen = LMGen(lm, support_out_of_sync=True)
    lm_gen.streaming_forever(ROWS)
    mimi.streaming_forever(ROWS)
    return mimi, lm_gen


def kernels(models: tuple[MimiModel, LMGen]) -> dict[str, int]:
    """By the parts of a step."""
    mimi, lm_gen = models
    lm = lm_gen.lm_model
    tokens = torch.zeros((ROWS, lm.num_codebooks, 1), dtype=torch.long, device="meta")
    hidden = torch.zeros((ROWS, 1, lm.dim), dtype=torch.bfloat16, device="meta")
    with torch.device("meta"):
        heard = torch.zeros((ROWS, mimi.dimension, 2))
    assert mimi.encoder_transformer is not None
    steps: dict[str, Callable[[], object]] = {
        "main": lambda: lm.forward_text(tokens),
        "depth": lambda: lm_gen.depformer_step(tokens[:, 0, 0], hidden),
        "mimi's encoder transformer": lambda: mimi.encoder_transformer(heard),  # type: ignore[misc]
    }
    found = {}
    for part, step in steps.items():
        with counting() as counter:
            step()
        found[part] = counter.kernels
    return found
