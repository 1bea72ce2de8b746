"""All that is in a media file is heard, and what was not is told: recordings in a row, tracks, channels."""

from __future__ import annotations

import io

import numpy as np
import pytest

from lab.inputs.files import encode, encode_late_audio, encode_tracks, id3, noise
from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from rtc_server.decoding.findings import Notice, Refusal, Refused
from rtc_server.decoding.media_file import MediaFile
from tests.support.media_file import SECONDS, decoded, tone
from tests.support.signals import pitch_hz, sine


def spectrum(pcm: FloatArray) -> list[int]:
    """The two loudest pitches, to the nearest 20 Hz."""
    level = np.abs(np.fft.rfft(pcm * np.hanning(pcm.size)))
    hz = np.fft.rfftfreq(pcm.size, 1 / MODEL_RATE_HZ)
    first = hz[level.argmax()]
    level[np.abs(hz - first) < 100] = 0
    return sorted(round(float(each) / 20) * 20 for each in (first, hz[level.argmax()]))


def told(data: bytes) -> set[Notice]:
    file = MediaFile(io.BytesIO(data))
    list(file.blocks())
    return file.notices


def why(data: bytes) -> Refusal:
    with pytest.raises(Refused) as caught:
        decoded(data)
    return caught.value.refusal


M4A = encode(tone(48_000), "mp4", "aac", 48_000)


OPUS = encode(tone(48_000), "ogg", "libopus", 48_000)


OGG_FLAC = encode(sine(round(SECONDS * 44_100), 880.0, 44_100, amplitude=0.25), "ogg", "flac", 44_100)


MP3 = encode(tone(44_100), "mp3", "libmp3lame", 44_100)
ADTS = encode(tone(44_100), "adts", "aac", 44_100)
FLAC = encode(tone(48_000), "flac", "flac", 48_000)
WEBM = encode(tone(48_000), "webm", "libopus", 48_000)
SELDOM = [
    *(("caf", "pcm_s16le"), ("w64", "pcm_s16le"), ("au", "pcm_s16be"), ("wv", "wavpack"), ("tta", "tta")),
    ("voc", "pcm_u8"),
]


@pytest.mark.parametrize(
    "data",
    [
        *(M4A + M4A, OPUS + OGG_FLAC, OGG_FLAC + OPUS, encode(tone(24_000)) * 2, encode(tone(24_000)) + MP3, MP3 + MP3),
        *(FLAC + FLAC, FLAC + M4A, FLAC + MP3, MP3 + M4A, ADTS + OPUS, ADTS + ADTS, WEBM + M4A, WEBM + ADTS),
        *(encode(tone(24_000), container, codec) * 2 for container, codec in SELDOM),
        (id3(1_500_000) + ADTS) * 2,
        encode(tone(44_100), "avi", "libmp3lame", 44_100) * 2,
    ],
    ids=[
        *("m4a, m4a", "Opus, FLAC", "FLAC, Opus", "WAV, WAV", "WAV, MP3", "MP3, MP3"),
        *("flac, flac", "flac, m4a", "flac, mp3", "mp3, m4a", "aac, Opus", "aac, aac", "webm, m4a", "webm, aac"),
        *(f"{container} twice" for container, _ in SELDOM),
        "tags of megabytes",
        "avi twice",
    ],
)
def test_recordings_in_a_row_are_all_heard(data: bytes) -> None:
    assert decoded(data).size == pytest.approx(2 * SECONDS * MODEL_RATE_HZ, abs=0.15 * MODEL_RATE_HZ)
    assert not told(data)


def test_what_is_left_over_is_told() -> None:
    data = M4A + np.random.default_rng(0).bytes(10_000)
    assert decoded(data).size == decoded(M4A).size
    assert told(data) == {Notice.LEFT_OVER}
    assert not told(M4A + bytes(10_000)), "padding is nothing"
    assert told(FLAC + ADTS) == told(FLAC + np.random.default_rng(0).bytes(20_000)) == {Notice.LEFT_OVER}


@pytest.mark.parametrize(
    "data",
    [
        encode(noise(4))[:-50_000],
        encode(noise(4, rate_hz=48_000), "flac", "flac", 48_000)[:-90_000],
        encode(noise(4, rate_hz=48_000), "ogg", "libopus", 48_000)[:-15_000],
        encode(noise(4, rate_hz=48_000), "webm", "libopus", 48_000)[:-20_000],
        encode(noise(4, rate_hz=44_100), "mp3", "libmp3lame", 44_100)[:-20_000],
        encode(noise(4, rate_hz=44_100), "flv", "aac", 44_100)[:-20_000],
    ],
    ids=["wav", "flac", "ogg", "webm", "mp3", "flv"],
)
def test_a_file_that_breaks_off_says_so(data: bytes) -> None:
    assert 0.9 < decoded(data).size / MODEL_RATE_HZ < 3.9
    assert told(data) == {Notice.CUT_OFF}


