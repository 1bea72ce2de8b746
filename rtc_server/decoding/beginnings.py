"""Finds where a recording begins among bytes whose structure is not known here. Pure: bytes in, an offset out.

Formats without lengths (MP3, FLAC, MPEG's streams) do not say where they end. So what another recording begins with is
looked for: marks of so many fixed bytes that no sound or picture has them by chance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rtc_server.decoding.source import Scan

_HEAD_BYTES: Final = 64
_WINDOW_BYTES: Final = 32 * 1024
_SYNC: Final = 0xE0
"""Of MPEG audio and ADTS, in the second byte of a frame; the first is 255."""

Fits = Callable[[bytes], bool]


@dataclass(frozen=True, slots=True)
class _Mark:
    """``needle`` stands ``at`` bytes behind the beginning; ``fits``: what else holds of the first bytes."""

    needle: bytes
    fits: Fits = lambda _: True
    at: int = 0


_MARKS: Final = (
    _Mark(b"WAVE", lambda head: head[:4] in (b"RIFF", b"RF64", b"BW64"), at=8),
    _Mark(b"AVI LIST", lambda head: head[:4] == b"RIFF", at=8),
    _Mark(b"FORM", lambda head: head[8:12] in (b"AIFF", b"AIFC")),
    _Mark(b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0"),  # Wave64
    _Mark(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\0\xaa\0\x62\xce\x6c"),  # ASF
    _Mark(b"caff\0\1\0\0desc"),
    _Mark(b".snd\0\0", lambda head: not any(head[12:15]) and not any(head[20:23])),
    _Mark(b"fLaC", lambda head: not head[4] & 0x7F and head[5:8] == b"\0\0\x22"),
    _Mark(b"OggS\0", lambda head: bool(head[5] & 2) and not any(head[6:14])),
    _Mark(b"\x1a\x45\xdf\xa3", lambda head: b"matroska" in head or b"webm" in head),
    _Mark(b"ftyp", lambda head: not any(head[:3]) and head[8:12].isascii() and head[8:12].strip().isalnum(), at=4),
    _Mark(b"FLV\1", lambda head: head[4] in (1, 4, 5) and head[5:9] == b"\0\0\0\x09"),
    _Mark(b"#!AMR", lambda head: head[5:6] == b"\n" or head[5:9] == b"-WB\n"),
    _Mark(b"TTA1", lambda head: head[4] in (1, 2) and not head[5] and not head[7]),
    # WavPack: the first block of a stream, and of its channels.
    _Mark(b"wvpk", lambda head: head[9] == 4 and not any(head[16:20]) and bool(head[25] & 8)),  # noqa: PLR2004
    _Mark(b"Creative Voice File\x1a"),
)
_TAG: Final = b"ID3"
TAG_HEADER_BYTES: Final = 10


def next_beginning(scan: Scan, start: int, end: int | None = None) -> int:
    """Offset of the next recording, or of the tag in front of it, from ``start`` on and before ``end``; that if there
    is none. ``end``: None is the end of the file."""
    end = scan.size if end is None else end
    while start < end:
        window = scan.at(start, min(_WINDOW_BYTES, end - start) + _HEAD_BYTES)
        found = min(_candidates(scan, start, window), default=None)
        if found is not None:
            return min(found, end)
        start += _WINDOW_BYTES
    return end


def tag_bytes(header: bytes) -> int | None:
    """Size of the tag (ID3v2.4, section 3.1) that begins with these ten bytes; None if none does."""
    if len(header) < TAG_HEADER_BYTES or header[:3] != _TAG or max(header[6:10]) > 127:  # noqa: PLR2004
        return None
    size = sum(byte << shift for byte, shift in zip(header[6:10], (21, 14, 7, 0), strict=True))
    footer = TAG_HEADER_BYTES if header[5] & 0x10 else 0
    return TAG_HEADER_BYTES + size + footer


def _candidates(scan: Scan, start: int, window: bytes) -> list[int]:
    """Beginnings of which the mark lies in the window, the first of each kind."""
    found: list[int] = []
    for mark in _MARKS:
        at = window.find(mark.needle)
        while at >= 0:
            begins = start + at - mark.at
            if begins >= start and _fits(mark.fits, scan.at(begins, _HEAD_BYTES)):
                found.append(begins)
                break
            at = window.find(mark.needle, at + 1)
    at = window.find(_TAG)
    while at >= 0:
        if _is_tag_of_frames(scan, start + at):
            found.append(start + at)
            break
        at = window.find(_TAG, at + 1)
    return found


def _fits(fits: Fits, head: bytes) -> bool:
    return len(head) == _HEAD_BYTES and fits(head)


def _is_tag_of_frames(scan: Scan, at: int) -> bool:
    """Whether a tag stands in front of a frame: such tags are also messages within other streams."""
    size = tag_bytes(scan.at(at, TAG_HEADER_BYTES))
    if size is None or at + size + 2 > scan.size:
        return False
    first = scan.at(at + size, TAG_HEADER_BYTES)
    is_frame = first[0] == 255 and first[1] & _SYNC == _SYNC  # noqa: PLR2004
    return is_frame or first.startswith(b"fLaC") or tag_bytes(first) is not None
