"""Whether a model keeps up with speech: some steps, timed before anybody is let in.

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
from rtc_server.engine.model import BoolArray, ModelInfo, StreamingModel
from rtc_server.errors import ModelLoadError

logger = logging.getLogger(__name__)

_TRIES: Final = 5
"""Of which the best counts: a noisy moment is not the model's fault. Always as many, for each draws random numbers, and
``--seed`` is to mean the same every time."""


class RealTime(enum.StrEnum):
    """What becomes of a model that is slower than the speech it hears."""

    REQUIRED = "required"
    """It is refused."""
    WANTED = "wanted"
    """It is warned of."""
    UNMEASURED = "unmeasured"
    """Nobody looks: it hears files, or costs next to nothing."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a step takes with one row active, and with all of them."""

    one_ms: float
    all_ms: float


def check_pace(model: StreamingModel, clock: Callable[[], float], real_time: RealTime) -> None:
    """Measure a model that is warm, and leave every row wiped.

    Raises :class:`ModelLoadError` with the figures if real time is required and not even one conversation has it. If
    one has and all at once have not, that is a warning.
    """
    if real_time is RealTime.UNMEASURED:
        return
    pace, info = measure(model, clock), model.info
    said = f"{info.name} cannot keep up with speech on {info.device}"
    if pace.one_ms > FRAME_MS:
        said += f": a step takes {pace.one_ms:,.0f} ms, a frame is {FRAME_MS} ms."
        if real_time is RealTime.REQUIRED:
            raise ModelLoadError(said, _hint(info))
        logger.warning("%s", said)
    elif pace.all_ms > FRAME_MS:
        logger.warning(
            "%s in all %d slots at once: with one in use a step takes %.0f ms, with all %.0f ms, a frame is %d ms",
            *(said, info.slots, pace.one_ms, pace.all_ms, FRAME_MS),
        )
    else:
        logger.info("a step takes %.1f ms with one slot in use, %.1f ms with all", pace.one_ms, pace.all_ms)


def measure(model: StreamingModel, clock: Callable[[], float]) -> Pace:
    """The best of several steps each, in silence."""
    everybody = np.ones(model.info.slots, dtype=np.bool_)
    somebody = np.arange(model.info.slots) == 0
    pace = Pace(_best_ms(model, somebody, clock), _best_ms(model, everybody, clock))
    model.reset(everybody)
    return pace


def _best_ms(model: StreamingModel, active: BoolArray, clock: Callable[[], float]) -> float:
    quiet = np.zeros((model.info.slots, FRAME_SAMPLES), dtype=np.float32)
    times = []
    for _ in range(_TRIES):
        started = clock()
        model.step(quiet, active)
        times.append(clock() - started)
    return min(times) * 1000


def _hint(info: ModelInfo) -> str:
    instead = "Use a GPU or a smaller model" if info.device == "cpu" else "Use a faster GPU or a smaller --context"
    # The whole batch is computed in each step, whoever is in it.
    fewer = f", or fewer slots than {info.slots}: each costs time, used or not" if info.slots > 1 else ""
    return f"{instead}{fewer}. --allow-slow starts it all the same."
