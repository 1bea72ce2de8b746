"""Parses the outermost structure of a file: where a recording ends and the next begins, and whether it breaks off.

FFmpeg's demuxers end where the first of several recordings ends, and say nothing. Here a file is cut into parts that
each of them reads to the end. Nothing is believed but lengths, and those only to skip; what is not understood is one
part up to where another recording begins. Pure: bytes in, offsets out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from rtc_server.decoding.beginnings import TAG_HEADER_BYTES, next_beginning, tag_bytes
from rtc_server.decoding.findings import Refusal
from rtc_server.decoding.source import Scan, Source

MAX_PARTS: Final = 4096
_HEAD_BYTES: Final = 64 * 1024
_ID3_MAX: Final = 16
_UNTOLD_BYTES: Final = 0x7FFF_0000
"""From this length on a RIFF header is that of a recorder that could not go back to it."""
_EBML: Final = b"\x1a\x45\xdf\xa3"
_SEGMENT: Final = 0x18538067
_CLUSTER: Final = 0x1F43B675
# RFC 9559, section 5.1: what a segment holds, and what a cluster does; and everywhere, Void and CRC-32.
_MATROSKA: Final = frozenset(
    {
        *(0x1A45DFA3, _SEGMENT, 0x114D9B74, 0x1549A966, 0x1654AE6B, _CLUSTER, 0x1C53BB6B, 0x1941A469, 0x1043A770),
        *(0x1254C367, 0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, 0xEC, 0xBF),
    }
)
_OGG_PAGE: Final = b"OggS\0"
_OGG_FIRST: Final = 2
_FLV: Final = b"FLV\x01"
_FLV_FLAGS_AT: Final = 4
_FLV_BOTH: Final = 5
_CAF_CHUNKS: Final = frozenset(
    b"desc data pakt kuki chan info free edct uuid ovvw peak umid mark regn inst midi strg".split()
)
_TOP_BOXES: Final = frozenset(
    {b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"wide", b"free", b"skip", b"pnot", b"sidx"}
)
_OTHER_BOXES: Final = frozenset({b"uuid", b"meta", b"udta", b"mfra", b"emsg", b"prft", b"ssix"})


@dataclass(frozen=True, slots=True)
class Part:
    """One recording: bytes ``start`` to ``end``, some of which are to be replaced. ``cut_off``: more should follow."""

    start: int
    end: int
    cut_off: bool = False
    patches: dict[int, int] = field(default_factory=dict)


def parts_of(source: Source) -> list[Part]:
    """In their order; none if the file is empty, at most :data:`MAX_PARTS`. What is left then is the last one's."""
    scan = Scan(source)
    parts: list[Part] = []
    at = 0
    while at < scan.size:
        start = _after_id3(scan, at)
        walk = _walker(scan.at(start, 16)) or _unknown
        part = Part(start, scan.size) if len(parts) + 1 >= MAX_PARTS else walk(scan, start)
        if part.end == start:
            part = _unknown(scan, start)
        parts.append(part)
        at = part.end
    return parts


def why_unreadable(source: Source, part: Part) -> Refusal | None:
    """Tell from the beginning of a part why it cannot be decoded."""
    scan = Scan(source)
    head = scan.at(part.start, _HEAD_BYTES)
    if head[:5] == _OGG_PAGE and len(head) > 5 and not head[5] & _OGG_FIRST:  # noqa: PLR2004 - the flags
        return Refusal.NO_BEGINNING
    if _is_matroska_piece(head):
        return Refusal.NO_BEGINNING
    if head[4:8] in _TOP_BOXES:
        kinds = _kinds(scan, part)
        if b"moov" not in kinds:  # whole
            return Refusal.NO_BEGINNING if b"moof" in kinds else Refusal.NO_INDEX
    return None


def _is_matroska_piece(head: bytes) -> bool:
    """As a recorder in a browser hands them out: from a cluster on, or from a block within one."""
    if head.startswith(_EBML):
        return False
    if _CLUSTER.to_bytes(4, "big") in head:
        return True
    element = _ebml_element(head, 0)
    if element is None:
        return False
    kind, data, size = element
    # SimpleBlock or BlockGroup; a SimpleBlock has a track number, of one byte, first.
    if kind not in (0xA3, 0xA0) or size is None:
        return False
    following = _ebml_element(head, data + size)
    return following is None or following[0] in (0xA3, 0xA0, _CLUSTER)


