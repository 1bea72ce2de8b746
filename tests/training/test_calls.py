"""A conversation over WebRTC: what is said goes out, what comes back is heard, when it is."""

from __future__ import annotations

import numpy as np
import pytest

from rtc_server.audio import MODEL_RATE_HZ, FloatArray, silence
from training import calls
from training.calls import Way
from training.person import Ear

pytestmark = pytest.mark.alone
BEEP_S = 0.2
AGAIN_S = 3


class Beeper:
    """Says a beep after half a second, and again every three, for one may be lost; is content when it hears one."""

    def __init__(self) -> None:
        phase = 2 * np.pi * 800 * np.arange(round(BEEP_S * MODEL_RATE_HZ)) / MODEL_RATE_HZ
        beep = (0.3 * np.sin(phase)).astype(np.float32)
        self._left = np.concatenate((silence(MODEL_RATE_HZ // 2), beep))
        self._again = np.concatenate((silence(AGAIN_S * MODEL_RATE_HZ), beep))
        self._ear = Ear()
        self._beeps = False
        self.said_at_s = 0.0

    @property
    def done(self) -> bool:
        return bool(self._ear.sounds)

    @property
    def heard_after_s(self) -> float:
        return self._ear.sounds[0] - self.said_at_s

    def microphone(self, count: int, now_s: float) -> FloatArray:
        if len(self._left) <= count:
            self._left = np.concatenate((self._left, self._again))
        pcm, self._left = self._left[:count], self._left[count:]
        if pcm.any() and not self._beeps:
            self.said_at_s = now_s - (count - int(np.flatnonzero(pcm)[0])) / MODEL_RATE_HZ
        self._beeps = bool(pcm.any())
        return pcm

    def hear(self, pcm: FloatArray, start_s: float) -> None:
        self._ear.push(pcm, start_s)

    def read(self, text: str, now_s: float) -> None:
        pass


@pytest.mark.parametrize("way", [Way(), Way(loss=True), Way(codec="audio/PCMU")], ids=["clean", "lossy", "telephone"])
async def test_a_beep_comes_back_after_it_was_said(base_url: str, way: Way) -> None:
    """From an echo server, and not before a frame has passed; two callers, one after the other."""
    beepers = [Beeper(), Beeper()]
    ended: list[Beeper] = []
    assert await calls.converse(base_url, beepers, 1, way, ended.append) == []
    assert ended == beepers
    assert all(0.08 <= beeper.heard_after_s < 2.0 for beeper in beepers)


async def test_a_call_that_is_lost_is_told_and_the_next_one_made() -> None:
    """No server listens at this address."""
    beepers = [Beeper(), Beeper()]
    ended: list[Beeper] = []
    lost = await calls.converse("http://127.0.0.1:1", beepers, 1, Way(), ended.append)
    assert len(lost) == 2
    assert ended == beepers


async def test_the_servers_metrics_are_read(base_url: str) -> None:
    assert isinstance(await calls.counts(base_url), dict)
