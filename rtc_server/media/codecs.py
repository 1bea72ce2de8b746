"""Decodes one RTP audio stream: packets and gaps in, mono float32 at 24 kHz out.

Opus is decoded at 24 kHz mono by libopus, with its own concealment and error correction; G.722, PCMU and PCMA
at their own rate, then resampled. Nothing a peer sends makes this raise: what cannot be decoded is concealed.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

import av
import numpy as np
import numpy.typing as npt

from rtc_server import audio
from rtc_server.audio import FloatArray, Resampler
from rtc_server.media import libopus
from rtc_server.media.downmix import Downmix
from rtc_server.media.g711 import ALAW, ULAW
from rtc_server.media.jitter import Audio, Gap, Item

OPUS_CLOCK_HZ: Final = libopus.RTP_CLOCK_HZ
TELEPHONE_CLOCK_HZ: Final = 8_000
"""Of PCMU and PCMA, and of G.722 too, though that samples at 16 kHz (RFC 3551, section 4.5.2)."""
_G722_HZ: Final = 16_000
_OPUS_STEP: Final = audio.MODEL_RATE_HZ * 25 // 10_000
"""libopus conceals in multiples of 2.5 ms."""
_FADE_PER_BLOCK: Final = 0.5
_FULL_SCALE: Final = np.float32(1)
_MAX_TELEPHONE_TICKS: Final = TELEPHONE_CLOCK_HZ * libopus.MAX_PACKET_MS // 1000


class PacketDecoder(Protocol):
    """One codec's decoder. All audio is mono float32 at 24 kHz; ``ticks`` are of :attr:`clock_hz`."""

    @property
    def clock_hz(self) -> int: ...

    def ticks(self, payload: bytes) -> int:
        """How much audio a packet holds; 0 if it cannot be decoded."""

    def decode(self, payload: bytes) -> FloatArray | None:
        """None if the packet cannot be decoded. The array is the caller's to change."""

    def conceal(self, ticks: int, after: bytes | None) -> FloatArray:
        """Something in place of what did not come. ``after``: the packet behind it, if it is there."""


class OpusDecoder:
    """Opus by libopus."""

    def __init__(self) -> None:
        self._decoder = libopus.Decoder(audio.MODEL_RATE_HZ)

    @property
    def clock_hz(self) -> int:
        return OPUS_CLOCK_HZ

    def ticks(self, payload: bytes) -> int:
        return opus_ticks(payload)

    def decode(self, payload: bytes) -> FloatArray | None:
        try:
            return self._decoder.decode(payload)
        except libopus.OpusError:
            return None

    def conceal(self, ticks: int, after: bytes | None) -> FloatArray:
        samples = ticks * audio.MODEL_RATE_HZ // OPUS_CLOCK_HZ
        whole = samples - samples % _OPUS_STEP
        try:
            if after is not None and whole == samples:
                return self._decoder.recover(after, samples)
        except libopus.OpusError:
            pass  # the packet behind the gap is broken, or the gap too long for it
        return np.concatenate((self._decoder.conceal(whole), audio.silence(samples - whole)))


class RepeatingDecoder:
    """Base of codecs that cannot conceal: the last block is repeated, ever more quietly."""

    def __init__(self) -> None:
        self._last = audio.silence(0)

    def _remember(self, pcm: FloatArray) -> FloatArray:
        self._last = pcm
        return pcm

    def _repeat(self, samples: int) -> FloatArray:
        if not self._last.size:
            return audio.silence(samples)
        self._last = self._last * np.float32(_FADE_PER_BLOCK)
        return np.resize(self._last, samples)


