"""A media file that names others leads nowhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import pytest

from lab.inputs.files import encode
from rtc_server.audio import MODEL_RATE_HZ
from rtc_server.decoding import container
from rtc_server.decoding.findings import Refused
from rtc_server.decoding.media_file import MediaFile
from tests.support.media_file import tone


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
