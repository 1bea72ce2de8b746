"""Reads the audio tracks of one recording with FFmpeg. Owns what FFmpeg may do, and may not.

The file is a stranger's: it is read through an object that has nothing but bytes, by demuxers that open nothing
besides, and what it says of itself is believed within bounds.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
from collections.abc import Iterator
from typing import Any, Final

import av
import av._core
import av.codec
import av.error
from av.stream import Disposition

from rtc_server.decoding.findings import Refusal, Refused
from rtc_server.decoding.source import Window

MAX_TRACKS: Final = 16
_DEMUXERS: Final = (
    "3gp,aa,aac,aax,ac3,aiff,amr,amrnb,amrwb,ape,asf,asf_o,au,avi,caf,dsf,dss,dts,dtshd,dv,eac3,flac,flv,gsm,gxf,"
    "iff,ircam,kux,live_flv,loas,m4a,matroska,mj2,mlp,mov,mp3,mp4,mpc,mpc8,mpeg,mpegts,mxf,nistsphere,nsv,nut,ogg,"
    "oma,osq,paf,pvf,qcp,qoa,rm,sbc,shn,sox,spdif,svx,swf,tak,truehd,tta,voc,vqf,w64,wav,webm,wsd,wtv,wv,xwma"
)
"""Containers of recordings. What is missing names other files and addresses in what it demuxes (playlists,
ffconcat, SDP, image sequences), opens devices, or can only be told by a file's name."""
_NO_PROTOCOL: Final = "none"
"""There is none of this name."""
_READ_BYTES: Final = 256 * 1024
_LATE_FORMATS: Final = frozenset({"flv", "live_flv", "kux", "mpegts", "mpeg"})
"""Formats without a list of their streams: one is found where its first packet is."""
_LATE_PROBE_BYTES: Final = 48 * 2**20
"""What is looked at to find them. It is all kept in memory meanwhile."""
_LATE_PROBE_US: Final = 6 * 3600 * 1_000_000
_MAX_PACKET_BYTES: Final = 16 * 2**20
_TRIFLE_BYTES: Final = 4096
"""Behind the last frame of a stream, as a tag has."""
_MAX_FRAME_SAMPLES: Final = 2**20
"""Per channel: five seconds at 192 kHz. Codecs have blocks of at most one second."""
_MAX_ALLOCATION_BYTES: Final = 64 * 2**20
"""At once; a packet has no more than a fourth of it."""
_TELLS_LENGTH: Final = frozenset({"flac", "tta", "wv", "ape", "tak", "mov,mp4,m4a,3gp,3g2,mj2", "caf"})
"""Formats in which a track's length is written down, not estimated from bit rates."""
_MP3_TELLS: Final = (b"Xing", b"Info", b"VBRI")
"""In the first frame of an MP3, beside its length."""
_MP3_HEAD_BYTES: Final = 4096
_OTHER_VERSIONS: Final = (
    Disposition.dub
    | Disposition.comment
    | Disposition.lyrics
    | Disposition.karaoke
    | Disposition.visual_impaired
    | Disposition.hearing_impaired
    | Disposition.clean_effects
    | Disposition.non_diegetic
    | Disposition.descriptions
)


class Track:
    """One audio stream that has a decoder. ``version``: tracks that differ in it have the same in other words."""

    def __init__(self, stream: av.AudioStream) -> None:
        self._stream = stream
        language = stream.language
        other = stream.disposition & _OTHER_VERSIONS
        self.version = f"{'' if language in (None, 'und', 'mul', 'zxx') else language}{int(other) or ''}"
        self.failed_packets = 0
        self.packets = 0
        self.swollen = False
        """Whether a packet had more in it than a frame can be: what stands behind a recording that tells no length."""
        self._frame_bytes = _longest_frame_bytes(stream)
        # PyAV makes the codec with these; a frame that is larger fails to decode.
        stream.codec_context.options = {"max_samples": str(_MAX_FRAME_SAMPLES)}
        stream.codec_context.thread_count = 1

    @property
    def index(self) -> int:
        return self._stream.index

    @property
    def length_s(self) -> float | None:
        """As its format says, if it says."""
        stream = self._stream
        if stream.duration is None or stream.time_base is None:
            return None
        return float(stream.duration * stream.time_base)

    def decode(self, packet: Any) -> Iterator[av.AudioFrame]:
        """As a player does, a packet that cannot be decoded is passed over: the next one may be sound."""
        if not packet.size:
            return
        self.packets += 1
        self.swollen |= packet.size > self._frame_bytes + _TRIFLE_BYTES
        try:
            if packet.size <= _MAX_PACKET_BYTES:
                yield from packet.decode()
                return
        except av.error.MemoryError:
            raise Refused(Refusal.MEMORY) from None
        except av.error.FFmpegError:
            pass
        self.failed_packets += 1

    def flush(self) -> Iterator[av.AudioFrame]:
        with contextlib.suppress(av.error.FFmpegError):
            yield from self._stream.codec_context.decode(None)


