"""Decoders of RTP audio: each codec's packets and gaps become mono at 24 kHz, and no packet makes them raise."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server import audio
from rtc_server.audio import FloatArray
from rtc_server.media import libopus
from rtc_server.media.codecs import (
    FallbackOpusDecoder,
    OpusDecoder,
    PacketDecoder,
    StreamRenderer,
    make_decoder,
    opus_ticks,
)
from rtc_server.media.g711 import ALAW, ULAW, Companding
from rtc_server.media.jitter import Audio, Gap

TONE_HZ = 440.0


def tone(rate_hz: int, seconds: float) -> FloatArray:
    return (0.3 * np.sin(2 * np.pi * TONE_HZ * np.arange(round(rate_hz * seconds)) / rate_hz)).astype(np.float32)


def packets(codec: str, packet_ms: int = 20) -> list[bytes]:
    """A second of a tone."""
    if codec == "OPUS":
        opus = libopus.Encoder(audio.MODEL_RATE_HZ, 32_000)
        size = audio.ms_to_samples(packet_ms)
        return [opus.encode(block) for block in tone(audio.MODEL_RATE_HZ, 1.2).reshape(-1, size)[: 1000 // packet_ms]]
    name, rate_hz = {"PCMU": ("pcm_mulaw", 8000), "PCMA": ("pcm_alaw", 8000), "G722": ("g722", 16_000)}[codec]
    encoder: Any = av.CodecContext.create(name, "w")
    encoder.sample_rate, encoder.layout, encoder.format = rate_hz, "mono", "s16"
    frame = av.AudioFrame.from_ndarray(audio.to_int16(tone(rate_hz, 1.0))[None, :], format="s16", layout="mono")
    frame.sample_rate = rate_hz
    encoded = b"".join(bytes(packet) for packet in encoder.encode(frame))
    size = 8 * packet_ms
    return [encoded[start : start + size] for start in range(0, len(encoded) - size + 1, size)]


def stereo_packets(turned_over: bool, seconds: float = 1.2) -> list[bytes]:
    """A tone in both channels, in one of them turned over or not."""
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format, encoder.bit_rate = 48_000, "stereo", "flt", 64_000
    left = tone(48_000, seconds)
    rows = np.stack((left, -left if turned_over else left), axis=1).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(rows), format="flt", layout="stereo")
    frame.sample_rate = 48_000
    fifo = av.AudioFifo()
    fifo.write(frame)
    made = [packet for block in fifo.read_many(960) for packet in encoder.encode(block)]
    return [bytes(packet) for packet in (*made, *encoder.encode(None))]


def peak_hz(pcm: FloatArray) -> float:
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(pcm.size)))
    return float(spectrum.argmax() * audio.MODEL_RATE_HZ / pcm.size)


@pytest.mark.parametrize("packet_ms", [10, 20, 40, 60])
@pytest.mark.parametrize("codec", ["OPUS", "PCMU", "PCMA", "G722"])
def test_a_tone_is_the_same_tone_in_every_codec_and_packet_length(codec: str, packet_ms: int) -> None:
    decoder = make_decoder(codec)
    sent = packets(codec, packet_ms)
    ticks = sum(decoder.ticks(packet) for packet in sent)
    assert ticks / decoder.clock_hz == pytest.approx(len(sent) * packet_ms / 1000)
    heard = np.concatenate([pcm for packet in sent if (pcm := decoder.decode(packet)) is not None])
    assert heard.dtype == np.float32
    assert heard.size == pytest.approx(audio.MODEL_RATE_HZ * ticks / decoder.clock_hz, abs=audio.ms_to_samples(45))
    assert peak_hz(heard[2400:]) == pytest.approx(TONE_HZ, abs=3)
    assert audio.level_dbfs(heard[2400:]) == pytest.approx(audio.level_dbfs(tone(24_000, 1.0)), abs=1.5)


def test_stereo_opus_is_heard_as_mono() -> None:
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 48_000, "stereo", "s16"
    both = np.repeat(audio.to_int16(tone(48_000, 1.0)), 2)[None, :]
    decoder = make_decoder("OPUS")
    heard: list[Any] = []
    for start in range(0, both.shape[1] - 1920, 1920):
        frame = av.AudioFrame.from_ndarray(both[:, start : start + 1920].copy(), format="s16", layout="stereo")
        frame.sample_rate, frame.pts = 48_000, start // 2
        heard += [decoder.decode(bytes(packet)) for packet in encoder.encode(frame)]
    assert peak_hz(np.concatenate(heard)[4800:]) == pytest.approx(TONE_HZ, abs=3)


def test_the_g711_tables_are_those_of_ffmpeg() -> None:
    for name, law in (("pcm_mulaw", ULAW), ("pcm_alaw", ALAW)):
        codec: Any = av.CodecContext.create(name, "r")
        codec.sample_rate, codec.layout = 8000, "mono"
        (frame,) = codec.decode(av.Packet(bytes(range(256))))
        assert np.array_equal(frame.to_ndarray().reshape(-1) / 32768, law.decode(bytes(range(256))))


@pytest.mark.parametrize("law", [ULAW, ALAW], ids=["ulaw", "alaw"])
def test_a_code_word_of_g711_comes_back_as_itself(law: Companding) -> None:
    """But for the two zeros of µ-law, which sound alike."""
    words = bytes(range(256))
    assert np.array_equal(law.decode(law.encode(law.decode(words))), law.decode(words))


@pytest.mark.parametrize("law", [ULAW, ALAW], ids=["ulaw", "alaw"])
@given(st.floats(min_value=-2, max_value=2, width=32))
def test_a_sample_gets_the_nearest_code_word_of_g711(law: Companding, sample: float) -> None:
    (got,) = law.decode(law.encode(np.array([sample], dtype=np.float32)))
    nearest = np.abs(law.levels - np.clip(sample, -1, 1)).min()
    assert abs(got - np.clip(sample, -1, 1)) <= nearest + 2**-14


@given(st.binary(max_size=80))
def test_the_length_of_an_opus_packet_is_read_as_libopus_reads_it(payload: bytes) -> None:
    assert opus_ticks(payload) == libopus.packet_samples(payload, 48_000)


@pytest.mark.parametrize("make", [OpusDecoder, FallbackOpusDecoder])
def test_with_and_without_libopus_opus_is_heard(make: type[PacketDecoder]) -> None:
    decoder = make()
    heard = np.concatenate([pcm for packet in packets("OPUS") if (pcm := decoder.decode(packet)) is not None])
    assert peak_hz(heard[2400:]) == pytest.approx(TONE_HZ, abs=3)
    assert decoder.conceal(960, None).size == 480


@pytest.mark.parametrize("codec", ["OPUS", "PCMU", "PCMA", "G722"])
@pytest.mark.parametrize("ticks", [1, 119, 160, 960, 2880, 12_000])
def test_a_gap_of_any_length_is_filled_exactly(codec: str, ticks: int) -> None:
    decoder = make_decoder(codec)
    sent = packets(codec)
    for packet in sent[:5]:
        decoder.decode(packet)
    for after in (None, sent[6], b"\xff" * 30):
        made = decoder.conceal(ticks, after)
        assert made.size == ticks * audio.MODEL_RATE_HZ // decoder.clock_hz
        assert np.isfinite(made).all()


@pytest.mark.parametrize("codec", ["PCMU", "PCMA", "G722"])
def test_what_cannot_be_concealed_is_repeated_ever_more_quietly(codec: str) -> None:
    decoder = make_decoder(codec)
    for packet in packets(codec)[:10]:
        decoder.decode(packet)
    levels = [audio.level_dbfs(decoder.conceal(160, None)) for _ in range(10)]
    assert levels[0] > -30
    assert all(later < earlier - 3 for earlier, later in pairwise(levels))


@pytest.mark.parametrize("codec", ["OPUS", "PCMU", "PCMA", "G722"])
@given(payloads=st.lists(st.binary(max_size=300), max_size=20))
def test_no_packet_makes_a_decoder_raise(codec: str, payloads: list[bytes]) -> None:
    """And a good stream after it is heard."""
    decoder = make_decoder(codec)
    renderer = StreamRenderer(decoder)
    for payload in payloads:
        if decoder.ticks(payload):
            renderer.render(Audio(payload))
        renderer.render(Gap(160, after=payload))
    heard = np.concatenate([renderer.render(Audio(packet)) for packet in packets(codec)])
    assert peak_hz(heard[4800:]) == pytest.approx(TONE_HZ, abs=3)


def test_a_crafted_opus_packet_is_not_louder_than_full_scale() -> None:
    """libopus makes each turn of this one louder than the last, up to 700,000 times full scale."""
    renderer = StreamRenderer(OpusDecoder())
    for _ in range(50):
        assert np.abs(renderer.render(Audio(b"\x80abc"))).max() <= 1
    assert np.abs(renderer.render(Gap(960))).max() <= 1
    heard = [renderer.render(Audio(packet)) for packet in packets("OPUS")]
    assert peak_hz(np.concatenate(heard[2:])) == pytest.approx(TONE_HZ, abs=5)
    assert renderer.undecodable == 0


@pytest.mark.parametrize("decoder", [OpusDecoder(), FallbackOpusDecoder()], ids=["libopus", "FFmpeg"])
@pytest.mark.parametrize("turned_over", [False, True])
def test_a_voice_turned_over_in_one_channel_is_heard(decoder: PacketDecoder, turned_over: bool) -> None:
    """libopus makes mono of it before it decodes, and there nothing is left."""
    heard = rendered(decoder, stereo_packets(turned_over))[4800:-4800]
    assert peak_hz(heard) == pytest.approx(TONE_HZ, abs=2)
    assert audio.level_dbfs(heard) == pytest.approx(audio.level_dbfs(tone(48_000, 1.0)), abs=1.5)


def test_a_stream_that_becomes_stereo_goes_on_without_a_hole() -> None:
    """As encoders do when there are bits enough, and back."""
    mono, stereo = packets("OPUS")[:20], stereo_packets(turned_over=True)[:20]
    heard = rendered(OpusDecoder(), mono + stereo + mono)
    assert heard.size == 60 * audio.PACKET_SAMPLES
    loud = heard[4800:].reshape(-1, audio.PACKET_SAMPLES)
    assert min(audio.level_dbfs(block) for block in loud) > -16


def test_stereo_is_concealed_as_mono_is() -> None:
    decoder = OpusDecoder()
    made = stereo_packets(turned_over=True)
    rendered(decoder, made[:20])
    filled = decoder.conceal(960, after=None)
    assert filled.size == audio.PACKET_SAMPLES
    assert audio.level_dbfs(filled) > -20
    assert decoder.conceal(960, after=made[22]).size == audio.PACKET_SAMPLES


def rendered(decoder: PacketDecoder, made: list[bytes]) -> FloatArray:
    renderer = StreamRenderer(decoder)
    return np.concatenate([renderer.render(Audio(payload)) for payload in made])
