"""Any file becomes mono at 24 kHz, in pieces; what is none, or wants to open others, is refused."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from lab.inputs.files import encode, encode_late_audio, encode_tracks, id3, noise, quantised
from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from rtc_server.decoding import container, media_file
from rtc_server.decoding.findings import Notice, Refusal, Refused
from rtc_server.decoding.media_file import MediaFile
from tests.support.signals import pitch_hz, sine

SECONDS = 1.5


def decoded(data: bytes) -> FloatArray:
    return np.concatenate(list(MediaFile(io.BytesIO(data)).blocks()))


def tone(rate_hz: int, seconds: float = SECONDS) -> FloatArray:
    return sine(round(seconds * rate_hz), 440.0, rate_hz, amplitude=0.25)


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


# Files that want others opened


def lure(directory: Path, make: Callable[[str], str], name: str) -> Path:
    """A file that refers to a sound beside it, by its name and by its path."""
    (directory / "secret.wav").write_bytes(encode(tone(MODEL_RATE_HZ)))
    path = directory / name
    path.write_text(make(str(directory / "secret.wav")))
    return path


PLAYLIST = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("list.m3u8", PLAYLIST.format),
        ("list.m3u8", lambda path: PLAYLIST.format(f"file://{path}")),
        ("list.m3u8", lambda path: PLAYLIST.format("secret.wav")),
        ("list.m3u8", lambda path: PLAYLIST.format("http://127.0.0.1:9/secret.wav")),
        ("list.wav", lambda path: PLAYLIST.format(f"concat:{path}|{path}")),
        ("list.concat", lambda path: "ffconcat version 1.0\nfile secret.wav\n"),
        ("list.txt", lambda path: f"ffconcat version 1.0\nfile '{path}'\n"),
        (
            "list.sdp",
            lambda path: "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n",
        ),
        ("list.mpd", lambda path: f"<MPD xmlns='urn:mpeg:dash:schema:mpd:2011'><BaseURL>{path}</BaseURL></MPD>"),
        ("list.smil", lambda path: f"<smil><body><audio src='{path}'/></body></smil>"),
        ("list.ram", lambda path: f"file://{path}\n"),
    ],
)
def test_a_file_that_names_others_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, make: Callable[[str], str]
) -> None:
    """A playlist would bring a transcript of somebody else's file, or a request to a machine inside."""
    path = lure(tmp_path, make, name)
    monkeypatch.chdir(tmp_path)
    opened = []
    monkeypatch.setattr(container, "_refuse", lambda url, *_: opened.append(url))
    with path.open("rb") as file, pytest.raises(Refused):
        list(MediaFile(file).blocks())
    assert not opened, "not even asked for"


def test_the_same_lure_works_where_nothing_is_forbidden(tmp_path: Path) -> None:
    """The test above can fail."""
    with (
        lure(tmp_path, lambda _: "ffconcat version 1.0\nfile secret.wav\n", "l").open("rb") as file,
        av.open(file) as open_,
    ):
        assert sum(frame.samples for frame in open_.decode(audio=0)) > 0


# Time


def test_silence_that_was_not_recorded_is_put_back() -> None:
    """A recorder that writes nothing while the microphone is muted; times go on."""
    target = io.BytesIO()
    with av.open(target, "w", format="matroska") as output:
        stream = output.add_stream("pcm_s16le", rate=48_000, layout="mono")
        for number, first in enumerate((0, 3 * 48_000)):
            frame = av.AudioFrame.from_ndarray(
                np.full((1, 48_000), 3000 * (number + 1), np.int16), format="s16", layout="mono"
            )
            frame.sample_rate, frame.pts = 48_000, first
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    pcm = decoded(target.getvalue())
    assert pcm.size / MODEL_RATE_HZ == pytest.approx(4.0, abs=0.01)
    levels = [abs(pcm[round(at * MODEL_RATE_HZ)]) for at in (0.5, 1.5, 2.5, 3.5)]
    assert levels == pytest.approx([3000 / 32768, 0, 0, 6000 / 32768], abs=1e-3)


def test_audio_that_starts_after_the_picture_keeps_its_time() -> None:
    data = encode(tone(48_000), "mp4", "aac", 48_000, first_pts=48_000, picture=True)
    pcm = decoded(data)
    assert pcm.size / MODEL_RATE_HZ == pytest.approx(1 + SECONDS, abs=0.06)
    assert np.abs(pcm[: round(0.9 * MODEL_RATE_HZ)]).max() < 1e-3
    assert np.abs(pcm[round(1.1 * MODEL_RATE_HZ) :]).max() > 0.2


def test_a_jump_of_the_clock_is_not_silence() -> None:
    target = io.BytesIO()
    with av.open(target, "w", format="matroska") as output:
        stream = output.add_stream("pcm_s16le", rate=8000, layout="mono")
        for first in (0, 8000 * 7200):
            frame = av.AudioFrame.from_ndarray(np.ones((1, 8000), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts = 8000, first
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    assert decoded(target.getvalue()).size / MODEL_RATE_HZ == pytest.approx(2.0, abs=0.01)


# Long files


def silent_hours(hours: float) -> bytes:
    """FLAC packs silence to next to nothing: a few hundred kilobytes for hours."""
    return encode(np.broadcast_to(np.float32(0), (round(hours * 3600 * 2000),)), "flac", "flac", 2000)


def test_two_hours_are_never_in_memory() -> None:
    data = silent_hours(2)
    assert len(data) < 5_000_000
    file = MediaFile(io.BytesIO(data))
    assert file.duration_s == pytest.approx(7200)
    samples = longest = peak = 0
    tracemalloc.start()
    for block in file.blocks():
        samples += block.size
        longest = max(longest, block.size)
        if not peak and samples > 90 * MODEL_RATE_HZ:  # watched memory is slow, and the rest is like this
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert samples == 7200 * MODEL_RATE_HZ
    assert longest < 5 * MODEL_RATE_HZ
    assert 0 < peak < 5_000_000


def test_more_than_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_file, "MAX_DURATION_S", 60)
    with pytest.raises(Refused):
        decoded(silent_hours(0.05))
    assert decoded(silent_hours(0.01)).size == 36 * MODEL_RATE_HZ


# All that is in it


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


@pytest.mark.parametrize(
    "data",
    [M4A + M4A, OPUS + OGG_FLAC, OGG_FLAC + OPUS, encode(tone(24_000)) * 2, encode(tone(24_000)) + MP3, MP3 + MP3],
    ids=["m4a, m4a", "Opus, FLAC", "FLAC, Opus", "WAV, WAV", "WAV, MP3", "MP3, MP3"],
)
def test_recordings_in_a_row_are_all_heard(data: bytes) -> None:
    assert decoded(data).size == pytest.approx(2 * SECONDS * MODEL_RATE_HZ, abs=0.15 * MODEL_RATE_HZ)
    assert not told(data)


def test_what_is_left_over_is_told() -> None:
    data = M4A + np.random.default_rng(0).bytes(10_000)
    assert decoded(data).size == decoded(M4A).size
    assert told(data) == {Notice.LEFT_OVER}
    assert not told(M4A + bytes(10_000)), "padding is nothing"


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


# Several tracks, several channels


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
