"""Messages between the server and its decoding processes. Knows nothing of either.

To the nursery: one :data:`ORDER` each, with the descriptors of file and pipe beside it. From it: one :data:`EXIT` for
each order. Through the pipe: a :data:`FRAME_HEADER`, then so many bytes.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final

ORDER: Final = struct.Struct("<BIIdd")
"""Kind, job; and for a start: MiB of memory, CPU seconds, CPU seconds for each second of audio."""
EXIT: Final = struct.Struct("<Ii")
"""Job; its exit status, negative for a signal, or :data:`NOT_STARTED`."""
NOT_STARTED: Final = 1000
FRAME_HEADER: Final = struct.Struct("<BI")
MAX_FRAME_BYTES: Final = 4 * 2**20
"""A block of audio is a second, and what one packet adds to it."""


class Order(enum.IntEnum):
    START = 1
    KILL = 2


class Frame(enum.IntEnum):
    """``OPENED``: JSON with ``duration_s``. ``PCM``: float32. ``ENDED``: JSON with ``notices``. ``REFUSED``: JSON with
    ``refusal``."""

    OPENED = 1
    PCM = 2
    ENDED = 3
    REFUSED = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may cost. ``memory_mib``: besides what the process has when it begins. ``cpu_s``: before the first
    audio and between any two blocks; in all, ``cpu_s`` and ``cpu_share`` of the audio's length. ``stall_s``: by the
    clock, while the server waits for the next block."""

    memory_mib: int = 256
    cpu_s: float = 15.0
    cpu_share: float = 0.5
    stall_s: float = 45.0
