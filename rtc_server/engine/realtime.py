"""Startup check: times a few steps, and rejects a model that is slower than real time.

A step takes a time of its own, and more for each conversation in it, the more the older that is: so it is timed with
one and with all, which are young, and again as if they were as old as they can become.

Owns how that is measured and what is said of a model that is too slow. Knows no transport; the clock is handed in.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from rtc_server.audio import FRAME_MS, FRAME_SAMPLES
from rtc_server.engine.model import AgingModel, BoolArray, ModelInfo, StreamingModel
from rtc_server.errors import ModelLoadError

logger = logging.getLogger(__name__)

_TRIES: Final = 5
"""Of which the best counts: a noisy moment is not the model's fault. Always as many, for each draws random numbers, and
``--seed`` is to mean the same every time."""
_WAITS_S: Final = (1.0, 2.0, 4.0, 8.0)
"""Between the times that a model is timed on a busy machine."""
_ALL_THE_SAME: Final = "--allow-slow starts it all the same."


class RealTime(enum.StrEnum):
    """What becomes of a model that is slower than the speech it hears."""

    REQUIRED = "required"
    """It is refused."""
    WANTED = "wanted"
    """It is warned of."""
    UNMEASURED = "unmeasured"
    """Not timed: it hears files, or costs next to nothing."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """``now``: seconds that pass; ``computed``: seconds for which the calling thread has had a processor."""

    now: Callable[[], float]
    computed: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a step takes with one row active, and with all of them; and how much of the first is computing, the rest
    being waiting for others. ``old_one_ms``, ``old_all_ms``: the same with rows as old as they can become; 0 of a model
    of which that is no matter."""

    one_ms: float
    all_ms: float
    one_computed_ms: float
    old_one_ms: float = 0.0
    old_all_ms: float = 0.0

    @property
    def longest_one_ms(self) -> float:
        """With one row, however old."""
        return max(self.one_ms, self.old_one_ms)

    @property
    def longest_ms(self) -> float:
        return max(self.longest_one_ms, self.all_ms, self.old_all_ms)

    def keep_up(self, slots: int) -> int:
        """How many conversations of ``slots``, however old, a frame has time for: what all take more than one does,
        each of them takes a part of."""
        if self.longest_ms <= FRAME_MS:
            return slots
        if self.longest_one_ms > FRAME_MS:
            return 0
        of_each_ms = (self.longest_ms - self.longest_one_ms) / (slots - 1)
        return 1 + int((FRAME_MS - self.longest_one_ms) / of_each_ms)

    @property
    def starved(self) -> bool:
        """Whether it would keep up if it had its processor to itself."""
        return self.one_computed_ms <= FRAME_MS < self.one_ms


def check_pace(
    model: StreamingModel, clocks: Clocks, real_time: RealTime, rest: Callable[[float], bool]
) -> Pace | None:
    """Measure a model that is warm, and leave every row wiped. None if real time is not asked for, or was given up.

    While the machine is busy with something else, a model that has to keep up is given time: ``rest`` waits for so many
    seconds, and says whether to give up. Raises :class:`ModelLoadError` with the figures if real time is required and
    not even one conversation has it. If one has and all at once have not, or not when they are old, that is a warning.
    """
    if real_time is RealTime.UNMEASURED:
        return None
    pace, info = measure(model, clocks), model.info
    for wait_s in _WAITS_S if real_time is RealTime.REQUIRED else ():
        if not _is_starved(pace, info):
            break
        logger.warning("%s It is timed again in %.0f s", _too_slow(pace, info), wait_s)
        if rest(wait_s):
            return None
        model.warm_up()  # draws the same random numbers once more, as if it had not been timed
        pace = measure(model, clocks)
    _judge(pace, info, real_time)
    return pace


def _judge(pace: Pace, info: ModelInfo, real_time: RealTime) -> None:
    if pace.one_ms > FRAME_MS:
        if real_time is RealTime.REQUIRED:
            raise ModelLoadError(_too_slow(pace, info), _hint(pace, info))
        logger.warning("%s", _too_slow(pace, info))
    elif pace.longest_ms > FRAME_MS:
        logger.warning(
            "%s cannot keep up with speech on %s in all %d slots at once: "
            "with one in use a step takes %.0f ms, with all %.0f ms%s, a frame is %d ms; %s",
            *(info.name, info.device, info.slots, pace.one_ms, pace.all_ms, _when_old(pace), FRAME_MS),
            _how_many(pace, info),
        )
    else:
        said = f"a step takes {pace.one_ms:.1f} ms with one slot in use, {pace.all_ms:.1f} ms with all"
        logger.info("%s%s", said, _when_old(pace))


def _when_old(pace: Pace) -> str:
    if not pace.old_all_ms:
        return ""
    return f", when conversations are as old as the model remembers {pace.old_one_ms:.0f} and {pace.old_all_ms:.0f} ms"


def _how_many(pace: Pace, info: ModelInfo) -> str:
    """That keep up, and what to do for more."""
    many = pace.keep_up(info.slots)
    if many:
        return f"there is time for {many} at a time: that many --slots, or a smaller --context"
    return "there is time for young ones alone: fewer --slots, or a smaller --context"


def measure(model: StreamingModel, clocks: Clocks) -> Pace:
    """The best of several steps each, in silence."""
    all_rows = np.ones(model.info.slots, dtype=np.bool_)
    one_row = np.arange(model.info.slots) == 0
    one_ms, one_computed_ms = _best_ms(model, one_row, clocks)
    all_ms, _ = _best_ms(model, all_rows, clocks)
    old_one_ms = old_all_ms = 0.0
    if isinstance(model, AgingModel):
        model.read_at_least(model.oldest_frames)
        old_one_ms, old_all_ms = (_best_ms(model, rows, clocks)[0] for rows in (one_row, all_rows))
        model.read_at_least(0)
    model.reset(all_rows)
    return Pace(one_ms, all_ms, one_computed_ms, old_one_ms, old_all_ms)


def _best_ms(model: StreamingModel, active: BoolArray, clocks: Clocks) -> tuple[float, float]:
    """The shortest of some steps' times, and of the times of their computing."""
    quiet = np.zeros((model.info.slots, FRAME_SAMPLES), dtype=np.float32)
    times, computed = [], []
    for _ in range(_TRIES):
        started, before = clocks.now(), clocks.computed()
        model.step(quiet, active)
        times.append(clocks.now() - started)
        computed.append(clocks.computed() - before)
    return min(times) * 1000, min(computed) * 1000


def _is_starved(pace: Pace, info: ModelInfo) -> bool:
    """On an accelerator, the waiting of a thread says nothing."""
    return pace.starved and info.device == "cpu"


def _too_slow(pace: Pace, info: ModelInfo) -> str:
    if _is_starved(pace, info):
        return (
            f"The machine is busy: a step of {info.name} takes {pace.one_ms:,.0f} ms, a frame is {FRAME_MS} ms; "
            f"it computes for {pace.one_computed_ms:,.0f} ms and waits for a processor for the rest."
        )
    said = f"{info.name} cannot keep up with speech on {info.device}"
    return f"{said}: a step takes {pace.one_ms:,.0f} ms, a frame is {FRAME_MS} ms."


def _hint(pace: Pace, info: ModelInfo) -> str:
    if _is_starved(pace, info):
        return "Start it when other programs, or its container's limit, leave it a processor. " + _ALL_THE_SAME
    instead = "Use a GPU or a smaller model" if info.device == "cpu" else "Use a faster GPU or a smaller --context"
    return f"{instead}. {_ALL_THE_SAME}"