class Recording:
    """What is in ``window``, opened. Raises Refused."""

    def __init__(self, window: Window) -> None:
        self._container = _open(window)
        self.broke_off = False
        streams = self._container.streams.audio
        decodable = [stream for stream in streams if _has_decoder(stream)]
        if not decodable:
            self._container.close()
            raise Refused(Refusal.NO_DECODER if streams else Refusal.NO_TRACK)
        self.tracks = [Track(stream) for stream in decodable[:MAX_TRACKS]]
        self.tells_length = _tells_length(self._container.format.name, window)
        self.undecodable = len(streams) - len(decodable)
        self.left_out = len(decodable) - len(self.tracks)

    @property
    def duration_s(self) -> float | None:
        """As the file says, or as its size and bit rate suggest: for progress bars, and not to be relied on."""
        if self._container.duration is None or self._container.duration <= 0:
            return None
        return float(self._container.duration / av.time_base)

    @property
    def start_s(self) -> float:
        start = self._container.start_time
        return 0.0 if start is None else start / av.time_base

    def frames(self) -> Iterator[tuple[int, av.AudioFrame]]:
        """Decode every frame that can be read and decoded, each with the number of its track."""
        number_of = {track.index: number for number, track in enumerate(self.tracks)}
        try:
            for packet in self._container.demux([self._container.streams[index] for index in number_of]):
                number = number_of[packet.stream.index]  # that of the last, empty packets is 0
                for frame in self.tracks[number].decode(packet):
                    yield number, frame
        except av.error.MemoryError:
            raise Refused(Refusal.MEMORY) from None
        except (av.error.FFmpegError, OSError, ValueError):
            self.broke_off = True
        except IndexError:  # PyAV, of a stream that was not there at the beginning
            self.left_out += 1
        for number, track in enumerate(self.tracks):
            for frame in track.flush():
                yield number, frame

    def close(self) -> None:
        self._container.close()


def _longest_frame_bytes(stream: av.AudioStream) -> float:
    """RFC 9639, section 8.2: of FLAC, if its writer has told. Unbounded for all else."""
    told = stream.codec_context.extradata if stream.codec_context.name == "flac" else None
    return (int.from_bytes(told[7:10], "big") if told and len(told) >= 10 else 0) or math.inf  # noqa: PLR2004


def _tells_length(form: str, window: Window) -> bool:
    if form != "mp3":
        return form in _TELLS_LENGTH
    position = window.tell()
    window.seek(0)
    head = window.read(_MP3_HEAD_BYTES)
    window.seek(position)
    return any(name in head for name in _MP3_TELLS)


def _has_decoder(stream: av.AudioStream) -> bool:
    context: object = stream.codec_context
    return context is not None


def limit_ffmpeg() -> None:
    """In this process, FFmpeg makes no allocation that is larger than any of ours has to be, and no threads: it makes
    one for each processor, and each wants room for a stack."""
    library = ctypes.CDLL(av._core.__file__)  # finds what it is linked to
    library.av_max_alloc(ctypes.c_size_t(_MAX_ALLOCATION_BYTES))
    library.av_cpu_force_count(1)


def _open(window: Window) -> av.container.InputContainer:
    container = _open_with(window, {})
    if container.format.name in _LATE_FORMATS:
        container.close()
        window.seek(0)
        container = _open_with(window, {"probesize": str(_LATE_PROBE_BYTES), "analyzeduration": str(_LATE_PROBE_US)})
    return container


def _open_with(window: Window, more: dict[str, str]) -> av.container.InputContainer:
    options = {
        "format_whitelist": _DEMUXERS,
        "protocol_whitelist": _NO_PROTOCOL,
        # Streams are probed by decoding: no picture is, then.
        "codec_whitelist": audio_decoders(),
    }
    try:
        container = av.open(
            window,
            buffer_size=_READ_BYTES,
            container_options=options | more,
            io_open=_refuse,
            metadata_errors="replace",
        )
    except (MemoryError, av.error.MemoryError):
        raise Refused(Refusal.MEMORY) from None
    except (av.error.FFmpegError, OSError, ValueError):
        raise Refused(Refusal.NOT_MEDIA) from None
    assert isinstance(container, av.container.InputContainer)
    return container


def _refuse(url: str, *_: object) -> None:
    raise PermissionError("a media file wants to open another")


@functools.cache
def audio_decoders() -> str:
    """The names of all audio decoders, separated by commas."""
    names = []
    for name in sorted(av.codec.codecs_available):
        with contextlib.suppress(av.codec.codec.UnknownCodecError):  # only an encoder
            if av.codec.Codec(name, "r").type == "audio":
                names.append(name)
    return ",".join(names)
