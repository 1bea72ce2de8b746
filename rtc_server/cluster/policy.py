"""How many engines a pool has, which of them it stops, and which one takes the next conversation. Pure.

Most of a step's time is its own, and the part of a row is small, so conversations are packed into few engines: that
costs those who talk little, and empties engines that can then be stopped. One in use is never stopped.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class Phase(enum.StrEnum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    """Opens no more slots, and ends when none is in use."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What is asked of a service's engines. ``spare_slots``: kept free for those who come next; ``idle_s``: after
    which an engine without a slot in use is stopped. With ``least`` and ``spare_slots`` 0, an unused pool has none."""

    least: int = 0
    most: int = 1
    spare_slots: int = 0
    idle_s: float = 300.0


@dataclass(frozen=True, slots=True)
class EngineView:
    """A healthy engine, or one that was started and has not been heard yet. ``slots``: 0 if not known yet. ``used``:
    those kept for a media node that is away included. ``idle_s``: for how long none has been. ``managed``: the pool
    started it, and may stop it."""

    name: str
    phase: Phase
    slots: int = 0
    used: int = 0
    idle_s: float = 0.0
    managed: bool = True


@dataclass(frozen=True, slots=True)
class Decision:
    """``start``: so many more. ``stop``: the names of those that are to drain."""

    start: int = 0
    stop: tuple[str, ...] = ()


def decide(terms: Terms, engines: Sequence[EngineView], waiting: int, slots: int | None) -> Decision:
    """What to do about one service. ``waiting``: clients that found no slot. ``slots``: of an engine that is started;
    None if no engine has told yet: then one is started for all that wait, and tells."""
    staying = [engine for engine in engines if engine.phase is not Phase.DRAINING]
    need = sum(engine.used for engine in staying) + waiting + terms.spare_slots
    start = _engines_missing(terms, staying, need, slots)
    start = min(start, terms.most - len(engines))  # one that drains has its device yet
    if start > 0:
        return Decision(start)
    return Decision(0, _engines_to_stop(terms, staying, need, slots or 0))


def _engines_missing(terms: Terms, staying: Sequence[EngineView], need: int, slots: int | None) -> int:
    if slots is None:
        return max(terms.least, 1 if need else 0) - len(staying)
    missing = need - sum(engine.slots or slots for engine in staying)
    return max(math.ceil(missing / slots), terms.least - len(staying))


def _engines_to_stop(terms: Terms, staying: Sequence[EngineView], need: int, slots: int) -> tuple[str, ...]:
    room = sum(engine.slots or slots for engine in staying)
    left = len(staying)
    stop = []
    for engine in sorted(staying, key=lambda each: -each.idle_s):
        idle = engine.phase is Phase.READY and not engine.used and engine.idle_s >= terms.idle_s
        if idle and engine.managed and left > terms.least and room - engine.slots >= need:
            stop.append(engine.name)
            left -= 1
            room -= engine.slots
    return tuple(stop)


@dataclass(frozen=True, slots=True)
class Room:
    """What is known of a healthy engine: ``taken`` of its ``slots`` are, or are being asked for."""

    key: str
    slots: int
    taken: int


def order(rooms: Iterable[Room], full: int = 0) -> list[str]:
    """The engines to ask for a slot, one after the other: the fullest that has room first. The last are up to ``full``
    of those that seem to have none, for what is known is a moment old, and the engine itself decides."""
    known = sorted(rooms, key=lambda room: (room.slots - room.taken, room.key))
    free = [room.key for room in known if room.taken < room.slots]
    return free + [room.key for room in known if room.taken >= room.slots][:full]
