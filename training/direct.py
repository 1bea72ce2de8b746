"""Examines a model that is stepped directly, a batch of conversations at a time, faster than they would last.

Owns the loop and its clock: a frame that goes in with step i is captured at that step's end, and what the step
makes is heard from then on. Knows no network: what that does to a conversation, ``calls.py`` measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

import numpy as np

from rtc_server.audio import FRAME_MS, FRAME_SAMPLES, silence
from rtc_server.engine.model import StreamingModel
from training.person import Caller

_FRAME_S: Final = FRAME_MS / 1000

Who = TypeVar("Who", bound=Caller)


def converse(model: StreamingModel, callers: Iterable[Who], finished: Callable[[Who], None] = lambda _: None) -> None:
    """Lead every conversation to its end, as many at a time as the model has rows. ``finished``: told of each."""
    waiting = iter(callers)
    seats = [next(waiting, None) for _ in range(model.info.slots)]
    times = np.zeros(len(seats))
    model.reset(np.ones(len(seats), dtype=np.bool_))
    while any(seat is not None for seat in seats):
        _step(model, seats, times)
        for row, seat in enumerate(seats):
            if seat is not None and seat.done:
                finished(seat)
                seats[row], times[row] = next(waiting, None), 0.0
                model.reset(np.arange(len(seats)) == row)


def _step(model: StreamingModel, seats: Sequence[Caller | None], times: np.ndarray[Any, Any]) -> None:
    pcm = np.zeros((len(seats), FRAME_SAMPLES), dtype=np.float32)
    times += _FRAME_S
    for row, caller in enumerate(seats):
        if caller is not None:
            pcm[row] = caller.microphone(FRAME_SAMPLES, float(times[row]))
    outputs = model.step(pcm, np.array([caller is not None for caller in seats]))
    for row, (caller, output) in enumerate(zip(seats, outputs, strict=True)):
        if caller is None or output is None:
            continue
        caller.read(output.text, float(times[row]))
        caller.hear(silence(FRAME_SAMPLES) if output.pcm is None else output.pcm, float(times[row]))