@pytest.mark.parametrize("container", ["wav", "flac", "ogg", "webm", "mp4", "mp3", "adts", "mpegts", "flv", "aiff"])
def test_a_whole_file_says_nothing(container: str) -> None:
    codecs = {"wav": "pcm_s16le", "flac": "flac", "ogg": "libopus", "webm": "libopus", "mp3": "libmp3lame"}
    codec = codecs.get(container, "pcm_s16be" if container == "aiff" else "aac")
    rate_hz = 48_000 if codec == "libopus" else 44_100
    assert not told(encode(noise(3, rate_hz=rate_hz), container, codec, rate_hz))


def test_a_piece_of_a_recording_says_that_its_beginning_is_missing() -> None:
    webm = encode(noise(4, rate_hz=48_000), "webm", "libopus", 48_000)
    cluster = webm.index(b"\x1f\x43\xb6\x75")
    assert why(webm[cluster:]) is Refusal.NO_BEGINNING
    assert why(webm[webm.index(b"\xa3", cluster + 20) :]) is Refusal.NO_BEGINNING
    assert why(M4A[:-1000]) is Refusal.NO_INDEX
    assert why(b"") is Refusal.EMPTY
    assert why(b"hello" * 100) is Refusal.NOT_MEDIA


def test_a_tag_of_megabytes_hides_nothing() -> None:
    for form, codec in (("adts", "aac"), ("mp3", "libmp3lame")):
        sound = encode(tone(44_100), form, codec, 44_100)
        assert decoded(id3(1_500_000) + sound).size == decoded(sound).size


def test_the_first_track_has_no_decoder_the_second_is_heard() -> None:
    both = encode_tracks([tone(48_000), sine(72_000, 880.0, 48_000, amplitude=0.25)])
    data = both.replace(b"A_OPUS", b"A_XPUS", 1)
    assert pitch_hz(decoded(data)[4800:-4800]) == pytest.approx(880, abs=1)
    assert told(data) == {Notice.TRACK_UNREADABLE}
    assert why(both.replace(b"A_OPUS", b"A_XPUS")) is Refusal.NO_DECODER


@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("matroska", "libopus"), ("mpegts", "aac")])
def test_speech_on_the_second_track_is_heard_as_loud_as_on_the_first(container: str, codec: str) -> None:
    data = encode_tracks([np.zeros(72_000, np.float32), tone(48_000)], container, codec)
    heard = decoded(data)[4800:-4800]
    assert pitch_hz(heard) == pytest.approx(440, abs=1)
    assert np.abs(heard).max() == pytest.approx(0.25, rel=0.1)
    assert not told(data)


def test_both_tracks_are_heard_and_of_two_languages_one() -> None:
    rows = [tone(48_000), sine(72_000, 880.0, 48_000, amplitude=0.25)]
    assert spectrum(decoded(encode_tracks(rows))) == [440, 880]
    dubbed = encode_tracks(rows, languages=["eng", "deu"])
    assert pitch_hz(decoded(dubbed)[4800:-4800]) == pytest.approx(440, abs=1)
    assert told(dubbed) == {Notice.TRACKS_LEFT_OUT}


@pytest.mark.parametrize(("container", "codec"), [("wav", "pcm_s16le"), ("ogg", "libopus"), ("mp3", "libmp3lame")])
def test_stereo_that_cancels_itself_is_heard(container: str, codec: str) -> None:
    rate_hz = 44_100 if container == "mp3" else 48_000
    rows = np.stack([tone(rate_hz), -tone(rate_hz)])
    heard = decoded(encode(rows, container, codec, rate_hz, "stereo"))[4800:-4800]
    assert pitch_hz(heard) == pytest.approx(440, abs=1)
    assert np.abs(heard).max() == pytest.approx(0.25, rel=0.1)


@pytest.mark.parametrize(("container", "codec"), [("flv", "flv"), ("mpegts", "mpeg2video")])
@pytest.mark.parametrize("late_s", [2.0, 15.0])
def test_a_stream_that_appears_later_is_heard_at_its_time(container: str, codec: str, late_s: float) -> None:
    data = bytearray(encode_late_audio(container, tone(44_100), late_s, codec))
    if container == "flv":
        data[4] = 1  # and is not announced
    heard = decoded(bytes(data))
    assert heard.size / MODEL_RATE_HZ == pytest.approx(late_s + SECONDS, abs=0.15)
    assert np.abs(heard[: round((late_s - 0.2) * MODEL_RATE_HZ)]).max() < 1e-3
    assert pitch_hz(heard[round((late_s + 0.2) * MODEL_RATE_HZ) : -4800]) == pytest.approx(440, abs=2)
