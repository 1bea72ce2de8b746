"""The playout buffer: 80 ms frames in when the engine has them, 20 ms out when a packet is due.

Pure. It holds a small reserve against an engine that is late, and gives the reserve back when it has grown:
a buffer that only ever grows turns every hiccup into delay for the rest of the call. Its depth is bounded.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from rtc_server import audio
from rtc_server.audio import FloatArray

MAX_DEPTH_MS: Final = 480
"""Six frames. An engine that delivers more at once has been away; what it says late is not worth the delay."""
_SLACK_MS: Final = 30
"""Reserve over the margin that is not worth a cut."""
_WINDOW_MS: Final = 2000
"""How long the reserve must have been too deep before it is cut."""
_FADE_SAMPLES: Final = audio.ms_to_samples(5)
_QUIET_DBFS: Final = -50.0


class PlayoutBuffer:
    """``margin_ms``: silence put before a voice that starts, so that its next frame may be that late."""

    def __init__(self, margin_ms: float) -> None:
        self._margin = audio.ms_to_samples(margin_ms)
        self._held = 0
        self._pcm = audio.silence(0)
        self._playing = False
        # A stream that ran dry has proved that it needs more reserve, and has it: what came late plays late.
        # Only a stream that starts is given the margin.
        self._fresh = True
        self._window_left = audio.ms_to_samples(_WINDOW_MS)
        self._window_min = audio.ms_to_samples(MAX_DEPTH_MS)
        self.underruns = 0
        self.dropped_samples = 0

    @property
    def depth_samples(self) -> int:
        """What is waiting, the margin that is still being held included."""
        return int(self._pcm.size) + self._held

    @property
    def depth_ms(self) -> float:
        return audio.samples_to_ms(self.depth_samples)

    def push(self, pcm: FloatArray) -> None:
        """Add samples to the end. When that is too much, the oldest go."""
        if not self._playing and not self._pcm.size:
            self._held = self._margin if self._fresh else 0
        self._pcm = np.concatenate((self._pcm, pcm))
        excess = self._pcm.size - audio.ms_to_samples(MAX_DEPTH_MS)
        if excess > 0:
            self._cut(self._pcm.size - self._margin - pcm.size)

    def pull(self, samples: int) -> tuple[FloatArray, bool]:
        """The next ``samples`` samples, and whether any of them is the model's: silence fills the rest."""
        if self._held:
            self._held = max(0, self._held - samples)
            return audio.silence(samples), False
        if not self._pcm.size:
            if self._playing:
                self._playing = False
                self.underruns += 1
            return audio.silence(samples), False
        self._playing = True
        self._shed(samples)
        out, self._pcm = self._pcm[:samples], self._pcm[samples:]
        if out.size < samples:
            out = np.concatenate((out, audio.silence(samples - out.size)))
        return out, True

    def clear(self) -> None:
        """Drop everything at once: the model was interrupted. The next voice starts afresh, with its margin."""
        self._pcm = audio.silence(0)
        self._held = 0
        self._playing = False
        self._open_window()
        self._fresh = True

    def _shed(self, samples: int) -> None:
        """Give back reserve that was never needed in the last window."""
        self._fresh = False
        self._window_min = min(self._window_min, self._pcm.size)
        self._window_left -= samples
        if self._window_left > 0:
            return
        excess = self._window_min - self._margin
        quiet = audio.level_dbfs(self._pcm[: excess + samples]) < _QUIET_DBFS if excess > 0 else True
        # A cut in silence is not heard; one in speech waits for a second window, then is cross-faded.
        if excess <= audio.ms_to_samples(_SLACK_MS) or quiet or self._window_left <= -audio.ms_to_samples(_WINDOW_MS):
            if excess > audio.ms_to_samples(_SLACK_MS):
                self._cut(excess)
            self._open_window()

    def _open_window(self) -> None:
        self._window_left = audio.ms_to_samples(_WINDOW_MS)
        self._window_min = audio.ms_to_samples(MAX_DEPTH_MS)

    def _cut(self, samples: int) -> None:
        """Drop the oldest ``samples`` samples, with a cross-fade over the seam."""
        fade = min(_FADE_SAMPLES, samples, self._pcm.size - samples)
        before, after = self._pcm[:fade], self._pcm[samples:].copy()
        ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
        after[:fade] = after[:fade] * ramp + before * (1 - ramp)
        self._pcm = after
        self.dropped_samples += samples
