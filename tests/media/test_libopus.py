"""The binding to libopus: what is encoded is decoded, what is lost is recovered or concealed, garbage is refused."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.audio import FloatArray
from rtc_server.media import libopus

RATE_HZ = 24_000
PACKET = 480


def tone(packets: int, hz: float = 300.0) -> FloatArray:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(packets * PACKET) / RATE_HZ)).astype(np.float32)


def voice(packets: int) -> FloatArray:
    """A buzz with formants that come and go: what SILK takes for speech, and protects."""
    t = np.arange(packets * PACKET) / RATE_HZ
    pitch = 120 + 20 * np.sin(2 * np.pi * 2 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE_HZ
    buzz = sum(np.sin(k * phase) / k for k in range(1, 20))
    return (0.15 * buzz * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t))).astype(np.float32)


def encode(pcm: FloatArray, loss_percent: int = 0) -> list[bytes]:
    encoder = libopus.Encoder(RATE_HZ, 32_000)
    encoder.set_expected_loss(loss_percent)
    return [encoder.encode(block) for block in pcm.reshape(-1, PACKET)]


def likeness(a: FloatArray, b: FloatArray) -> float:
    """Normalised correlation at the best lag of up to 20 ms."""
    lags = range(0, PACKET)
    return max(float(np.corrcoef(a[: a.size - lag], b[lag:])[0, 1]) for lag in lags if a.size - lag > 100)


def test_a_voice_comes_back() -> None:
    pcm = voice(50)
    decoder = libopus.Decoder(RATE_HZ)
    heard = np.concatenate([decoder.decode(packet) for packet in encode(pcm)])
    assert heard.size == pcm.size
    assert likeness(pcm[4800:9600], heard[4800:9600]) > 0.7


def test_a_packet_says_how_long_it_is() -> None:
    packet = encode(tone(1))[0]
    assert libopus.packet_samples(packet, 48_000) == 960
    assert libopus.packet_samples(packet, RATE_HZ) == PACKET
    assert libopus.packet_samples(b"", 48_000) == 0


def test_calls_keep_the_interpreter() -> None:
    """To give it away, and wait until another thread gives it back, would be dearer than the call."""
    assert isinstance(libopus.library(), ctypes.PyDLL)


def test_an_encoder_takes_samples_as_they_lie() -> None:
    """A part of an array, every second sample, wider floats: the packets are the same."""
    pcm = voice(10)
    strided = np.repeat(pcm.astype(np.float64), 2)[::2]
    assert encode(pcm) == encode(strided)  # type: ignore[arg-type]


@pytest.mark.parametrize("samples", [0, 1, 481, RATE_HZ * libopus.MAX_PACKET_MS // 1000 + 1])
def test_an_encoder_refuses_what_is_no_frame(samples: int) -> None:
    encoder = libopus.Encoder(RATE_HZ, 32_000)
    with pytest.raises(libopus.OpusError):
        encoder.encode(np.zeros(samples, dtype=np.float32))
    assert encoder.encode(tone(1))


def test_a_lost_packet_is_recovered_from_the_one_behind_it() -> None:
    """With error correction the lost 20 ms are nearer to what was said than what concealment makes up."""
    pcm = voice(60)
    packets = encode(pcm, loss_percent=20)
    whole = libopus.Decoder(RATE_HZ)
    heard = [whole.decode(packet) for packet in packets]

    def error(lost: int, recover: bool) -> float:
        decoder = libopus.Decoder(RATE_HZ)
        for packet in packets[:lost]:
            decoder.decode(packet)
        made = decoder.recover(packets[lost + 1], PACKET) if recover else decoder.conceal(PACKET)
        assert made.size == PACKET
        return float(np.mean((made - heard[lost]) ** 2))

    lost = range(20, 50, 3)
    recovered, concealed = ([error(number, way) for number in lost] for way in (True, False))
    assert np.median(recovered) < 0.7 * np.median(concealed)


def test_concealment_fades_out() -> None:
    decoder = libopus.Decoder(RATE_HZ)
    for packet in encode(voice(20)):
        decoder.decode(packet)
    made = [float(np.abs(decoder.conceal(PACKET)).max()) for _ in range(40)]
    assert made[0] > 0.02
    assert made[-1] < made[0] / 10


def test_silence_with_dtx_makes_packets_that_need_not_be_sent() -> None:
    encoder = libopus.Encoder(RATE_HZ, 32_000)
    encoder.set_dtx(True)
    sizes = [len(encoder.encode(np.zeros(PACKET, dtype=np.float32))) for _ in range(100)]
    assert sum(size <= 2 for size in sizes) > 70


def test_a_lower_bitrate_makes_smaller_packets() -> None:
    pcm = voice(50).reshape(-1, PACKET)
    encoder = libopus.Encoder(RATE_HZ, 48_000)
    high = sum(len(encoder.encode(block)) for block in pcm)
    encoder.set_bitrate(12_000)
    low = sum(len(encoder.encode(block)) for block in pcm)
    assert low < high / 2


@pytest.mark.parametrize("garbage", [b"", b"\xff" * 50, b"\x03\xff", b"\x03"])
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(libopus.OpusError):
        libopus.Decoder(RATE_HZ).decode(garbage)


@given(st.binary(min_size=1, max_size=400))
def test_no_bytes_break_a_decoder(payload: bytes) -> None:
    decoder = libopus.Decoder(RATE_HZ)
    try:
        heard = decoder.decode(payload)
    except libopus.OpusError:
        return
    assert heard.size <= RATE_HZ * libopus.MAX_PACKET_MS // 1000
    assert np.isfinite(heard).all()


def test_more_than_a_packet_is_concealed_but_not_recovered() -> None:
    """libopus writes as many samples as it is asked for, wherever its buffer ends."""
    decoder = libopus.Decoder(RATE_HZ)
    packet = encode(voice(2))[1]
    assert decoder.conceal(RATE_HZ).size == RATE_HZ
    with pytest.raises(libopus.OpusError):
        decoder.recover(packet, RATE_HZ)


def test_a_frame_of_a_wrong_size_is_refused() -> None:
    with pytest.raises(libopus.OpusError):
        libopus.Encoder(RATE_HZ, 32_000).encode(np.zeros(481, dtype=np.float32))