def _walker(head: bytes) -> Callable[[Scan, int], Part] | None:
    kind, form = head[:4], head[8:12]
    if head[4:8] in _TOP_BOXES:
        return _boxes
    if form == b"WAVE" and kind in (b"RIFF", b"RF64", b"BW64"):
        return _wave
    if form in (b"AIFF", b"AIFC") and kind == b"FORM":
        return _aiff
    known = {
        _OGG_PAGE[:4]: _ogg,
        _EBML: _matroska,
        _FLV: _flv,
        b"fLaC": _flac,
        b"caff": _caf,
        b".snd": _au,
        b"riff": _wave64,
    }
    return known.get(kind)


def _unknown(scan: Scan, start: int) -> Part:
    return Part(start, next_beginning(scan, start + 1))


def _after_id3(scan: Scan, at: int) -> int:
    """Behind tags (ID3v2.4, section 3.1). FFmpeg skips them too, but above a megabyte takes what follows for MP3."""
    for _ in range(_ID3_MAX):
        size = tag_bytes(scan.at(at, TAG_HEADER_BYTES))
        if size is None or at + size >= scan.size:
            break
        at += size
    return at


def _ended(scan: Scan, start: int, end: int) -> Part:
    """A part that says where it ends."""
    return Part(start, min(end, scan.size), cut_off=end > scan.size)


def _wave(scan: Scan, start: int) -> Part:
    """Find the end of the data chunk: it is what matters, and some writers forget to mend the length of the whole."""
    at, wide = start + 12, 0
    total = int.from_bytes(scan.at(start + 4, 4), "little")
    while len(header := scan.at(at, 8)) == 8:  # noqa: PLR2004
        kind, size = header[:4], int.from_bytes(header[4:], "little")
        if kind == b"ds64":
            wide = int.from_bytes(scan.at(at + 16, 8), "little")
        if kind == b"data":
            size = wide or size
            if not wide and (size >= _UNTOLD_BYTES or size == 0):
                return Part(start, scan.size)
            data_end, whole_end = at + 8 + size, start + 8 + total
            # What comes behind the data within the whole belongs to it.
            return _ended(scan, start, max(data_end, min(whole_end, scan.size) if total < _UNTOLD_BYTES else 0))
        at += 8 + size + size % 2
    return Part(start, scan.size)


def _aiff(scan: Scan, start: int) -> Part:
    size = int.from_bytes(scan.at(start + 4, 4), "big")
    return Part(start, scan.size) if size == 0 or size >= _UNTOLD_BYTES else _ended(scan, start, start + 8 + size)


def _flac(scan: Scan, start: int) -> Part:
    """RFC 9639, section 8: past the blocks in front of the sound, pictures among them."""
    at, last = start + 4, False
    while not last and len(header := scan.at(at, 4)) == 4:  # noqa: PLR2004
        last = bool(header[0] & 0x80)
        at += 4 + int.from_bytes(header[1:], "big")
    return Part(start, next_beginning(scan, at))


def _caf(scan: Scan, start: int) -> Part:
    """Apple's Core Audio Format: chunks of a type and 64 bits of length; of sound, it may be left open."""
    at = start + 8
    while len(header := scan.at(at, 12)) == 12 and header[:4] in _CAF_CHUNKS:  # noqa: PLR2004
        size = int.from_bytes(header[4:], "big", signed=True)
        if size < 0:
            return Part(start, scan.size)
        at += 12 + size
    return _ended(scan, start, at)


def _au(scan: Scan, start: int) -> Part:
    header, size = (int.from_bytes(scan.at(start + offset, 4), "big") for offset in (4, 8))
    return Part(start, scan.size) if size >= _UNTOLD_BYTES else _ended(scan, start, start + header + size)


def _wave64(scan: Scan, start: int) -> Part:
    size = int.from_bytes(scan.at(start + 16, 8), "little")
    return Part(start, scan.size) if size == 0 or size >> 62 else _ended(scan, start, start + size)


def _ogg(scan: Scan, start: int) -> Part:
    """RFC 3533, section 4: chained streams, each with a page that is marked as the first behind pages that are not."""
    at, begun = start, False
    while at < scan.size:
        header = scan.at(at, 27)
        if header[:5] != _OGG_PAGE[: len(header)]:
            # A hole in it, or its end and something else.
            found = scan.find(_OGG_PAGE, at + 1)
            if found == scan.size or _walker(header):
                return Part(start, at)
            at = found
            continue
        if len(header) < 27:  # noqa: PLR2004
            return Part(start, scan.size, cut_off=True)
        first = bool(header[5] & _OGG_FIRST)
        if first and begun:
            return Part(start, at)
        begun = begun or not first
        table = scan.at(at + 27, header[26])
        at += 27 + header[26] + sum(table)
    return Part(start, scan.size, cut_off=at > scan.size)


