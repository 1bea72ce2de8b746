"""``python -m bench kernel``: how fast the kernel reads attention's pages, by types of cache and lanes.

The shape is that of one layer of Moshi 7B with full conversations.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.apart import apart
from bench.table import publish

HELP = "the speed of the kernel that reads attention's pages, with 16 and 32 lanes"

_TYPES: Final = ("bfloat16", "float8_e4m3fn")
_LANES: Final = (16, 32)
_TRIES: Final = 20
_CALLS: Final = 10
"""In a row on a device: it computes one while the next is launched, as in a graph."""


@dataclass(frozen=True, slots=True)
class Speed:
    """``seconds``: of one call, the best. ``read_bytes``: keys and values."""

    seconds: float
    read_bytes: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cuda", help="cuda or cuda:N; cpu with TRITON_INTERPRET=1")
    parser.add_argument("--rows", type=int, default=64, help="conversations")
    parser.add_argument("--frames", type=int, default=3_000, help="of each")
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--width", type=int, default=128, help="numbers of a head")
    parser.add_argument("--tries", type=int, default=_TRIES, help="of which the best counts")


def run(arguments: argparse.Namespace) -> None:
    shape = arguments.rows, arguments.frames, arguments.heads, arguments.width
    rows = []
    for stored in _TYPES:
        for lanes in _LANES:
            try:
                found = apart(speed, arguments.device, stored, lanes, *shape, arguments.tries)
                cells = [f"{found.seconds * 1000:.3f}", f"{found.read_bytes / found.seconds / 1e9:,.0f}"]
            except RuntimeError as error:
                cells = [str(error), "–"]
            rows.append([stored, str(lanes), *cells])
            print(f"{stored}, {lanes} lanes: {cells[0]} ms, {cells[1]} GB/s", flush=True)
    title = f"One layer's attention, {shape[0]} rows of {shape[1]} frames, {shape[2]} heads of {shape[3]}"
    publish(title, ["cache", "lanes", "ms", "GB/s"], rows, [f"The best of {arguments.tries} calls."])


def speed(device: str, stored: str, lanes: int, rows: int, frames: int, heads: int, width: int, tries: int) -> Speed:
    import torch  # noqa: PLC0415 - in a process of its own

    from rtc_server.models.kyutai import page_attention, page_kernel  # noqa: PLC0415
    from rtc_server.models.kyutai.page_table import PAGE_FRAMES, places  # noqa: PLC0415

    page_kernel._LANES = lanes  # type: ignore[misc]
    where, at, kind = torch.device(device), places(frames, PAGE_FRAMES), getattr(torch, stored)
    narrow = kind.itemsize == 1
    cache = torch.zeros(
        (2, heads, rows * at + 1, PAGE_FRAMES, width), dtype=torch.uint8 if narrow else kind, device=where
    )
    queries = torch.randn((rows, heads, width), device=where).to(torch.bfloat16)
    pages = 1 + torch.randperm(rows * at, device=where).view(rows, at)
    since = torch.zeros((rows, at), dtype=torch.long, device=where)
    last = torch.full((rows,), frames - 1, device=where)
    told = queries, cache, pages, since, last, torch.zeros_like(last)
    call: Callable[[], object] = lambda: page_attention.attend(*told, frames)  # noqa: E731
    call()

    calls = _CALLS if where.type == "cuda" else 1

    def once_s() -> float:
        began = time.perf_counter()
        for _ in range(calls):
            call()
        if where.type == "cuda":
            torch.cuda.synchronize(where)
        return (time.perf_counter() - began) / calls

    best_s = min(once_s() for _ in range(tries))
    return Speed(best_s, 2 * rows * frames * heads * width * cache.element_size())
