"""Reports a session to the outside: metrics while it runs, one log line at its end. No clock."""

from __future__ import annotations

import logging

from rtc_server.metrics import Metrics
from rtc_server.protocols.events import Stats
from rtc_server.sessions.state import EndReason

logger = logging.getLogger(__name__)


class SessionReport:
    """One session's. Counters of the process move by what has happened since they were last moved."""

    def __init__(self, metrics: Metrics, log_id: str) -> None:
        self._metrics = metrics
        self._log_id = log_id
        self._published = Stats()
        self._dropped_s = 0.0

    def publish(self, figures: Stats, follows: bool, speaking: bool) -> None:
        """``follows``: audio of the client is coming in. ``speaking``: the model's voice is audible."""
        before, self._published = self._published, figures
        metrics = self._metrics
        metrics.frames_filled.inc(figures.frames_filled - before.frames_filled)
        metrics.frames_dropped.labels("late").inc(figures.frames_dropped - before.frames_dropped)
        metrics.underruns.inc(figures.underruns - before.underruns)
        if follows:
            metrics.concealed_share.observe(figures.concealed_in)
            metrics.loss_share.labels("in").observe(figures.loss_in)
            metrics.loss_share.labels("out").observe(figures.loss_out)
            metrics.jitter_buffer_seconds.observe(figures.jitter_buffer_ms / 1000)
        if speaking:
            metrics.playout_seconds.observe(figures.playout_ms / 1000)

    def dropped_audio(self, total_s: float, endpoint: str) -> None:
        """``total_s``: of the client's audio that was dropped so far, because it came faster than it lasts."""
        if total_s > self._dropped_s:
            self._metrics.audio_dropped_seconds.labels(endpoint).inc(total_s - self._dropped_s)
            self._dropped_s = total_s

    def ended(self, reason: EndReason, age_s: float, final: Stats) -> None:
        """The one line that says what became of it."""
        logger.info(
            "session %s: ended, %s, %.1f s, frames %d in %d out %d filled %d dropped, packets %d lost %d, underruns %d",
            self._log_id,
            reason,
            age_s,
            final.frames_in,
            final.frames_out,
            final.frames_filled,
            final.frames_dropped,
            final.packets_received,
            final.packets_lost,
            final.underruns,
        )
