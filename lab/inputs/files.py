"""Files with audio, made by PyAV, and what can be known of them beforehand."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO

import av
import numpy as np
import numpy.typing as npt

from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray

_CHUNK_SAMPLES = 1024


def encode(
    pcm: npt.NDArray[np.floating],
    container: str = "wav",
    codec: str = "pcm_s16le",
    rate_hz: int = MODEL_RATE_HZ,
    layout: str = "mono",
    first_pts: int = 0,
    picture: bool = False,
) -> bytes:
    """``pcm``: float, shape [samples] or [channels, samples], at ``rate_hz``. ``picture``: with a video stream."""
    target = io.BytesIO()
    channels = av.AudioLayout(layout).nb_channels
    rows = np.broadcast_to(np.atleast_2d(pcm.astype(np.float32)), (channels, pcm.shape[-1]))
    with av.open(target, "w", format=container) as output:
        video = output.add_stream("mpeg4", rate=25, width=64, height=64, pix_fmt="yuv420p") if picture else None
        stream = _audio_stream(output, codec, rate_hz, layout)
        codec_format = stream.codec_context.format.name
        if video is not None:
            image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            for number in range(round(25 * (first_pts + pcm.shape[-1]) / rate_hz)):
                image.pts = number
                output.mux(video.encode(image))
            output.mux(video.encode(None))
        resampler = av.AudioResampler(format=codec_format, layout=layout, rate=rate_hz)
        size = stream.codec_context.frame_size or _CHUNK_SAMPLES
        for start in range(0, pcm.shape[-1], size):
            interleaved = np.ascontiguousarray(rows[:, start : start + size].T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=layout)
            frame.sample_rate = rate_hz
            frame.pts = first_pts + start
            for converted in resampler.resample(frame):
                output.mux(stream.encode(converted))
        output.mux(stream.encode(None))
    return target.getvalue()


def _audio_stream(output: av.container.OutputContainer, codec: str, rate_hz: int, layout: str) -> av.AudioStream:
    stream = output.add_stream(codec, rate=rate_hz, layout=layout)
    assert isinstance(stream, av.AudioStream)
    return stream


def file_with(data: bytes) -> IO[bytes]:
    """A file without a name; it is gone when it is closed or collected."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - it is the caller's
    file.write(data)
    file.seek(0)
    return file


def noise(seconds: float, seed: int = 0, rate_hz: int = MODEL_RATE_HZ) -> FloatArray:
    """Noise whose loudness changes from frame to frame: a tiny model writes a great deal about it."""
    rng = np.random.default_rng(seed)
    samples = round(seconds * rate_hz)
    loudness = np.repeat(rng.uniform(0.001, 0.3, samples // FRAME_SAMPLES + 1), FRAME_SAMPLES)[:samples]
    return np.clip(loudness * rng.standard_normal(samples), -1, 1).astype(np.float32)


def quantised(pcm: FloatArray) -> FloatArray:
    """What is left of ``pcm`` in a file of 16 bits."""
    return np.frombuffer(_s16(pcm), dtype=np.int16).astype(np.float32) / np.float32(32768)


def _s16(pcm: FloatArray) -> bytes:
    with av.open(io.BytesIO(encode(pcm)), "r") as container:
        return b"".join(bytes(frame.planes[0])[: 2 * frame.samples] for frame in container.decode(audio=0))


def encode_tracks(
    rows: Sequence[FloatArray],
    container: str = "matroska",
    codec: str = "libopus",
    rate_hz: int = 48_000,
    languages: Sequence[str] = (),
) -> bytes:
    """One mono track for each of ``rows``, interleaved as a recorder does it."""
    target = io.BytesIO()
    with av.open(target, "w", format=container) as output:
        streams = [_audio_stream(output, codec, rate_hz, "mono") for _ in rows]
        for stream, language in zip(streams, languages, strict=False):
            stream.metadata["language"] = language
        form = streams[0].codec_context.format.name
        resamplers = [av.AudioResampler(format=form, layout="mono", rate=rate_hz) for _ in rows]
        size = streams[0].codec_context.frame_size or _CHUNK_SAMPLES
        for start in range(0, max(row.size for row in rows), size):
            for stream, row, resampler in zip(streams, rows, resamplers, strict=True):
                if start >= row.size:
                    continue
                chunk = np.ascontiguousarray(row[None, start : start + size].astype(np.float32))
                frame = av.AudioFrame.from_ndarray(chunk, format="flt", layout="mono")
                frame.sample_rate, frame.pts = rate_hz, start
                for converted in resampler.resample(frame):
                    output.mux(stream.encode(converted))
        for stream in streams:
            output.mux(stream.encode(None))
    return target.getvalue()


def encode_late_audio(container: str, pcm: FloatArray, late_s: float, codec: str, rate_hz: int = 44_100) -> bytes:
    """A picture, and ``pcm`` from ``late_s`` on: only then do its packets, and so its stream, appear. Without ``pcm``
    there is none."""
    target = io.BytesIO()
    with av.open(target, "w", format=container) as output:
        video = output.add_stream(codec, rate=25, width=64, height=64, pix_fmt="yuv420p")
        assert isinstance(video, av.VideoStream)
        audio_packets = _packets(output, pcm, late_s, rate_hz) if pcm.size else iter(())
        ahead = next(audio_packets, None)
        for number in range(round(25 * (late_s + pcm.size / rate_hz))):
            picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            picture.pts = number
            output.mux(video.encode(picture))
            while ahead is not None and (ahead.pts or 0) * ahead.time_base <= number / 25:
                output.mux(ahead)
                ahead = next(audio_packets, None)
        output.mux(video.encode(None))
        output.mux([packet for packet in (ahead, *audio_packets) if packet is not None])
    return target.getvalue()


def _packets(
    output: av.container.OutputContainer, pcm: FloatArray, late_s: float, rate_hz: int
) -> Iterator[av.Packet[av.AudioStream]]:
    stream = output.add_stream("aac", rate=rate_hz, layout="mono")
    stream.codec_context.open()
    size = stream.codec_context.frame_size
    for start in range(0, pcm.size, size):
        chunk = np.ascontiguousarray(pcm[None, start : start + size].astype(np.float32))
        frame = av.AudioFrame.from_ndarray(chunk, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate_hz, round(late_s * rate_hz) + start
        yield from stream.encode(frame)
    yield from stream.encode(None)


def id3(size: int) -> bytes:
    """A tag of so many bytes, with a picture in it."""
    length = bytes(size - 10 >> shift & 127 for shift in (21, 14, 7, 0))
    frame = bytes(size - 20 >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\x04\0\0" + length + b"APIC" + frame + bytes(size - 18)
