"""The microphone's timeline: frames of 80 ms for the model, at the pace of real time, whatever arrives.

Pure; time is an argument, in monotonic seconds. A full-duplex model goes on while its user is quiet, so a
microphone that is late, muted or lost is filled up with silence, and one that is early (a burst after an
outage, a clock that runs fast) is cut, so that the model is never far behind the world.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rtc_server import audio
from rtc_server.audio import FloatArray, FrameAssembler

_FRAME_S: Final = audio.FRAME_MS / 1000
_PATIENCE_S: Final = 0.08
"""How late a frame may be before silence completes it: one frame, more than a Wi-Fi hiccup."""
START_PATIENCE_S: Final = 2.0
"""How long a peer that has connected may take until it sends: browsers have needed 1.8 s to start their sound."""
_LEAD_S: Final = 3 * _FRAME_S
"""How far a burst may run ahead of real time before its oldest audio is dropped."""


class MicrophoneTimeline:
    """One session's microphone. ``now`` must not go backwards."""

    def __init__(self, now: float) -> None:
        self._assembler = FrameAssembler()
        self._deadline = now + _FRAME_S + _PATIENCE_S
        self._lead_s = 0.0
        self._lead_at = now
        self.muted = False
        self.filled = 0
        self.dropped = 0

    @property
    def deadline(self) -> float:
        """When to call :meth:`poll` next."""
        return self._deadline

    def push(self, pcm: FloatArray, now: float) -> list[FloatArray]:
        """Add samples at 24 kHz; returns the frames to give to the model now."""
        pcm = audio.silence(pcm.size) if self.muted else pcm
        frames = self._assembler.push(pcm)
        # A frame that came buys a frame's time and no more: what is lost on the way stays owed, however much
        # else arrives, until silence makes up for it. Time that is saved up is not kept.
        self._deadline = min(self._deadline + len(frames) * _FRAME_S, now + _FRAME_S + _PATIENCE_S)
        return list(self._within_lead(frames, now))

    def poll(self, now: float) -> list[FloatArray]:
        """The frames that are overdue, completed with silence.

        Not to be called while packets are being followed: then the jitter buffer decides what is late, and silence
        put in by two would cut up a voice that starts, or leave its delay behind.
        """
        frames: list[FloatArray] = []
        while now >= self._deadline:
            missing = audio.FRAME_SAMPLES - self._assembler.buffered_samples
            frames += self._within_lead(self._assembler.push(audio.silence(missing)), now)
            self.filled += 1
            # While nothing comes there is nothing to be patient for.
            self._deadline += _FRAME_S
        return frames

    def restart(self, now: float, patience_s: float = 0.0) -> None:
        """Forget what is buffered. Time starts with the first samples; without any, after ``patience_s``."""
        self._assembler.clear()
        self._deadline = now + max(patience_s, _FRAME_S + _PATIENCE_S)
        self._lead_s = 0.0
        self._lead_at = now

    def _within_lead(self, frames: list[FloatArray], now: float) -> Iterator[FloatArray]:
        """Keep, of frames that come at once, the newest that real time has room for (a leaky bucket)."""
        self._lead_s = max(0.0, self._lead_s - (now - self._lead_at))
        self._lead_at = now
        room = max(0, int((_LEAD_S - self._lead_s) / _FRAME_S + 1e-9))
        surplus = max(0, len(frames) - room)
        self.dropped += surplus
        for frame in frames[surplus:]:
            self._lead_s += _FRAME_S
            yield frame
