"""Files with audio, made by PyAV, and what can be known of them beforehand."""

from __future__ import annotations

import io

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
        stream = output.add_stream(codec, rate=rate_hz, layout=layout)
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
    with av.open(io.BytesIO(encode(pcm))) as container:
        return b"".join(bytes(frame.planes[0])[: 2 * frame.samples] for frame in container.decode(audio=0))
