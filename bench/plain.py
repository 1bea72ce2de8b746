"""The moshi package without a server around it, for comparison: a batch in lockstep, without masks and resets.

At a batch of one this is the loop of ``moshi/server.py`` (0.2.13), call by call; more rows are the same calls on more
rows. What the product's step takes longer is the price of rows that come, go and pause on their own. Everything here
runs in a process of its own: see :mod:`bench.apart`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from rtc_server.audio import FRAME_SAMPLES

_WARM_STEPS: Final = 8
"""Beyond the model's delay: on CUDA a part compiles at its first call and is captured as a graph at the second."""
_COPIES: Final = 10
_COPY_BYTES: Final = {"cuda": 2**31, "cpu": 2**27}
"""Far more than any cache holds."""


@dataclass(frozen=True, slots=True)
class Lockstep:
    """Seconds of each step, and the most memory that the process held: see :class:`bench.weights.Memory`."""

    steps: list[float]
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Device:
    """``bytes_per_s``: what its memory reads and writes together in a copy."""

    name: str
    software: str
    bytes_per_s: float


def lockstep(
    arch: str,
    batch: int,
    steps: int,
    device: str,
    dtype: str,
    context: int | None,
    threads: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Lockstep:
    """So many steps, one right after the other."""
    import torch  # noqa: PLC0415 - torch and its threads must not be in the process that measures
    from moshi.models.lm import LMGen  # noqa: PLC0415
    from moshi.utils.compile import no_compile  # noqa: PLC0415

    from bench.architectures import checkpoint_of, peak_bytes  # noqa: PLC0415

    where = torch.device(device)
    torch.set_num_threads(threads)
    kind = {"cuda": torch.bfloat16, "cpu": torch.float32}[where.type] if dtype == "auto" else getattr(torch, dtype)
    found = checkpoint_of(arch)
    overrides = {} if context is None else {"context": context}
    with torch.no_grad(), no_compile() if where.type == "cpu" else contextlib.nullcontext():
        mimi = found.get_mimi(where)
        lm = found.get_moshi(where, kind, lm_kwargs_overrides=overrides)
        lm_gen = LMGen(lm, **found.lm_gen_config)
        mimi.streaming_forever(batch)
        lm_gen.streaming_forever(batch)
        pcm = (0.1 * np.random.default_rng(1).standard_normal((batch, FRAME_SAMPLES))).astype(np.float32)
        times = []
        for index in range(lm_gen.max_delay + _WARM_STEPS + steps):
            began = clock()
            codes = mimi.encode(torch.from_numpy(pcm).to(where)[:, None])
            if index == 0:
                mimi.reset_streaming()
            for code in range(codes.shape[-1]):
                tokens = lm_gen.step(codes[:, :, code : code + 1])
                if tokens is None:
                    continue
                if lm.dep_q:
                    mimi.decode(tokens[:, 1:]).cpu()
                tokens[:, 0, 0].tolist()
            times.append(clock() - began)
    return Lockstep(times[-steps:], peak_bytes(where))


def device_of(device: str, threads: int) -> Device:
    """What ``device`` is, and how fast its memory is: the best of some copies."""
    import torch  # noqa: PLC0415

    where = torch.device(device)
    torch.set_num_threads(threads)
    source = torch.ones(_COPY_BYTES[where.type], dtype=torch.uint8, device=where)
    target = torch.empty_like(source)

    def copy_s() -> float:
        began = time.perf_counter()
        target.copy_(source)
        if where.type == "cuda":
            torch.cuda.synchronize(where)
        return time.perf_counter() - began

    best_s = min(copy_s() for _ in range(_COPIES))
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else f"CPU, {threads} thread(s)"
    cuda = f", CUDA {torch.version.cuda}" if where.type == "cuda" else ""
    return Device(name, f"torch {torch.__version__}{cuda}", 2 * source.nbytes / best_s)
