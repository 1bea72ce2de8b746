"""Telephone audio on its way to the model: 8 kHz in packets of 20 ms becomes 24 kHz in frames of 80 ms, and no edge of
either can be heard."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray
from rtc_server.media.g711 import ALAW, ULAW
from rtc_server.media.inbound import InboundStream

TELEPHONE_HZ = 8_000
PACKET = TELEPHONE_HZ // 50
TONE_HZ = 1003.7
"""Of no simple ratio to the sample rate: what quantisation adds is noise, and falls on no line of the spectrum."""
AMPLITUDE = 0.5
FRAMES = 1000


def companded(pcm: FloatArray, codec: str) -> bytes:
    """ITU-T G.711, from its definition: a logarithm, eight bits."""
    import av

    encoder: Any = av.CodecContext.create({"PCMU": "pcm_mulaw", "PCMA": "pcm_alaw"}[codec], "w")
    encoder.sample_rate, encoder.layout, encoder.format = TELEPHONE_HZ, "mono", "s16"
    frame = av.AudioFrame.from_ndarray((pcm * 32767).astype(np.int16)[None, :], format="s16", layout="mono")
    frame.sample_rate = TELEPHONE_HZ
    return b"".join(bytes(packet) for packet in encoder.encode(frame))


def sine() -> FloatArray:
    samples = FRAMES * FRAME_SAMPLES * TELEPHONE_HZ // MODEL_RATE_HZ
    return (AMPLITUDE * np.sin(2 * np.pi * TONE_HZ * np.arange(samples) / TELEPHONE_HZ)).astype(np.float32)


def through(codec: str) -> FloatArray:
    """A tone of ``FRAMES`` frames as the model gets it."""
    raw = companded(sine(), codec)
    stream, frames = InboundStream(0.0), []
    for number in range(len(raw) // PACKET):
        payload = raw[number * PACKET : (number + 1) * PACKET]
        frames += stream.push(codec, 1, number % 65536, number * PACKET, payload, 0.02 * number)
    return np.concatenate(frames)


def worst_line_db(pcm: FloatArray, rate_hz: int) -> float:
    """The loudest line at a multiple of 12.5 Hz (frames; 50 Hz, packets, is one of them), or at such a distance from
    the tone, relative to the tone."""
    pcm = pcm[rate_hz : rate_hz * (FRAMES * 2 // 25 - 1)]
    spectrum = np.abs(np.fft.rfft(pcm * np.blackman(pcm.size)))
    bin_hz = rate_hz / pcm.size

    def level_db(hz: float) -> float:
        middle = round(abs(hz) / bin_hz)
        return float(20 * np.log10(spectrum[max(0, middle - 3) : middle + 4].max() + 1e-12))

    lines = [TONE_HZ + sign * 12.5 * n for n in range(1, 200) for sign in (1, -1)] + [12.5 * n for n in range(1, 300)]
    return max(level_db(hz) for hz in lines if 5 < abs(hz) < 3900 and abs(hz - TONE_HZ) > 5) - level_db(TONE_HZ)


@pytest.mark.parametrize("codec", ["PCMU", "PCMA"])
def test_no_edge_of_a_packet_or_a_frame_is_heard(codec: str) -> None:
    """Nothing within 60 dB of the tone, but what the eight bits themselves have put there."""
    raw = np.frombuffer(companded(sine(), codec), dtype=np.uint8)
    of_the_codec = worst_line_db({"PCMU": ULAW, "PCMA": ALAW}[codec].decode(raw.tobytes()), TELEPHONE_HZ)
    assert worst_line_db(through(codec), MODEL_RATE_HZ) < max(-60.0, of_the_codec + 1.0)
    assert of_the_codec < -50


@pytest.mark.parametrize("codec", ["PCMU", "PCMA"])
def test_a_sine_survives_a_thousand_frames_without_a_step_of_its_phase(codec: str) -> None:
    pcm = through(codec)
    blocks = pcm[10 * FRAME_SAMPLES : pcm.size - pcm.size % FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    turn = np.exp(-2j * np.pi * TONE_HZ * np.arange(blocks.size) / MODEL_RATE_HZ).reshape(blocks.shape)
    phases = np.unwrap(np.angle((blocks * turn).sum(axis=1)))
    assert len(phases) > 950
    assert np.abs(np.diff(phases)).max() < 0.01
    assert abs(phases[-1] - phases[0]) < 0.01
    levels = np.sqrt((blocks**2).mean(axis=1)) * np.sqrt(2) / AMPLITUDE
    assert levels == pytest.approx(np.ones(len(levels)), abs=0.02)
