"""Bindings to libopus, for the controls that FFmpeg's wrapper leaves out and a phone line needs.

Decodes at 24 kHz to mono, conceals what is lost, recovers it from the next packet's in-band FEC, and encodes with
the expected loss and DTX set while the stream runs. Loads the libopus that PyAV's wheels carry, or else the
system's. Plain calls into the C API (https://opus-codec.org/docs/opus_api-1.5/); no state beyond the codec's.

They keep the interpreter's lock (``ctypes.PyDLL``): none lasts longer than 0.2 ms, where a thread may hold it for 5,
and none calls back. To give it away and wait for it again costs a loop that shares the process with an engine's thread
more than the call does.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import functools
from pathlib import Path
from typing import Final

import av
import numpy as np

from rtc_server.audio import FloatArray
from rtc_server.media.downmix import Downmix

RTP_CLOCK_HZ: Final = 48_000
"""RFC 7587, section 4.1: the RTP clock of Opus is 48 kHz whatever is inside."""
MAX_PACKET_MS: Final = 120
"""RFC 6716, section 3.2.5: no Opus packet is longer."""
_MAX_PACKET_BYTES: Final = 1275 * 3 + 7
"""RFC 6716, section 3.4: three frames of the largest size, and their header, are more than we ever make."""

COMPLEXITY: Final = 5
"""Where the settings do not say: see docs/benchmarks.md."""

_STEREO: Final = 4
"""In a packet's first byte (RFC 6716, section 3.1)."""

_OK: Final = 0
_BAD_ARGUMENT: Final = -1
_BUFFER_TOO_SMALL: Final = -2
_INVALID_PACKET: Final = -4
_APPLICATION_VOIP: Final = 2048
_SET_BITRATE: Final = 4002
_SET_COMPLEXITY: Final = 4010
_SET_INBAND_FEC: Final = 4012
_SET_PACKET_LOSS_PERC: Final = 4014
_SET_DTX: Final = 4016
_SET_SIGNAL: Final = 4024
_SIGNAL_VOICE: Final = 3001

_FLOAT_P = ctypes.POINTER(ctypes.c_float)


class OpusError(Exception):
    """libopus refused: ``status`` is its (negative) error code. For a decoder: the packet is not Opus."""

    def __init__(self, call: str, status: int) -> None:
        self.call, self.status = call, status
        super().__init__(f"{call}: status {status}")


class OpusUnavailable(Exception):
    """No libopus on this machine."""


@functools.cache
def library() -> ctypes.PyDLL:
    """libopus, loaded once. Raises OpusUnavailable."""
    for name in _candidates():
        try:
            return _declare(ctypes.PyDLL(name))
        except (OSError, AttributeError):
            continue
    raise OpusUnavailable


def available() -> bool:
    """Whether :func:`library` works here."""
    try:
        library()
    except OpusUnavailable:
        return False
    return True


def _candidates() -> list[str]:
    # The wheel's copy comes first: it is loaded already, and the same on every machine.
    bundled = Path(av.__file__).parent.parent / "av.libs"
    system = ctypes.util.find_library("opus")
    return [*(str(path) for path in sorted(bundled.glob("libopus*"))), *([system] if system else [])]


def _declare(lib: ctypes.PyDLL) -> ctypes.PyDLL:
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    lib.opus_decoder_create.restype = pointer
    lib.opus_decoder_create.argtypes = [ctypes.c_int32, integer, ctypes.POINTER(integer)]
    lib.opus_decoder_destroy.restype = None
    lib.opus_decoder_destroy.argtypes = [pointer]
    lib.opus_decode_float.restype = integer
    lib.opus_decode_float.argtypes = [pointer, ctypes.c_char_p, ctypes.c_int32, _FLOAT_P, integer, integer]
    lib.opus_encoder_create.restype = pointer
    lib.opus_encoder_create.argtypes = [ctypes.c_int32, integer, integer, ctypes.POINTER(integer)]
    lib.opus_encoder_destroy.restype = None
    lib.opus_encoder_destroy.argtypes = [pointer]
    lib.opus_encode_float.restype = ctypes.c_int32
    lib.opus_encode_float.argtypes = [pointer, _FLOAT_P, integer, ctypes.c_char_p, ctypes.c_int32]
    lib.opus_encoder_ctl.restype = integer
    # Variadic in C: only what is not must be declared, or calls go wrong where the two differ (Apple's arm64).
    lib.opus_encoder_ctl.argtypes = [pointer, integer]
    lib.opus_packet_get_nb_samples.restype = integer
    lib.opus_packet_get_nb_samples.argtypes = [ctypes.c_char_p, ctypes.c_int32, ctypes.c_int32]
    return lib


def packet_samples(payload: bytes, rate_hz: int) -> int:
    """Samples at ``rate_hz`` that a packet holds; 0 if it is no Opus packet. Needs no decoder."""
    if not payload:
        return 0
    return max(0, int(library().opus_packet_get_nb_samples(payload, len(payload), rate_hz)))