def _ebml_element(data: bytes, at: int) -> tuple[int, int, int | None] | None:
    """An element's id, where its data begins, and its size; None for a size that is not known (RFC 8794, section 6)."""
    if at + 2 > len(data) or not data[at]:
        return None
    id_length = 9 - data[at].bit_length()
    if id_length > 4 or at + id_length >= len(data) or not data[at + id_length]:  # noqa: PLR2004
        return None
    size_at = at + id_length
    size_length = 9 - data[size_at].bit_length()
    if size_at + size_length > len(data):
        return None
    size = int.from_bytes(data[size_at : size_at + size_length], "big") & ((1 << 7 * size_length) - 1)
    unknown = size == (1 << 7 * size_length) - 1
    kind = int.from_bytes(data[at:size_at], "big")
    return kind, size_at + size_length, None if unknown else size


def _matroska(scan: Scan, start: int) -> Part:
    """Into segments and clusters of unknown size, as recorders write them; past all else. Behind what is no element,
    the next cluster goes on with it, as FFmpeg does; where there is none, it has ended."""
    at = start
    while at < scan.size:
        head = scan.at(at, 12)
        if at > start and head.startswith(_EBML):
            return Part(start, at)
        element = _ebml_element(head, 0)
        if element is None or element[0] not in _MATROSKA:
            if element is None and scan.size - at < 12:  # noqa: PLR2004
                return Part(start, scan.size, cut_off=True)
            cluster = scan.find(_CLUSTER.to_bytes(4, "big"), at)
            if cluster == scan.size or next_beginning(scan, at, cluster) < cluster:
                return Part(start, at)
            at = cluster
            continue
        kind, data, size = element
        if size is None:
            if kind not in (_SEGMENT, _CLUSTER):
                return Part(start, scan.size)
            size = 0
        at += data + size
    return Part(start, scan.size, cut_off=at > scan.size)


def _flv(scan: Scan, start: int) -> Part:
    """The header's flags are set: FFmpeg looks for streams that appear later only where they are announced."""
    patches = {_FLV_FLAGS_AT: scan.at(start + _FLV_FLAGS_AT, 1)[0] | _FLV_BOTH} if start + 9 < scan.size else {}
    at = start + int.from_bytes(scan.at(start + 5, 4), "big") + 4
    while at < scan.size:
        header = scan.at(at, 11)
        if header.startswith(_FLV):
            return Part(start, at, patches=patches)
        if not header or header[0] & 0x1F not in (8, 9, 18) or header[8:11].strip(b"\0"):
            return Part(start, at, patches=patches)
        at += 11 + int.from_bytes(header[1:4], "big") + 4
    return Part(start, scan.size, cut_off=at > scan.size, patches=patches)


def _boxes(scan: Scan, start: int) -> Part:
    """ISO/IEC 14496-12, section 4.2; a second ``ftyp`` behind anything but itself begins another file."""
    at = start
    while at < scan.size:
        kind, size = _box(scan, at)
        if size is None or (kind == b"ftyp" and at > start):
            return Part(start, at)
        if at + size > scan.size and kind not in _TOP_BOXES | _OTHER_BOXES:  # what looks like a box by chance
            return Part(start, at)
        at += size
    return Part(start, scan.size, cut_off=at > scan.size)


def _box(scan: Scan, at: int) -> tuple[bytes, int | None]:
    """Type and size; no size where there is no box."""
    header = scan.at(at, 16)
    kind = header[4:8]
    size = int.from_bytes(header[:4], "big")
    least = 8
    if size == 1:
        size, least = int.from_bytes(header[8:16], "big"), 16
    elif size == 0:
        size = scan.size - at
    is_box = len(kind) == 4 and all(0x20 <= byte < 0x7F or byte == 0xA9 for byte in kind)  # noqa: PLR2004
    return kind, size if is_box and size >= least else None


def _kinds(scan: Scan, part: Part) -> set[bytes]:
    kinds, at = set(), part.start
    for _ in itertools.repeat(None, 100_000):
        if at >= part.end:
            break
        kind, size = _box(scan, at)
        if size is None or at + size > part.end:
            break
        kinds.add(kind)
        at += size
    return kinds
