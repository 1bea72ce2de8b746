"""Any file with audio, as mono float32 at 24 kHz, block by block; decoded in a thread, never far ahead of its reader.

The file is somebody else's: it is read through an object that has nothing but bytes, by demuxers that open nothing
besides, and what it says of itself is believed within bounds. Knows nothing of models, HTTP or the command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from types import TracebackType
from typing import Any, Final, Protocol, Self

import av
import av.codec
import av.error
import numpy as np
import soxr

from rtc_server import audio
from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from rtc_server.errors import NotAudio, TooLarge

MAX_DURATION_S: Final = 12 * 3600
"""A few kilobytes can hold days of silence."""
BLOCK_S: Final = 1.0
"""Least length of a block but the last: enough that the hop between threads costs nothing."""

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
_MAX_PACKET_BYTES: Final = 16 * 2**20
_MAX_FRAME_SAMPLES: Final = 2**20
"""Per channel: five seconds at 192 kHz. Codecs have blocks of at most one second."""
_MAX_CHANNELS: Final = 64
_RATES_HZ: Final = range(1_000, 3_000_000)
_GAP_S: Final = 0.1
"""Silence that was not recorded (a muted microphone, audio that starts after the video) shows as a hole in the
timestamps. From this length on it is put back, lest every later word has the wrong time."""
_BREAK_S: Final = 600.0
"""A hole of more than this is none: the clock of the file has jumped."""

_FRONT: Final = math.sqrt(0.5)
_WEIGHTS: Final = {"FC": 1.0, "FL": _FRONT, "FR": _FRONT, "FLC": _FRONT, "FRC": _FRONT}
_OTHER_WEIGHT: Final = 0.5
"""ITU-R BS.775, folded once more: who speaks in a film is in the centre. The subwoofer's channel is kept, for in the
recording of a meeting it is the fourth microphone."""


class Source(Protocol):
    """A binary file that is open for reading. Seekable, or formats that keep their index at the end fail."""

    def read(self, size: int, /) -> bytes: ...

    def seek(self, offset: int, whence: int = 0, /) -> int: ...

    def tell(self) -> int: ...

    def seekable(self) -> bool: ...


class _Bytes:
    """A source without its name: demuxers resolve what a file refers to beside it, and guess formats from it."""

    def __init__(self, source: Source) -> None:
        self.read = source.read
        self.seek = source.seek
        self.tell = source.tell
        self.seekable = source.seekable


class MediaFile:
    """The first audio stream of ``source``, which stays open and the caller's. All of it blocks: see
    :class:`MediaReader`. Raises NotAudio for what holds none."""

    def __init__(self, source: Source) -> None:
        self._container = _open(source)
        try:
            self._stream = self._container.streams.audio[0]
            # PyAV makes the codec with these; a frame that is larger fails to decode.
            self._stream.codec_context.options = {"max_samples": str(_MAX_FRAME_SAMPLES)}
        except (IndexError, AttributeError):  # no stream, or none that has a decoder
            self._container.close()
            raise NotAudio from None

    @property
    def duration_s(self) -> float | None:
        """As the file says, or as its size and bit rate suggest: for progress bars, and not to be relied on."""
        if self._container.duration is None or self._container.duration <= 0:
            return None
        return float(self._container.duration / av.time_base)

    def close(self) -> None:
        self._container.close()

    def blocks(self) -> Iterator[FloatArray]:
        """Mono float32 at 24 kHz, within ±1, each of :data:`BLOCK_S` or more but the last, never empty. A file that
        breaks off ends there. Raises NotAudio if nothing can be decoded, TooLarge after :data:`MAX_DURATION_S`.
        """
        converter = _Converter(self._start_s())
        kept: list[FloatArray] = []
        samples = total = 0
        for frame in self._frames():
            for pcm in converter.push(frame):
                kept.append(pcm)
                samples += pcm.size
                total += pcm.size
                if total > MAX_DURATION_S * MODEL_RATE_HZ:
                    raise TooLarge(4 * total, f"The file has more than {MAX_DURATION_S / 3600:g} hours of audio.")
                if samples >= BLOCK_S * MODEL_RATE_HZ:
                    yield np.concatenate(kept)
                    kept, samples = [], 0
        kept.append(converter.flush())
        last = np.concatenate(kept)
        if last.size:
            yield last
        elif not total:
            raise NotAudio

    def _start_s(self) -> float:
        start = self._container.start_time
        return 0.0 if start is None else start / av.time_base

    def _frames(self) -> Iterator[av.AudioFrame]:
        """What can be decoded of what can be read."""
        with contextlib.suppress(av.error.FFmpegError, OSError, ValueError):
            for packet in self._container.demux(self._stream):
                if packet.size > _MAX_PACKET_BYTES:
                    continue
                with contextlib.suppress(av.error.FFmpegError):  # as a player does: the next packet may be sound
                    yield from packet.decode()
            return
        with contextlib.suppress(av.error.FFmpegError):
            yield from self._stream.codec_context.decode(None)


def _open(source: Source) -> av.container.InputContainer:
    options = {
        "format_whitelist": _DEMUXERS,
        "protocol_whitelist": _NO_PROTOCOL,
        # Streams are probed by decoding: no picture is, then.
        "codec_whitelist": _audio_decoders(),
    }
    try:
        container = av.open(
            _Bytes(source),
            buffer_size=_READ_BYTES,
            container_options=options,
            io_open=_refuse,
            metadata_errors="replace",
        )
    except (av.error.FFmpegError, OSError, ValueError):
        raise NotAudio from None
    assert isinstance(container, av.container.InputContainer)
    return container


def _refuse(url: str, *_: object) -> None:
    raise PermissionError("a media file wants to open another")


@functools.cache
def _audio_decoders() -> str:
    names = []
    for name in sorted(av.codec.codecs_available):
        with contextlib.suppress(av.codec.codec.UnknownCodecError):  # only an encoder
            if av.codec.Codec(name, "r").type == "audio":
                names.append(name)
    return ",".join(names)


class _Converter:
    """Frames of one stream to mono at 24 kHz, with the silence between them that their times tell of.

    By soxr: one library for all rates of this project, at its high quality here, for nobody waits for the delay of
    its filters; it compensates that delay, so that word times are those of the file.
    """

    def __init__(self, start_s: float) -> None:
        self._origin_s = start_s
        self._position = Fraction(0)
        self._rate_hz = 0
        self._resampler: soxr.ResampleStream | None = None
        self._packer = _Packer()

    def push(self, frame: av.AudioFrame) -> Iterator[FloatArray]:
        channels = frame.layout.nb_channels
        if frame.sample_rate not in _RATES_HZ or not 0 < channels <= _MAX_CHANNELS or not frame.samples:
            return
        time_s = frame.time
        try:
            mono = self._packer.mono(frame)
        except (av.error.FFmpegError, ValueError):  # a layout or a format that cannot be converted
            return
        if frame.sample_rate != self._rate_hz:  # it may change where recordings were joined
            if self._resampler is not None:
                yield self._resample(audio.silence(0), last=True)
            self._rate_hz = frame.sample_rate
            self._resampler = soxr.ResampleStream(self._rate_hz, MODEL_RATE_HZ, 1, dtype="float32", quality="HQ")
        for block_samples in self._missing(time_s):
            yield self._resample(audio.silence(block_samples))
        self._position += Fraction(mono.size, self._rate_hz)
        yield self._resample(mono)

    def flush(self) -> FloatArray:
        """The rest; nothing can be pushed afterwards."""
        return audio.silence(0) if self._resampler is None else self._resample(audio.silence(0), last=True)

    def _resample(self, mono: FloatArray, last: bool = False) -> FloatArray:
        assert self._resampler is not None
        resampled: FloatArray = self._resampler.resample_chunk(mono, last=last)
        return np.clip(resampled, -1.0, 1.0)  # filters ring

    def _missing(self, time_s: float | None) -> Iterator[int]:
        """Samples of silence before a frame of this time, in pieces of a second."""
        if time_s is None or not math.isfinite(time_s):
            return
        gap_s = time_s - self._origin_s - float(self._position)
        if not -_GAP_S < gap_s < _BREAK_S:
            self._origin_s += gap_s
            return
        if gap_s < _GAP_S:
            return
        samples = round(gap_s * self._rate_hz)
        self._position += Fraction(samples, self._rate_hz)
        while samples > 0:
            yield min(samples, self._rate_hz)
            samples -= self._rate_hz


class _Packer:
    """Mixes frames down to one channel.

    By way of interleaved samples: PyAV 18 counts a planar frame's channels by looking for a null pointer behind them,
    and from eight on there is none: reading such a frame's planes ends the process.
    """

    def __init__(self) -> None:
        self._of: tuple[object, ...] | None = None
        self._interleave: av.AudioResampler

    def mono(self, frame: av.AudioFrame) -> FloatArray:
        """Float32, finite, within ±1."""
        of = (frame.format.name, frame.layout.name, frame.sample_rate, frame.time_base)
        if of != self._of:
            self._interleave = av.AudioResampler(format="flt", layout=frame.layout, rate=frame.sample_rate)
            self._of = of
        frame.pts = None  # one frame in is one frame out: nothing depends on times
        weights = _weights(tuple(channel.name for channel in frame.layout.channels))
        made = [packed.to_ndarray().reshape(-1, weights.size) for packed in self._interleave.resample(frame)]
        return audio.sanitise(np.concatenate(made)) @ weights


@functools.lru_cache(maxsize=64)
def _weights(names: tuple[str, ...]) -> FloatArray:
    """One for each channel, together 1, so that nothing clips. Channels that have no name are all alike."""
    weights = np.array([_WEIGHTS.get(name, _OTHER_WEIGHT) for name in names])
    shares: FloatArray = (weights / weights.sum()).astype(np.float32)
    return shares


class MediaReader:
    """A :class:`MediaFile` for the event loop: use it as an asynchronous context manager, and iterate over it once.

    It has a thread of its own: a file that its decoder is stuck in holds up nothing else. That thread is one block
    ahead of the reader, and waits.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="media-file")
        self._file: MediaFile | None = None
        self._ahead: Future[FloatArray | None] | None = None
        self._next: Callable[[], FloatArray | None]

    @property
    def duration_s(self) -> float | None:
        """See :attr:`MediaFile.duration_s`."""
        return None if self._file is None else self._file.duration_s

    async def __aenter__(self) -> Self:
        """Raises NotAudio."""
        opening = self._thread.submit(self._open)
        try:
            await asyncio.wrap_future(opening)
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Returns when the source is not read any more."""
        await self._end()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FloatArray:
        """Raises what :meth:`MediaFile.blocks` raises."""
        if self._ahead is None:
            self._ahead = self._thread.submit(self._next)
        block = await asyncio.wrap_future(self._ahead)
        if block is None:
            raise StopAsyncIteration
        self._ahead = self._thread.submit(self._next)
        return block

    def _open(self) -> None:
        self._file = MediaFile(self._source)
        blocks = self._file.blocks()
        self._next = lambda: next(blocks, None)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()

    async def _end(self) -> None:
        closing = self._thread.submit(self._close)
        self._thread.shutdown(wait=False)
        await _to_the_end(closing)


async def _to_the_end(future: Future[Any]) -> None:
    """Wait even when cancelled meanwhile: whoever gives us a source closes it next, and the thread may be in it."""
    waiting = asyncio.wrap_future(future)
    try:
        await asyncio.shield(waiting)
    except asyncio.CancelledError:
        await waiting
        raise
