"""The outbound encoder: one mono packet for each 20 ms, small enough to send, and the tone is still in it."""

from __future__ import annotations

from collections.abc import Callable

import av
import numpy as np
import pytest

from rtc_server import audio
from rtc_server.audio import PACKET_SAMPLES
from rtc_server.config import Settings
from rtc_server.media.opus import (
    DTX_BYTES,
    PACKET_TICKS,
    RTP_CLOCK_HZ,
    RTP_TIME_BASE,
    FallbackOpusEncoder,
    OpusEncoder,
    make_encoder,
)
from tests.support.signals import FloatArray, pitch_hz, sine

BITRATE = 32_000
STEREO_BIT = 0x04
"""RFC 6716, section 3.1: the s bit of the first byte."""


Make = Callable[[int], OpusEncoder]


@pytest.fixture(params=[make_encoder, FallbackOpusEncoder], ids=["libopus", "ffmpeg"])
def make(request: pytest.FixtureRequest) -> Make:
    """The encoder, and the one that a machine without libopus of its own has."""
    return request.param


def encode(pcm: FloatArray, bitrate: int = BITRATE, make: Make = make_encoder) -> list[bytes]:
    encoder = make(bitrate)
    return [encoder.encode(packet) for packet in pcm.reshape(-1, PACKET_SAMPLES)]


def decode(packets: list[bytes]) -> FloatArray:
    """What a browser hears: mono float32 at 48 kHz, whatever is inside."""
    decoder = av.CodecContext.create("libopus", "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.sample_rate = RTP_CLOCK_HZ
    decoder.layout = "mono"
    blocks = []
    for packet in packets:
        for frame in decoder.decode(av.Packet(packet)):
            assert frame.sample_rate == RTP_CLOCK_HZ
            samples = frame.to_ndarray().reshape(-1, frame.layout.nb_channels).mean(axis=1)
            blocks.append(samples / 32768 if frame.format.name.startswith("s16") else samples)
    return np.concatenate(blocks).astype(np.float32)


def test_one_packet_for_each_20_ms_from_the_first_on(make: Make) -> None:
    packets = encode(sine(100 * PACKET_SAMPLES), make=make)
    assert len(packets) == 100
    assert all(packets)
    assert decode(packets).size == pytest.approx(100 * PACKET_TICKS, abs=PACKET_TICKS)


def test_every_packet_holds_20_ms_of_mono(make: Make) -> None:
    """By the first byte (RFC 6716, section 3.1): no stereo bit, one frame in the packet, of 20 ms."""
    for packet in encode(sine(50 * PACKET_SAMPLES), make=make):
        assert not packet[0] & STEREO_BIT
        assert packet[0] & 0x03 == 0
        config = packet[0] >> 3
        # SILK and hybrid modes list 10, 20 (, 40, 60) ms; CELT 2.5, 5, 10, 20 ms.
        in_silk, in_hybrid, in_celt = config < 12, 12 <= config < 16, config >= 16
        assert (in_silk and config % 4 == 1) or (in_hybrid and config % 2 == 1) or (in_celt and config % 4 == 3)


@pytest.mark.parametrize("hz", [220.0, 440.0, 1000.0, 3000.0])
def test_a_tone_comes_back_at_its_pitch_and_level(make: Make, hz: float) -> None:
    heard = decode(encode(sine(100 * PACKET_SAMPLES, hz), make=make))[RTP_CLOCK_HZ // 2 :]
    assert pitch_hz(heard, RTP_CLOCK_HZ) == pytest.approx(hz, abs=2)
    assert audio.level_dbfs(heard) == pytest.approx(audio.level_dbfs(sine(24_000, hz)), abs=1.5)


@pytest.mark.parametrize("bitrate", [6_000, 16_000, 32_000, 64_000, 256_000])
def test_packets_keep_to_the_bit_rate_and_below_one_datagram(bitrate: int) -> None:
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, 200 * PACKET_SAMPLES).astype(np.float32)
    sizes = [len(packet) for packet in encode(noise, bitrate)]
    assert max(sizes) <= 1200
    assert sum(sizes) * 8 / (200 * 0.02) <= 1.3 * bitrate


def test_a_higher_bit_rate_is_used() -> None:
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, 100 * PACKET_SAMPLES).astype(np.float32)
    assert sum(map(len, encode(noise, 64_000))) > 2 * sum(map(len, encode(noise, 12_000)))


def test_the_complexity_is_the_encoders_own_and_the_settings() -> None:
    """The least and the most make other packets; without a word it is that of the settings' default."""
    pcm = (sine(50 * PACKET_SAMPLES) * np.linspace(0, 1, 50 * PACKET_SAMPLES)).astype(np.float32)
    made = [
        [encoder.encode(packet) for packet in pcm.reshape(-1, PACKET_SAMPLES)]
        for encoder in (make_encoder(BITRATE, 0), make_encoder(BITRATE, 10), make_encoder(BITRATE))
    ]
    assert made[0] != made[1]
    by_default = make_encoder(BITRATE, Settings().opus_complexity)
    assert made[2] == [by_default.encode(packet) for packet in pcm.reshape(-1, PACKET_SAMPLES)]


def test_silence_costs_next_to_nothing() -> None:
    sizes = [len(packet) for packet in encode(audio.silence(100 * PACKET_SAMPLES))]
    assert np.mean(sizes[50:]) <= 20


def test_a_silence_may_pause_only_where_it_is_told_to() -> None:
    """DTX: what is left says only that there is nothing to say."""
    encoder = make_encoder(BITRATE)
    silence = audio.silence(PACKET_SAMPLES)
    assert all(len(encoder.encode(silence)) > DTX_BYTES for _ in range(50))
    encoder.set_dtx(True)
    assert sum(len(encoder.encode(silence)) <= DTX_BYTES for _ in range(50)) > 30


def test_samples_over_full_scale_are_clipped_and_not_wrapped() -> None:
    """A wrapped sample would turn a loud tone into noise."""
    heard = decode(encode(np.clip(sine(50 * PACKET_SAMPLES, amplitude=3.0), -3, 3)))[RTP_CLOCK_HZ // 4 :]
    assert pitch_hz(heard, RTP_CLOCK_HZ) == pytest.approx(440, abs=2)


def test_encoders_do_not_share_what_they_remember() -> None:
    """Two calls at once, one loud and one silent."""
    loud, quiet = make_encoder(BITRATE), make_encoder(BITRATE)
    packets = []
    for packet in sine(50 * PACKET_SAMPLES).reshape(-1, PACKET_SAMPLES):
        loud.encode(packet)
        packets.append(quiet.encode(audio.silence(PACKET_SAMPLES)))
    assert packets == encode(audio.silence(50 * PACKET_SAMPLES))
    assert audio.level_dbfs(decode(packets)) < -80


def test_the_rtp_clock_is_that_of_rfc_7587() -> None:
    """48 kHz, whatever is inside: 960 ticks a packet."""
    assert (RTP_CLOCK_HZ, PACKET_TICKS) == (48_000, 960)
    assert 1 / RTP_TIME_BASE == 48_000
