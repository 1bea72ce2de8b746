"""Gives a client's audio on at the pace of real time, however fast it comes. Pure; time is an argument, in monotonic
seconds.

Clients of some protocols send a whole question at once; others send a microphone, whose delay must not grow. So what
comes early waits, and the oldest is dropped when too much does. What has waited for a second is no jitter but a delay
that stays: pauses are cut short until nothing waits.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from rtc_server import audio
from rtc_server.audio import FloatArray

_PIECE: Final = audio.PACKET_SAMPLES
"""What is given on, waits or is dropped as one: 20 ms."""
_PIECE_S: Final = audio.PACKET_MS / 1000
_LEAD_S: Final = 0.12
"""By how much audio may run ahead of real time: microphones come in bursts of as much. The microphone's timeline behind
this takes twice as much before it drops any."""
MAX_WAITING_S: Final = 30.0
_STANDING_S: Final = 1.0
"""Audio that is waiting for so long without a break is not a network's jitter: pauses are cut."""
_PAUSE_S: Final = 0.4
"""Of each pause this much is left: enough to hear that it is one."""
_QUIET_DBFS: Final = -50.0


class PacedAudio:
    """One client's microphone: mono float32 at 24 kHz."""

    def __init__(self, now: float) -> None:
        self._assembler = audio.FrameAssembler(_PIECE)
        self._waiting: deque[FloatArray] = deque()
        self._ahead_s = 0.0
        self._ahead_at = now
        self._quiet_s = 0.0
        self._empty_at = now
        self.dropped_s = 0.0
        """Seconds of sound that were too much; of silence that was cut out, too."""

    @property
    def waiting_s(self) -> float:
        return len(self._waiting) * _PIECE_S

    def push(self, pcm: FloatArray, now: float) -> list[FloatArray]:
        """Take audio; returns what may be given on now."""
        self._waiting.extend(self._assembler.push(pcm))
        while self.waiting_s > MAX_WAITING_S:
            self._waiting.popleft()
            self.dropped_s += _PIECE_S
        return self.poll(now)

    def poll(self, now: float) -> list[FloatArray]:
        """What may be given on now."""
        self._ahead_s = max(0.0, self._ahead_s - (now - self._ahead_at))
        self._ahead_at = now
        ready: list[FloatArray] = []
        while self._waiting and self._ahead_s + _PIECE_S <= _LEAD_S + 1e-9:
            piece = self._waiting.popleft()
            if self._is_cut(piece, now):
                self.dropped_s += _PIECE_S
                continue
            self._ahead_s += _PIECE_S
            ready.append(piece)
        if not self._waiting:
            self._empty_at = now
        return ready

    def clear(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
        self._assembler.clear()

    def _is_cut(self, piece: FloatArray, now: float) -> bool:
        quiet = audio.level_dbfs(piece) < _QUIET_DBFS
        self._quiet_s = self._quiet_s + _PIECE_S if quiet else 0.0
        return self._quiet_s > _PAUSE_S and now - self._empty_at > _STANDING_S
