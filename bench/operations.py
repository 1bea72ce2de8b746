"""Where the time of a step goes, by torch's profiler: in the product's model, as an engine process runs it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from rtc_server.audio import FRAME_SAMPLES
from rtc_server.models.kyutai.options import KyutaiOptions

_ACTIVE: Final = 0.7
"""The share of rows that have a frame in a step, at random: masks change from step to step, as they do in calls."""

_GROUPS: Final = (
    ("fused by torch's compiler", r"^triton_"),
    ("attention", r"fmha|flash|attention|attn"),
    ("softmax", r"softmax"),
    ("convolutions", r"conv|cudnn|winograd|implicit|dgrad|wgrad"),
    ("matrix products", r"gemm|gemv|cutlass|nvjet|xmma|cublas|splitk|addmm|\bmm\b|\bbmm\b|matmul|linear|cdist"),
    ("sampling", r"topk|sort|radix|exponential|argmax|argmin|multinomial|distribution"),
    ("copies", r"memcpy|memset|copy|\bcat\b|clone|_to\b|fill|zero|where|index|gather|scatter|embedding|contiguous"),
)
"""By name, the first that matches: CUDA's kernels, and on a CPU the operators that do the work."""


@dataclass(frozen=True, slots=True)
class Operation:
    """``calls`` and ``seconds``: of all steps; its own time, without that of what it calls."""

    name: str
    calls: int
    seconds: float


def operations(options: KyutaiOptions, steps: int, fill: int = 0) -> list[Operation]:
    """What runs on the device in so many steps, the longest first. On CUDA kernels and copies, on a CPU operators.
    ``fill``: frames that attention reads at least of each row.

    Runs in a process of its own: see :mod:`bench.apart`.
    """
    from torch._C._autograd import DeviceType  # noqa: PLC0415 - torch must not be in the process that measures
    from torch.profiler import ProfilerActivity, profile  # noqa: PLC0415

    from bench.architectures import product_model  # noqa: PLC0415

    model = product_model(options)
    model.warm_up()
    model.read_at_least(fill)
    cuda = model.info.device.startswith("cuda")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    rng = np.random.default_rng(1)
    with profile(activities=activities) as profiler:
        for _ in range(steps):
            active = rng.random(model.info.slots) < _ACTIVE
            active[rng.integers(model.info.slots)] = True
            pcm = (0.1 * rng.standard_normal((model.info.slots, FRAME_SAMPLES))).astype(np.float32)
            model.step(pcm, active)
    wanted = DeviceType.CUDA if cuda else DeviceType.CPU
    found = [
        Operation(event.key, event.count, (event.self_device_time_total if cuda else event.self_cpu_time_total) / 1e6)
        for event in profiler.key_averages()
        if event.device_type == wanted and not event.is_user_annotation  # a span over others
    ]
    model.close()
    return sorted((each for each in found if each.seconds > 0), key=lambda each: -each.seconds)


def group_of(name: str) -> str:
    """The kind of work that an operator or a kernel of this name does."""
    return next((group for group, pattern in _GROUPS if re.search(pattern, name.lower())), "elementwise and others")


def grouped(found: Iterable[Operation]) -> list[Operation]:
    """The same time by kind of work, the longest first."""
    sums: dict[str, Operation] = {}
    for each in found:
        group = group_of(each.name)
        so_far = sums.get(group, Operation(group, 0, 0.0))
        sums[group] = Operation(group, so_far.calls + each.calls, so_far.seconds + each.seconds)
    return sorted(sums.values(), key=lambda each: -each.seconds)
