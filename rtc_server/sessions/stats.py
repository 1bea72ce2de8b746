"""The figures of one call: counts what passes, and turns it into the ``stats`` event. No IO, no clock."""

from __future__ import annotations

import statistics
from collections import deque
from typing import Final

from rtc_server import audio
from rtc_server.media.inbound import InboundFigures
from rtc_server.media.playout import PlayoutBuffer
from rtc_server.protocols.events import Stats
from rtc_server.webrtc.peer import PeerStats

_ENGINE_TIMES: Final = 128


class CallStats:
    """Counts of one call."""

    def __init__(self, playout: PlayoutBuffer) -> None:
        self._playout = playout
        self._last_peer = PeerStats()
        self._last_inbound = InboundFigures()
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

    def next_period(self, peer: PeerStats, inbound: InboundFigures) -> Stats:
        """The figures of the period that ends now; another begins."""
        figures = self.figures(peer, inbound)
        self._last_peer = peer
        self._last_inbound = inbound
        self._engine_s.clear()
        return figures

    def figures(self, peer: PeerStats, inbound: InboundFigures) -> Stats:
        """Totals, and shares and medians over the period so far."""
        received = peer.packets_received - self._last_peer.packets_received
        lost = max(0, peer.packets_lost - self._last_peer.packets_lost)
        # A peer that changes its codec starts these counts anew.
        concealed_ms = max(0.0, inbound.concealed_ms - self._last_inbound.concealed_ms)
        played_ms = max(0.0, inbound.played_ms - self._last_inbound.played_ms)
        engine_ms = round(statistics.median(self._engine_s) * 1000, 1) if self._engine_s else None
        dropped_ms = audio.samples_to_ms(self._playout.dropped_samples)
        return Stats(
            packets_received=peer.packets_received,
            packets_lost=peer.packets_lost,
            loss_in=round(lost / (received + lost), 4) if received + lost > 0 else 0.0,
            packets_late=inbound.late,
            packets_duplicate=inbound.duplicate,
            packets_bad=inbound.undecodable,
            concealed_in=round(concealed_ms / (concealed_ms + played_ms), 4) if concealed_ms + played_ms > 0 else 0.0,
            jitter_buffer_ms=round(inbound.wait_ms, 1),
            loss_out=round(peer.fraction_lost_out or 0.0, 4),
            jitter_in_ms=round(peer.jitter_s * 1000, 1),
            rtt_ms=None if peer.rtt_s is None else round(peer.rtt_s * 1000, 1),
            frames_in=self.frames_in,
            frames_out=self.frames_out,
            frames_filled=inbound.filled,
            frames_dropped=inbound.dropped + self.frames_refused + round(dropped_ms / audio.FRAME_MS),
            engine_ms=engine_ms,
            playout_ms=round(self._playout.depth_ms, 1),
            underruns=self._playout.underruns,
            level_in_dbfs=round(audio.level_dbfs(self._last_in), 1),
            level_out_dbfs=round(self.level_out_dbfs, 1),
        )
