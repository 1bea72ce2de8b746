"""The playout buffer: takes 80 ms frames when the engine has them, gives 20 ms when a packet is due.

Pure; time is an argument, in monotonic seconds. It holds a small reserve against frames that are late, and gives the
reserve back when it has grown: a buffer that only ever grows turns every hiccup into delay for the rest of the call.
Its depth is bounded.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np

from rtc_server import audio
from rtc_server.audio import FloatArray

MAX_DEPTH_MS: Final = 480
"""Six frames. An engine that delivers more at once has been away; what it says late is not worth the delay."""
_WINDOW_S: Final = 1.0
"""The reserve is cut to what was needed in so long a time."""
_SLACK_S: Final = 0.012
"""Reserve over the margin that is not worth a cut: that to the next tick of the wheel is among it."""
_PACKET_S: Final = audio.PACKET_MS / 1000
_FADE_SAMPLES: Final = audio.ms_to_samples(10)
_SEARCH_SAMPLES: Final = audio.ms_to_samples(8)
"""A cut may be that much shorter than it should be, to fall where the waves fit: one period of a deep voice."""


class PlayoutBuffer:
    """``margin_ms``: how late the next frame of a voice that has started may be. Whole packets of it are silence
    before the voice; the rest, :attr:`phase_s`, is how long after its first frame the packets' clock has to start."""

    def __init__(self, margin_ms: float) -> None:
        self._margin = audio.ms_to_samples(margin_ms)
        self._silence = self._margin - self._margin % audio.PACKET_SAMPLES
        self._limit = audio.ms_to_samples(MAX_DEPTH_MS)
        self._pcm = audio.silence(0)
        self._held = 0
        self._playing = False
        # A stream that ran dry has proved that it needs more reserve, and has it: what came late plays late.
        # Only a stream that starts is given the margin.
        self._fresh = True
        self._pulled_at = 0.0
        self._reserves: deque[tuple[float, float]] = deque()
        self.underruns = 0
        self.dropped_samples = 0

    @property
    def phase_s(self) -> float:
        return (self._margin - self._silence) / audio.MODEL_RATE_HZ

    @property
    def depth_samples(self) -> int:
        """Samples that wait, those of the margin that is still held included."""
        return int(self._pcm.size) + self._held

    @property
    def depth_ms(self) -> float:
        return audio.samples_to_ms(self.depth_samples)

    def push(self, pcm: FloatArray, now: float) -> None:
        """Add samples to the end. When that is too much, the oldest go."""
        if self._fresh and not self._pcm.size:
            self._held = self._silence
        if self._playing:
            self._give_back_reserve(now)
        self._pcm = np.concatenate((self._pcm, pcm))
        if self._pcm.size > self._limit:
            self._cut(self._pcm.size - min(self._limit, self._margin + pcm.size))
        # Reserve that is there need not be made of silence.
        self._held = min(self._held, self._limit - int(self._pcm.size))

    def pull(self, samples: int, now: float) -> tuple[FloatArray, bool]:
        """The next ``samples`` samples, and whether any of them is the model's: silence fills the rest."""
        self._pulled_at = now
        if not self._pcm.size:
            self.underruns += self._playing
            self._playing = False
            return audio.silence(samples), False
        held = min(self._held, samples)
        self._held -= held
        voice, self._pcm = self._pcm[: samples - held], self._pcm[samples - held :]
        if voice.size:
            self._playing = True
            self._fresh = False
        rest = samples - held - voice.size
        if not held and not rest:
            return voice, True
        return np.concatenate((audio.silence(held), voice, audio.silence(rest))), voice.size > 0

    def clear(self) -> None:
        """Drop everything at once: the model was interrupted. The next voice starts afresh, with its margin."""
        self._pcm = audio.silence(0)
        self._held = 0
        self._playing = False
        self._fresh = True
        self._reserves.clear()

    def _give_back_reserve(self, now: float) -> None:
        """Cut what was not needed for a while. The reserve is how much later this frame could have come: what is
        left, and the time until the next pull."""
        until_pull_s = max(0.0, _PACKET_S - (now - self._pulled_at))
        self._reserves.append((now, self.depth_samples / audio.MODEL_RATE_HZ + until_pull_s))
        if now - self._reserves[0][0] < _WINDOW_S:
            return
        excess_s = min(reserve for _, reserve in self._reserves) - self._margin / audio.MODEL_RATE_HZ
        self._reserves.popleft()
        cut = min(int(excess_s * audio.MODEL_RATE_HZ), int(self._pcm.size) - _FADE_SAMPLES)
        if excess_s > _SLACK_S and cut > 0:
            cut = self._best_cut(cut)
            self._cut(cut)
            self._reserves = deque((at, reserve - cut / audio.MODEL_RATE_HZ) for at, reserve in self._reserves)

    def _best_cut(self, samples: int) -> int:
        """The cut, up to ``samples``, after which the wave goes on most nearly as before."""
        least = max(1, samples - _SEARCH_SAMPLES)
        before = self._pcm[:_FADE_SAMPLES]
        later = np.lib.stride_tricks.sliding_window_view(self._pcm[least : samples + _FADE_SAMPLES], _FADE_SAMPLES)
        likeness = (later @ before) / (np.linalg.norm(later, axis=1) + np.float32(1e-6))
        return least + int(likeness.argmax())

    def _cut(self, samples: int) -> None:
        """Drop the oldest ``samples`` samples, with a cross-fade over the seam."""
        fade = min(_FADE_SAMPLES, samples, self._pcm.size - samples)
        before, after = self._pcm[:fade], self._pcm[samples:].copy()
        ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
        after[:fade] = after[:fade] * ramp + before * (1 - ramp)
        self._pcm = after
        self.dropped_samples += samples
