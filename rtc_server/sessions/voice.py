"""Follows the model's voice: when it begins and falls silent, and how soon after an interruption. Pure."""

from __future__ import annotations

from rtc_server.media.voice_gate import VoiceActivity
from rtc_server.sessions.state import SessionEvent


class ModelVoice:
    """One session's; times are monotonic seconds."""

    def __init__(self) -> None:
        self._activity = VoiceActivity()
        self._interrupted_at: float | None = None

    def interrupt(self, now: float) -> None:
        """The client began to speak while the model did."""
        self._interrupted_at = now

    def follow(self, level_dbfs: float, now: float) -> tuple[SessionEvent | None, float | None]:
        """Take a frame's level. Returns VOICE_STARTED or VOICE_STOPPED when that changes, and how many seconds after
        an interruption the voice has stopped, if it was interrupted."""
        if not self._activity.update(level_dbfs):
            return None, None
        if self._activity.active:
            return SessionEvent.VOICE_STARTED, None
        interrupted_at, self._interrupted_at = self._interrupted_at, None
        return SessionEvent.VOICE_STOPPED, None if interrupted_at is None else now - interrupted_at

    def clear(self) -> None:
        """Forget what was being said: after a reset, or a lost path. How fast an interruption took effect is still
        measured with the next end of the voice."""
        self._activity = VoiceActivity()
