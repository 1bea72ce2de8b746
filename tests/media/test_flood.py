"""A peer that sends more audio than there is time for: no more of it is decoded than its own pace allows."""

from __future__ import annotations

import numpy as np

from rtc_server import audio
from rtc_server.audio import FloatArray
from rtc_server.media.codecs import PacketDecoder
from rtc_server.media.inbound import BURST_MS, MAX_PACE, InboundStream, PacketReceiver

PACKETS_PER_S = 1000
SECONDS = 20
LONG_MS, SHORT_MS = 120, 20


class CountingDecoder:
    """A payload is as many milliseconds as its first byte says."""

    clock_hz = 48_000
    decoded_ms = 0

    def ticks(self, payload: bytes) -> int:
        return payload[0] * 48

    def decode(self, payload: bytes) -> FloatArray:
        self.decoded_ms += payload[0]
        return np.full(payload[0] * 24, 0.5, dtype=np.float32)

    def conceal(self, ticks: int, after: bytes | None) -> FloatArray:
        return audio.silence(ticks // 2)


def test_a_flood_of_long_packets_is_decoded_at_a_bounded_pace() -> None:
    """And one that behaves afterwards is heard whole, from its first packet on."""
    decoder = CountingDecoder()
    stream = InboundStream(0.0, PacketReceiver(lambda _: decoder))
    now, stamp = 0.0, 0
    for number in range(SECONDS * PACKETS_PER_S):
        now, stamp = number / PACKETS_PER_S, stamp + LONG_MS * 48
        stream.push("OPUS", 1, number % 2**16, stamp % 2**32, bytes([LONG_MS]), now)
    assert decoder.decoded_ms <= BURST_MS + MAX_PACE * 1000 * SECONDS
    late = stream.receiver.figures().late
    assert late > SECONDS * PACKETS_PER_S * 0.9

    decoder.decoded_ms = 0
    for number in range(100):
        now, stamp = now + SHORT_MS / 1000, stamp + SHORT_MS * 48
        stream.push("OPUS", 2, number, stamp % 2**32, bytes([SHORT_MS]), now)
    assert decoder.decoded_ms == 100 * SHORT_MS


def test_what_an_outage_has_kept_back_is_decoded() -> None:
    """Eight seconds of packets that come at once, and as many twice on a network that sends everything twice."""
    decoder = CountingDecoder()
    stream = InboundStream(0.0, PacketReceiver(lambda _: decoder))
    for number in range(400):
        stream.push("OPUS", 1, number, number * SHORT_MS * 48, bytes([SHORT_MS]), 8.0)
    for number in range(400, 900):
        for _ in range(2):
            at = 8.0 + (number - 400) * SHORT_MS / 1000
            stream.push("OPUS", 1, number, number * SHORT_MS * 48, bytes([SHORT_MS]), at)
    assert decoder.decoded_ms == 900 * SHORT_MS
    assert stream.receiver.figures().late == 0


def test_a_codec_for_each_packet_makes_a_bounded_number_of_decoders() -> None:
    made = 0

    def make(_: str) -> PacketDecoder:
        nonlocal made
        made += 1
        return CountingDecoder()

    stream = InboundStream(0.0, PacketReceiver(make))
    for number in range(SECONDS * PACKETS_PER_S):
        codec = ("OPUS", "G722")[number % 2]
        stream.push(codec, 1, number % 2**16, number * 48, bytes([1]), number / PACKETS_PER_S)
    assert 2 <= made <= (BURST_MS + MAX_PACE * 1000 * SECONDS) / 100
