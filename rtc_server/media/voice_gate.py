"""Detects audible voice: a level gate on each frame, with hangover. Pure."""

from __future__ import annotations

from typing import Final

VOICE_DBFS: Final = -45.0
"""Louder than this is a voice: over the idle noise of a neural codec, under quiet speech."""
HANGOVER_FRAMES: Final = 4
"""Quiet frames of 80 ms after which it has stopped: 320 ms, longer than the pauses between words."""


class VoiceActivity:
    """Follows one voice, frame by frame."""

    def __init__(self) -> None:
        self.active = False
        self._quiet_frames = 0

    def update(self, level_dbfs: float) -> bool:
        """Take the level of one frame; returns whether :attr:`active` has changed."""
        before = self.active
        if level_dbfs > VOICE_DBFS:
            self._quiet_frames = 0
            self.active = True
        else:
            self._quiet_frames += 1
            self.active = self.active and self._quiet_frames < HANGOVER_FRAMES
        return self.active is not before