class TelephoneDecoder(RepeatingDecoder):
    """PCMU, PCMA or G.722: 8 bits a tick of 8 kHz."""

    def __init__(self, codec: str) -> None:
        super().__init__()
        self._g722 = av.CodecContext.create("g722", "r") if codec == "G722" else None
        self._law = {"PCMU": ULAW, "PCMA": ALAW}.get(codec)
        self._resampler = Resampler(_G722_HZ if self._g722 else TELEPHONE_CLOCK_HZ, audio.MODEL_RATE_HZ)

    @property
    def clock_hz(self) -> int:
        return TELEPHONE_CLOCK_HZ

    def ticks(self, payload: bytes) -> int:
        return len(payload) if len(payload) <= _MAX_TELEPHONE_TICKS else 0

    def decode(self, payload: bytes) -> FloatArray | None:
        if self._law is not None:
            pcm = self._law.decode(payload)
        else:
            assert isinstance(self._g722, av.AudioCodecContext)
            try:
                frames = self._g722.decode(av.Packet(payload))
            except av.FFmpegError:
                return None
            blocks: list[npt.NDArray[Any]] = [frame.to_ndarray().reshape(-1) for frame in frames]
            pcm = audio.from_int16(np.concatenate(blocks))
        return self._remember(self._resampler.process(pcm))

    def conceal(self, ticks: int, after: bytes | None) -> FloatArray:
        return self._repeat(ticks * audio.MODEL_RATE_HZ // TELEPHONE_CLOCK_HZ)


class FallbackOpusDecoder(RepeatingDecoder):
    """Opus by FFmpeg's wrapper, for a machine without libopus of its own: no error correction."""

    def __init__(self) -> None:
        super().__init__()
        codec = av.CodecContext.create("opus", "r")
        assert isinstance(codec, av.AudioCodecContext)
        codec.layout = "stereo"  # as mono it would add the channels before it decodes them
        codec.sample_rate = OPUS_CLOCK_HZ
        self._codec = codec
        self._downmix = Downmix(np.array([0.5, 0.5], dtype=np.float32), OPUS_CLOCK_HZ)
        self._resampler = Resampler(OPUS_CLOCK_HZ, audio.MODEL_RATE_HZ)

    @property
    def clock_hz(self) -> int:
        return OPUS_CLOCK_HZ

    def ticks(self, payload: bytes) -> int:
        return opus_ticks(payload)

    def decode(self, payload: bytes) -> FloatArray | None:
        try:
            frames = self._codec.decode(av.Packet(payload))
        except av.FFmpegError:
            return None
        blocks = [
            self._downmix.push(audio.sanitise(frame.to_ndarray().T.astype(np.float32, copy=False))) for frame in frames
        ]
        return self._remember(self._resampler.process(np.concatenate(blocks))) if blocks else None

    def conceal(self, ticks: int, after: bytes | None) -> FloatArray:
        return self._repeat(ticks * audio.MODEL_RATE_HZ // OPUS_CLOCK_HZ)


def make_decoder(codec: str) -> PacketDecoder:
    """The decoder for ``OPUS``, ``G722``, ``PCMU`` or ``PCMA``."""
    if codec == "OPUS":
        return OpusDecoder() if libopus.available() else FallbackOpusDecoder()
    return TelephoneDecoder(codec)


_FRAME_TICKS: Final = (*(480, 960, 1920, 2880) * 3, *(480, 960) * 2, *(120, 240, 480, 960) * 4)
"""By configuration: SILK, hybrid, CELT (RFC 6716, section 3.1)."""
_MAX_OPUS_TICKS: Final = OPUS_CLOCK_HZ * libopus.MAX_PACKET_MS // 1000


def opus_ticks(payload: bytes) -> int:
    """Length of an Opus packet in ticks of 48 kHz, from its first bytes (RFC 6716, section 3.1); 0 if it is none."""
    if not payload:
        return 0
    frame, code = _FRAME_TICKS[payload[0] >> 3], payload[0] & 3
    if code < 3:  # noqa: PLR2004 - RFC 6716, section 3.2: one frame or two
        return frame if code == 0 else 2 * frame
    ticks = frame * (payload[1] & 0x3F) if len(payload) > 1 else 0
    return ticks if ticks <= _MAX_OPUS_TICKS else 0


class StreamRenderer:
    """Turns what a jitter buffer lets out into samples."""

    def __init__(self, decoder: PacketDecoder) -> None:
        self._decoder = decoder
        self.undecodable = 0

    def render(self, item: Item) -> FloatArray:
        """Mono float32 at 24 kHz, within ±1; never raises on what a peer sent."""
        # libopus does not clip floats, and a crafted packet makes it 120 dB too loud.
        pcm = self._samples(item)
        return np.minimum(np.maximum(pcm, -_FULL_SCALE, out=pcm), _FULL_SCALE, out=pcm)

    def _samples(self, item: Item) -> FloatArray:
        match item:
            case Gap(ticks=ticks, after=after, quiet=quiet):
                return self._decoder.conceal(ticks, None if quiet else after)
            case Audio(payload=payload):
                pcm = self._decoder.decode(payload)
                if pcm is None:
                    self.undecodable += 1
                    return self._decoder.conceal(self._decoder.ticks(payload), None)
                return pcm
