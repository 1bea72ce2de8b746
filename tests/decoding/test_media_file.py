"""Any file becomes mono at 24 kHz, in pieces; what is none, or wants to open others, is refused."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from lab.inputs.files import encode, noise, quantised
from rtc_server.audio import MODEL_RATE_HZ
from rtc_server.decoding import container
from rtc_server.decoding.findings import Refused
from rtc_server.decoding.media_file import MediaFile
from tests.support.media_file import SECONDS, decoded, tone
from tests.support.signals import pitch_hz


@pytest.mark.parametrize(
    ("container", "codec", "rate_hz", "layout"),
    [
        ("wav", "pcm_s16le", 24_000, "mono"),
        ("wav", "pcm_s24le", 192_000, "stereo"),
        ("wav", "pcm_s16le", 48_000, "7.1"),
        ("wav", "pcm_u8", 11_025, "mono"),
        ("wav", "pcm_f32le", 8_000, "mono"),
        ("wav", "pcm_f64le", 44_100, "stereo"),
        ("wav", "pcm_mulaw", 8_000, "mono"),
        ("flac", "flac", 96_000, "stereo"),
        ("mp3", "libmp3lame", 44_100, "stereo"),
        ("ogg", "libopus", 48_000, "stereo"),
        ("webm", "libopus", 48_000, "mono"),
        ("adts", "aac", 44_100, "mono"),
        ("mp4", "aac", 48_000, "5.1"),
        ("mp4", "aac", 48_000, "7.1"),
        ("ogg", "libopus", 48_000, "7.1"),
        ("wav", "pcm_s16le", 16_000, "20 channels"),
        ("mpegts", "aac", 48_000, "stereo"),
        ("aiff", "pcm_s16be", 22_050, "stereo"),
    ],
)
def test_a_tone_is_the_same_tone(container: str, codec: str, rate_hz: int, layout: str) -> None:
    """At its pitch, as loud, and as long, whatever carried it."""
    data = encode(tone(rate_hz), container, codec, rate_hz, layout)
    file = MediaFile(io.BytesIO(data))
    assert file.duration_s == pytest.approx(SECONDS, abs=0.06)
    pcm = np.concatenate(list(file.blocks()))
    assert pcm.dtype == np.float32
    assert pcm.size == pytest.approx(SECONDS * MODEL_RATE_HZ, abs=0.06 * MODEL_RATE_HZ)
    middle = pcm[4800:-4800]
    assert pitch_hz(middle) == pytest.approx(440, abs=MODEL_RATE_HZ / middle.size)
    assert np.abs(middle).max() == pytest.approx(0.25, rel=0.1)


def test_at_24_khz_nothing_is_changed() -> None:
    pcm = noise(2.5)
    np.testing.assert_array_equal(decoded(encode(pcm)), quantised(pcm))


def test_the_audio_of_a_video_is_found_and_no_picture_decoded() -> None:
    data = encode(tone(48_000), "mp4", "aac", 48_000, picture=True)
    with av.open(io.BytesIO(data)) as opened:
        assert [stream.type for stream in opened.streams] == ["video", "audio"]
    assert pitch_hz(decoded(data)[4800:-4800]) == pytest.approx(440, abs=1)
    assert "mpeg4" not in container.audio_decoders().split(",")
    assert "aac" in container.audio_decoders().split(",")


@pytest.mark.parametrize("layout", ["stereo", "5.1", "7.1", "8 channels"])
def test_every_channel_is_heard_and_all_together_do_not_clip(layout: str) -> None:
    """One microphone may be anywhere in a meeting's recording."""
    channels = av.AudioLayout(layout).nb_channels
    for loud in range(channels):
        rows = np.zeros((channels, MODEL_RATE_HZ))
        rows[loud] = tone(MODEL_RATE_HZ, 1.0)
        heard = np.abs(decoded(encode(rows, layout=layout))).max()
        assert 0.25 / channels * 0.7 < heard <= 0.26
    full = np.ones((channels, MODEL_RATE_HZ)) * 0.9
    assert decoded(encode(full, layout=layout)).max() == pytest.approx(0.9, abs=1e-3)


def test_who_speaks_in_the_centre_is_louder_than_who_is_behind() -> None:
    rows = np.zeros((6, MODEL_RATE_HZ))
    rows[2] = 0.5
    centre = decoded(encode(rows, layout="5.1"))[1000]
    assert centre == pytest.approx(2 * decoded(encode(np.roll(rows, 2, axis=0), layout="5.1"))[1000], rel=1e-3)


def test_what_is_no_number_is_silence_and_what_is_too_loud_is_clipped() -> None:
    pcm = tone(MODEL_RATE_HZ)
    pcm[100:200] = np.nan
    pcm[300:400] = np.inf
    pcm[500:600] = -7.0
    heard = decoded(encode(pcm, codec="pcm_f32le"))
    assert np.isfinite(heard).all()
    assert not heard[100:200].any()
    assert heard[300:400].min() == 1.0
    assert heard[500:600].max() == -1.0


@pytest.mark.parametrize(
    ("container", "codec", "rate_hz"),
    [("wav", "pcm_s16le", 24_000), ("mp3", "libmp3lame", 44_100), ("ogg", "libopus", 48_000), ("flac", "flac", 48_000)],
)
def test_a_file_that_breaks_off_is_heard_as_far_as_it_goes(container: str, codec: str, rate_hz: int) -> None:
    data = encode(noise(4, rate_hz=rate_hz), container, codec, rate_hz)
    # A page of Ogg holds a second, and is whole or is not there.
    assert 0.9 < decoded(data[: len(data) // 2]).size / MODEL_RATE_HZ < 2.6


def test_a_hole_in_the_middle_costs_what_is_in_it() -> None:
    data = bytearray(encode(noise(4, rate_hz=44_100), "mp3", "libmp3lame", 44_100))
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    assert decoded(bytes(data)).size / MODEL_RATE_HZ > 3.5


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"hello there, how are you today?\n" * 200,
        bytes(100_000),
        np.random.default_rng(0).bytes(100_000),
        b"RIFF\xff\xff\xff\xffWAVEfmt ",
        b"\x89PNG\r\n\x1a\n" + bytes(1000),
        encode(np.zeros(0)),
    ],
    ids=["empty", "a byte", "text", "zeros", "noise", "half a header", "a picture", "a header alone"],
)
def test_what_holds_no_audio_is_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        decoded(data)


def test_a_video_without_sound_is_refused() -> None:
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=25, width=64, height=64, pix_fmt="yuv420p")
        output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        output.mux(stream.encode(None))
    with pytest.raises(Refused):
        decoded(target.getvalue())


@pytest.mark.parametrize(("rate_hz", "channels"), [(1, 1), (4_000_000_000, 1), (8000, 65_000)])
def test_a_header_that_cannot_be_true_is_refused(rate_hz: int, channels: int) -> None:
    """One byte a second would be days of audio in a megabyte."""
    data = bytearray(encode(tone(8000), codec="pcm_u8", rate_hz=8000))
    data[22:24] = channels.to_bytes(2, "little")
    data[24:28] = rate_hz.to_bytes(4, "little")
    data[32:34] = channels.to_bytes(2, "little")
    with pytest.raises(Refused):
        decoded(bytes(data))
