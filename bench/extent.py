"""``python -m bench extent``: what it is worth on a CPU that attention reads what is filled, and not the whole ring.

One attention layer of Moshi 7B's shape, and whole steps of small models with one conversation, by the frames that it
has behind it; beside the moshi package, which reads the whole ring from the first frame on. Processor time of a thread.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.apart import apart
from bench.engine import write_tiny
from bench.floor import counts
from bench.plain import lockstep
from bench.table import publish, spread
from rtc_server.audio import FRAME_SAMPLES
from rtc_server.models.kyutai.options import KyutaiOptions

HELP = "attention over what is filled, on a CPU: one layer of Moshi 7B's shape, and steps of small models"

_PACKAGE: Final = 0
"""In place of a number of frames."""
_WARM: Final = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--frames", type=counts, default="128,750,3000", help="behind a conversation; a column for each"
    )
    parser.add_argument("--models", default="pico,tiny", help="whose steps are measured; none: the layer alone")
    parser.add_argument("--steps", type=int, default=30, help="of each, in each round")
    parser.add_argument("--rounds", type=int, default=5, help="times each, in turn")


def run(arguments: argparse.Namespace) -> None:
    rows = [
        _row(f"a layer of Moshi 7B, {dtype}", arguments, functools.partial(layer_s, arguments.steps, dtype))
        for dtype in ("float32", "bfloat16")
    ]
    with tempfile.TemporaryDirectory() as directory:
        for name in filter(None, arguments.models.replace("none", "").split(",")):
            model = apart(write_tiny, Path(directory) / name, "moshi") if name == "tiny" else name
            rows.append(_row(f"a step of {name}", arguments, functools.partial(step_s, arguments.steps, model)))
    publish(
        "Attention over what is filled, ms",
        ["", "the moshi package", *(f"{frames:,} frames" for frames in arguments.frames)],
        rows,
        [
            f"Median (least–most) of {arguments.rounds} rounds' medians of {arguments.steps} steps; processor time of "
            "a thread.",
            "A layer is its attention alone, without projections; one row. No more is read than the ring has.",
        ],
    )


def _row(title: str, arguments: argparse.Namespace, once: Callable[[int], Sequence[float]]) -> list[str]:
    """Each column in each round, in turn: what else the machine does meets all of them alike."""
    columns = [_PACKAGE, *arguments.frames]
    found: dict[int, list[float]] = {frames: [] for frames in columns}
    for _ in range(arguments.rounds):
        for frames in columns:
            found[frames].append(float(np.median(once(frames))) * 1000)
    return [title, *(spread(values, digits=1) for values in found.values())]


def layer_s(steps: int, dtype: str, frames: int) -> list[float]:
    """Seconds of each call of the layer. ``frames``: 0 for the package's own."""
    return apart(_layer_s, frames, dtype, steps)


def _layer_s(frames: int, dtype: str, steps: int) -> list[float]:
    import torch  # noqa: PLC0415 - in a process of its own
    from moshi.models import loaders  # noqa: PLC0415
    from moshi.modules.transformer import StreamingTransformer  # noqa: PLC0415
    from moshi.utils.compile import no_compile  # noqa: PLC0415

    from rtc_server.models.kyutai.attention import Filled, _Transformer  # noqa: PLC0415

    class Thrice(torch.nn.Module):
        """In place of the projections to queries, keys and values."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x, x, x], -1)

    torch.set_num_threads(1)
    real: dict[str, Any] = loaders._lm_kwargs
    transformer = StreamingTransformer(
        *(real["dim"], real["num_heads"], 1),
        dim_feedforward=8,
        causal=True,
        context=real["context"],
        positional_embedding="rope",
        max_period=real["max_period"],
        norm=real["norm"],
    )
    transformer.to(getattr(torch, dtype))
    attention: Any = transformer.layers[0].self_attn
    filled = Filled(cuda=False, narrow=False)
    if frames:
        _Transformer(transformer, filled, None, None)
        filled.to(frames)
    x = torch.randn((1, 1, real["dim"])).to(getattr(torch, dtype))
    seconds = []
    with torch.inference_mode(), no_compile():
        transformer.streaming_forever(1)
        attention.in_projs[0], attention.out_projs[0] = Thrice(), torch.nn.Identity()
        for _ in range(_WARM + steps):
            began = time.thread_time()
            transformer(x)
            seconds.append(time.thread_time() - began)
    return seconds[_WARM:]


def step_s(steps: int, model: str, frames: int) -> list[float]:
    """Seconds of each step with one conversation. ``frames``: 0 for the package's own calls."""
    if frames == _PACKAGE:
        return apart(lockstep, model, 1, steps, "cpu", "auto", None, 1, time.thread_time).steps
    return apart(_step_s, KyutaiOptions(model, slots=1, threads=1, seed=1), frames, steps)


def _step_s(options: KyutaiOptions, frames: int, steps: int) -> list[float]:
    from bench.architectures import product_model  # noqa: PLC0415 - imports torch

    model = product_model(options)
    model.warm_up()
    model.read_at_least(frames)
    dice, seconds = np.random.default_rng(1), []
    for _ in range(_WARM + steps):
        pcm = (0.1 * dice.standard_normal((1, FRAME_SAMPLES))).astype(np.float32)
        began = time.thread_time()
        model.step(pcm, np.ones(1, dtype=np.bool_))
        seconds.append(time.thread_time() - began)
    return seconds[_WARM:]
