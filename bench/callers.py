"""Sessions that come, talk and go while an engine is measured, and what became of their frames.

Owns the arrivals: every session has a phase and a length of its own, and another follows in its place. Knows the
engine's client and nothing behind it. A :class:`Call` is told the time; only :func:`keep_calling` reads a clock.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from rtc_server.audio import FRAME_MS, FRAME_SAMPLES
from rtc_server.engine.client import EngineClient
from rtc_server.engine.messages import StepDone
from rtc_server.engine.stream import StreamOutput
from rtc_server.errors import EngineFailed, ServerError

FRAME_S: Final = FRAME_MS / 1000


@dataclass(slots=True)
class Figures:
    """What is counted from ``begins_at`` on. Seconds: ``steps`` in the model, by the engine's clock; ``frames`` from
    push to output, by ours. ``lost``: frames that will never come back. ``overdue``: those that had not come back
    after :data:`FRAME_S`, when their session ended. ``rows``: of each step."""

    begins_at: float
    steps: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    frames: list[float] = field(default_factory=list)
    lost: int = 0
    overdue: int = 0
    sessions: int = 0

    def on_step(self, done: StepDone, now: float) -> None:
        if now >= self.begins_at:
            self.steps.append(done.seconds)
            self.rows.append(len(done.outputs))

    @property
    def late(self) -> float | None:
        """The share of frames that took longer than :data:`FRAME_S`, or for ever; None without frames."""
        every = len(self.frames) + self.lost + self.overdue
        return (sum(took > FRAME_S for took in self.frames) + self.lost + self.overdue) / every if every else None


class Call:
    """One session's frames: what was sent, what came back. A listener of the engine's client."""

    def __init__(self, figures: Figures, clock: Callable[[], float]) -> None:
        self._figures = figures
        self._clock = clock
        self._under_way: dict[int, float] = {}
        self._frame = 0

    def on_push(self, now: float) -> None:
        """A frame goes out; whether the engine has taken it will be seen."""
        self._frame += 1
        self._under_way[self._frame] = now

    def on_output(self, output: StreamOutput) -> None:
        """Outputs come in order: frames before this one that are still under way are lost."""
        now = self._clock()
        for frame in [frame for frame in self._under_way if frame <= output.frame]:
            sent = self._under_way.pop(frame)
            if sent < self._figures.begins_at:
                continue
            if frame == output.frame:
                self._figures.frames.append(now - sent)
            else:
                self._figures.lost += 1

    def on_engine_error(self, error: ServerError) -> None:
        """The stream is closed by then, which is looked at before each push."""

    def hang_up(self, now: float) -> None:
        """What is under way and still in time is not lost."""
        sent = [sent for sent in self._under_way.values() if sent >= self._figures.begins_at]
        self._figures.overdue += sum(now - each > FRAME_S for each in sent)
        self._figures.sessions += now >= self._figures.begins_at
        self._under_way.clear()


async def call_in_all_slots(
    client: EngineClient, figures: Figures, slots: int, warm_s: float, seconds: float, life_s: float
) -> None:
    """Sessions in every slot, for ``warm_s``, and for ``seconds`` that are counted; see :func:`keep_calling`. Raises an
    ExceptionGroup of what that raises."""
    figures.begins_at = time.monotonic() + warm_s
    async with asyncio.TaskGroup() as group:
        for slot in range(slots):
            dice = random.Random(f"{slots} {slot}")
            calling = keep_calling(client, figures, dice, life_s, figures.begins_at + seconds)
            group.create_task(calling, name=f"slot-{slot}")


async def keep_calling(
    client: EngineClient, figures: Figures, dice: random.Random, life_s: float, ends_at: float
) -> None:
    """Sessions in one slot, one after the other, each for ``life_s`` give or take a half; 0: a single one.

    Raises EngineFailed when the engine dies, and whatever opening a stream raises.
    """
    while (now := time.monotonic()) < ends_at:
        life_ends_at = now + life_s * dice.uniform(0.5, 1.5) if life_s else ends_at
        await _talk(client, figures, dice, min(life_ends_at, ends_at))


async def _talk(client: EngineClient, figures: Figures, dice: random.Random, ends_at: float) -> None:
    call = Call(figures, time.monotonic)
    stream = await client.open(call)
    rng = np.random.default_rng(dice.getrandbits(32))
    due = time.monotonic() + dice.uniform(0, FRAME_S)
    try:
        while due < ends_at:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if stream.closed:
                raise EngineFailed
            call.on_push(time.monotonic())
            stream.push((0.1 * rng.standard_normal(FRAME_SAMPLES)).astype(np.float32))
            due += FRAME_S
    finally:
        call.hang_up(time.monotonic())
        stream.close()
