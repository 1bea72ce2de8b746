"""Taking RTP packets off an aiortc receiver as they arrive, before its jitter buffer and its decoder.

Everything of aiortc's private parts that the benchmarks rest on is in this module. The receiver's counting goes
on, so that its RTCP reports still tell the server what was lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from aiortc import RTCRtpReceiver
from aiortc.rtcrtpreceiver import StreamStatistics
from aiortc.rtp import RtpPacket

OnPacket = Callable[[float, RtpPacket], None]
"""Called with the monotonic time of arrival, in seconds, and the packet."""


def tap(receiver: RTCRtpReceiver, on_packet: OnPacket, clock_rate_hz: int = 48_000) -> None:
    """From now on, packets go to ``on_packet`` and nowhere else: the receiver's track stays silent."""
    streams: dict[int, StreamStatistics] = getattr(receiver, "_RTCRtpReceiver__remote_streams")  # noqa: B009

    async def handle(packet: RtpPacket, arrival_time_ms: int) -> None:
        on_packet(time.monotonic(), packet)
        if packet.ssrc not in streams:
            streams[packet.ssrc] = StreamStatistics(clock_rate_hz)
        streams[packet.ssrc].add(packet)

    receiver._handle_rtp_packet = handle  # type: ignore[method-assign]
