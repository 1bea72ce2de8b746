"""Counts a session's audio and events, and makes the ``stats`` event of them. No IO, no clock."""

from __future__ import annotations

import statistics
from collections import deque
from typing import Final

from rtc_server import audio
from rtc_server.protocols.events import Stats
from rtc_server.sessions.transport import TransportFigures

_ENGINE_TIMES: Final = 128


class SessionStats:
    """Counts of one session."""

    def __init__(self) -> None:
        self._last = TransportFigures()
        self._engine_s: deque[float] = deque(maxlen=_ENGINE_TIMES)
        self.frames_in = 0
        self.frames_out = 0
        self.frames_refused = 0
        self._last_in = audio.silence(0)
        self.level_out_dbfs = audio.SILENCE_DBFS

    def frame_in(self, pcm: audio.FloatArray, taken: bool) -> None:
        self.frames_in += 1
        self.frames_refused += not taken
        self._last_in = pcm

    def frame_out(self, pcm: audio.FloatArray | None, engine_s: float | None) -> None:
        self.frames_out += 1
        if engine_s is not None:
            self._engine_s.append(engine_s)
        if pcm is not None:
            self.level_out_dbfs = audio.level_dbfs(pcm)

    def next_period(self, transport: TransportFigures, filled: int, dropped: int) -> Stats:
        """The figures of the period that ends now; another begins."""
        figures = self.figures(transport, filled, dropped)
        self._last = transport
        self._engine_s.clear()
        return figures

    def figures(self, transport: TransportFigures, filled: int, dropped: int) -> Stats:
        """Totals, and shares and medians over the period so far. ``filled`` and ``dropped``: the microphone's
        frames that silence made up for, and those that came too fast."""
        received = transport.packets_received - self._last.packets_received
        lost = max(0, transport.packets_lost - self._last.packets_lost)
        # A client that changes its codec starts these counts again.
        dropped_ms = transport.playout_dropped_ms + transport.heard_dropped_ms
        concealed_ms = max(0.0, transport.concealed_ms - self._last.concealed_ms)
        played_ms = max(0.0, transport.played_ms - self._last.played_ms)
        engine_ms = round(statistics.median(self._engine_s) * 1000, 1) if self._engine_s else None
        return Stats(
            packets_received=transport.packets_received,
            packets_lost=transport.packets_lost,
            loss_in=round(lost / (received + lost), 4) if received + lost > 0 else 0.0,
            packets_late=transport.packets_late,
            packets_duplicate=transport.packets_duplicate,
            packets_bad=transport.packets_undecodable,
            concealed_in=round(concealed_ms / (concealed_ms + played_ms), 4) if concealed_ms + played_ms > 0 else 0.0,
            jitter_buffer_ms=round(transport.jitter_buffer_ms, 1),
            loss_out=round(transport.fraction_lost_out or 0.0, 4),
            jitter_in_ms=round(transport.jitter_s * 1000, 1),
            rtt_ms=None if transport.rtt_s is None else round(transport.rtt_s * 1000, 1),
            frames_in=self.frames_in,
            frames_out=self.frames_out,
            frames_filled=filled,
            frames_dropped=dropped + self.frames_refused + round(dropped_ms / audio.FRAME_MS),
            engine_ms=engine_ms,
            playout_ms=round(transport.playout_ms, 1),
            underruns=transport.underruns,
            level_in_dbfs=round(audio.level_dbfs(self._last_in), 1),
            level_out_dbfs=round(self.level_out_dbfs, 1),
        )
