"""A model's quiet as digital silence. Pure.

A neural codec hisses a little while its model is quiet. Clients that cut utterances by level would never end one.
"""

from __future__ import annotations

from rtc_server import audio
from rtc_server.audio import FloatArray
from rtc_server.media.voice_gate import VoiceActivity


class QuietGate:
    """Follows one voice, frame by frame."""

    def __init__(self) -> None:
        self._activity = VoiceActivity()

    def pass_on(self, pcm: FloatArray) -> FloatArray:
        """The frame, or zeros in its place where no voice is in it or was a moment ago."""
        self._activity.update(audio.level_dbfs(pcm))
        return pcm if self._activity.active else audio.silence(pcm.size)