class Decoder:
    """One stream, heard as mono. Not safe to share between threads. Raises OpusUnavailable.

    libopus makes mono of stereo by adding the channels, before it decodes them: of a voice that is turned over in one
    of them nothing is left. So from the first stereo packet on both channels are decoded, and mixed here. A stream that
    has none, as nearly all, costs what it did.
    """

    def __init__(self, rate_hz: int) -> None:
        self._lib = library()
        self._rate_hz = rate_hz
        self._last: bytes | None = None
        self._downmix: Downmix | None = None
        self._open(1)

    def _open(self, channels: int) -> None:
        status = ctypes.c_int(0)
        self._state = self._lib.opus_decoder_create(self._rate_hz, channels, ctypes.byref(status))
        if status.value != _OK:
            raise OpusError("opus_decoder_create", status.value)
        self._buffer = np.zeros((self._rate_hz * MAX_PACKET_MS // 1000, channels), dtype=np.float32)
        self._pointer = self._buffer.ctypes.data_as(_FLOAT_P)

    def decode(self, payload: bytes) -> FloatArray:
        """The samples of one packet. Raises OpusError if it is no Opus packet."""
        if not payload:  # libopus reads that as a loss
            raise OpusError("opus_decode_float", _INVALID_PACKET)
        if self._downmix is None:
            if payload[0] & _STEREO:
                self._hear_both()
            self._last = payload
        return self._decode(payload, len(self._buffer), fec=0)

    def recover(self, next_payload: bytes, samples: int) -> FloatArray:
        """``samples`` samples of a lost packet, from the FEC of the one after it if it carries any, else concealed.

        Raises OpusError for more than :data:`MAX_PACKET_MS`, or if the next packet is no Opus packet.
        """
        return self._decode(next_payload, samples, fec=1)

    def conceal(self, samples: int) -> FloatArray:
        """``samples`` samples (a multiple of 2.5 ms) in place of what was lost; fades out as losses go on."""
        most = len(self._buffer)
        pieces = [self._decode(None, min(most, samples - at), fec=0) for at in range(0, samples, most)]
        return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.float32)

    def _hear_both(self) -> None:
        """Another decoder, which has heard the packet before: it would begin in silence."""
        self._lib.opus_decoder_destroy(self._state)
        self._state = None
        self._open(2)
        if self._last is not None:
            with contextlib.suppress(OpusError):
                self._decode(self._last, len(self._buffer), fec=0)
        self._downmix = Downmix(np.array([0.5, 0.5], dtype=np.float32), self._rate_hz)

    def _decode(self, payload: bytes | None, samples: int, fec: int) -> FloatArray:
        if samples > len(self._buffer):  # libopus would write past its end
            raise OpusError("opus_decode_float", _BUFFER_TOO_SMALL)
        size = len(payload) if payload else 0
        made = self._lib.opus_decode_float(self._state, payload or None, size, self._pointer, samples, fec)
        if made < 0:
            raise OpusError("opus_decode_float", made)
        if self._downmix is None:
            return self._buffer[:made, 0].copy()
        # A crafted packet makes it so loud that squares are no numbers any more.
        return self._downmix.push(np.clip(self._buffer[:made], np.float32(-1), np.float32(1)))

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            self._lib.opus_decoder_destroy(self._state)


class Encoder:
    """One stream of speech, mono, with in-band FEC. Not safe to share between threads. Raises OpusUnavailable."""

    def __init__(self, rate_hz: int, bitrate: int, complexity: int = COMPLEXITY) -> None:
        self._lib = library()
        status = ctypes.c_int(0)
        self._state = self._lib.opus_encoder_create(rate_hz, 1, _APPLICATION_VOIP, ctypes.byref(status))
        if status.value != _OK:
            raise OpusError("opus_encoder_create", status.value)
        # Buffers of its own, for a pointer to an array is as dear to make as the array is to copy thrice.
        self._pcm = np.zeros(rate_hz * MAX_PACKET_MS // 1000, dtype=np.float32)
        self._pcm_pointer = self._pcm.ctypes.data_as(_FLOAT_P)
        self._packet = ctypes.create_string_buffer(_MAX_PACKET_BYTES)
        self._packet_view = memoryview(self._packet)
        self._control(_SET_BITRATE, bitrate)
        self._control(_SET_COMPLEXITY, complexity)
        self._control(_SET_SIGNAL, _SIGNAL_VOICE)
        self._control(_SET_INBAND_FEC, 1)

    def encode(self, pcm: FloatArray) -> bytes:
        """One packet of float32 samples within ±1; their number must be a frame size of Opus (2.5 to 60 ms).

        A packet of one or two bytes need not be sent: DTX has nothing to say (RFC 6716, section 2.1.9).
        """
        samples = pcm.size
        if samples > self._pcm.size:
            raise OpusError("opus_encode_float", _BAD_ARGUMENT)
        self._pcm[:samples] = pcm
        made = self._lib.opus_encode_float(self._state, self._pcm_pointer, samples, self._packet, _MAX_PACKET_BYTES)
        if made < 0:
            raise OpusError("opus_encode_float", made)
        return bytes(self._packet_view[:made])

    def set_bitrate(self, bitrate: int) -> None:
        self._control(_SET_BITRATE, bitrate)

    def set_expected_loss(self, percent: int) -> None:
        """How much FEC the packets carry: none at 0."""
        self._control(_SET_PACKET_LOSS_PERC, max(0, min(100, percent)))

    def set_dtx(self, on: bool) -> None:
        self._control(_SET_DTX, int(on))

    def _control(self, request: int, value: int) -> None:
        status = self._lib.opus_encoder_ctl(self._state, request, ctypes.c_int(value))
        if status != _OK:
            raise OpusError(f"opus_encoder_ctl {request}", status)

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            self._lib.opus_encoder_destroy(self._state)
