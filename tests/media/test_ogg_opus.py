"""An Ogg/Opus stream is heard as its makers' own reader hears it; what is none is an error, and costs little."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest
import sphn

from lab.inputs.files import encode
from lab.inputs.ogg import FIRST, HEAD, headers, mended, ogg_opus, page
from rtc_server import audio
from rtc_server.audio import FloatArray
from rtc_server.errors import BadMessage
from rtc_server.media.ogg_opus import OggOpusReader, OggOpusWriter
from tests.support.signals import pitch_hz, sine

TONE = sine(25 * audio.FRAME_SAMPLES)
SPHN_SERIAL = 42
STILL_60_MS = b"\xfb\x03"
"""RFC 6716, section 3.2.5: three frames of 20 ms in which there is nothing."""


def read(data: bytes, step: int) -> FloatArray:
    reader = OggOpusReader()
    blocks = [pcm for at in range(0, len(data), step) for pcm in reader.read(data[at : at + step])]
    return np.concatenate(blocks) if blocks else audio.silence(0)


@pytest.mark.parametrize("step", [1, 7, 100, 100_000])
def test_it_is_heard_as_by_the_makers_of_the_protocol(step: int) -> None:
    data = ogg_opus(TONE)
    heard = read(data, step)
    np.testing.assert_allclose(heard, sphn.OpusStreamReader(audio.MODEL_RATE_HZ).append_bytes(data), atol=1e-5)
    assert heard.size == TONE.size
    assert audio.level_dbfs(heard) == pytest.approx(audio.level_dbfs(TONE), abs=1)


@pytest.mark.parametrize("channels", [0, 1, 2, 8, 255])
def test_however_many_channels_there_are_one_is_heard(channels: int) -> None:
    head = HEAD[:9] + bytes([channels]) + HEAD[10:]
    whole = ogg_opus(TONE)
    data = page([head], FIRST, SPHN_SERIAL) + whole[len(page([HEAD])) :]
    assert read(data, 1000).size == TONE.size


@pytest.mark.parametrize("packet", [b"", b"\xff" * 3, b"\xfb\x00", b"\xfb\x3f", b"\xfb"])
def test_what_is_no_opus_packet(packet: bytes) -> None:
    with pytest.raises(BadMessage):
        read(headers() + page([packet]), 10_000)


def test_a_stream_that_has_no_header_is_not_heard() -> None:
    assert read(page([STILL_60_MS]), 10_000).size == 0


def test_a_page_full_of_nothing_costs_little() -> None:
    """564 bytes, 15 s."""
    started = time.process_time()
    reader = OggOpusReader()
    blocks = list(reader.read(headers() + page([STILL_60_MS] * 255)))
    assert sum(pcm.size for pcm in blocks) == 255 * 60 * 24
    assert max(pcm.size for pcm in blocks) == 60 * 24
    assert time.process_time() - started < 0.5


def test_a_stream_with_wounds_is_heard_or_an_error() -> None:
    whole, rng = ogg_opus(TONE), random.Random(1)
    outcomes = set()
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 10)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        del data[: rng.choice([0, 0, 0, 50])]
        try:
            heard = read(bytes(data), rng.choice([1, 100, 10_000]))
        except BadMessage:
            outcomes.add("error")
        else:
            assert np.isfinite(heard).all()
            outcomes.add("heard")
    assert outcomes == {"error", "heard"}


def test_a_voice_turned_over_in_one_channel_is_heard() -> None:
    left = sine(48_000, 440.0, 48_000, amplitude=0.25)
    heard = read(encode(np.stack((left, -left)), "ogg", "libopus", 48_000, "stereo"), 1000)
    assert audio.level_dbfs(heard[4800:-4800]) == pytest.approx(audio.level_dbfs(left), abs=1)


def test_a_stream_of_headers_has_an_end() -> None:
    with pytest.raises(BadMessage):
        read(page([HEAD], FIRST) * 2000, 100_000)


def test_what_is_written_is_read_by_others() -> None:
    """With checksums: sphn's reader looks at them."""
    writer, rate_hz = OggOpusWriter(32_000), audio.MODEL_RATE_HZ
    pcm = (0.3 * np.sin(2 * np.pi * 440 * np.arange(25 * audio.FRAME_SAMPLES) / rate_hz)).astype(np.float32)
    data = writer.headers() + b"".join(writer.encode(frame) for frame in pcm.reshape(-1, audio.FRAME_SAMPLES))
    assert mended(data) == data
    heard = sphn.OpusStreamReader(rate_hz).append_bytes(data)
    assert heard.size == pcm.size
    assert pitch_hz(heard[rate_hz // 2 :]) == pytest.approx(440, abs=2)
