"""The messages of ``/api/asr-streaming``: ``docs/protocol.md``, section 1, and Kyutai's Rust moshi-server.

Turns msgpack into typed messages and back, for both ends. Knows nothing of sockets, streams or clocks.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
import numpy as np

from rtc_server.audio import FloatArray
from rtc_server.errors import BadMessage, MessageTooLarge

MAX_SAMPLES: Final = 240_000
"""Of one ``Audio``: 10 s."""
MAX_MESSAGE_BYTES: Final = 9 * MAX_SAMPLES + 1024
"""The largest ``Audio``, in double precision, and its field names."""

MarkerId = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

_FLOAT32: Final = np.dtype([("tag", "u1"), ("value", ">f4")])
_FLOAT64: Final = np.dtype([("tag", "u1"), ("value", ">f8")])
_FLOAT32_TAG: Final = 0xCA
_FLOAT64_TAG: Final = 0xCB


class Init(msgspec.Struct, frozen=True, tag="Init"):
    """Nothing that the server does not know."""


class Audio(msgspec.Struct, frozen=True, tag="Audio"):
    """``pcm``: float32, mono at 24 kHz, at most :data:`MAX_SAMPLES`; not finite where the client's is not."""

    pcm: FloatArray


class OggOpus(msgspec.Struct, frozen=True, tag="OggOpus"):
    """``data``: the next bytes of one Ogg/Opus stream."""

    data: bytes


class Marker(msgspec.Struct, frozen=True, tag="Marker"):
    """Comes back, with its ``id``, when the audio before it has been transcribed."""

    id: MarkerId


ClientMessage = Init | Audio | OggOpus | Marker


class Ready(msgspec.Struct, frozen=True, tag="Ready"):
    """The stream is open."""


class Word(msgspec.Struct, frozen=True, tag="Word"):
    """A word is complete. ``start_time``: in seconds of the stream's audio."""

    text: str
    start_time: float


class EndWord(msgspec.Struct, frozen=True, tag="EndWord"):
    """When the last word ended, in seconds of the stream's audio."""

    stop_time: float


class Step(msgspec.Struct, frozen=True, tag="Step"):
    """The model has heard ``step_idx`` frames. ``prs``: how likely a pause is, by each head. ``buffered_pcm``:
    samples that it has not heard yet."""

    step_idx: int
    prs: tuple[float, ...]
    buffered_pcm: int


class Error(msgspec.Struct, frozen=True, tag="Error", omit_defaults=True):
    """The last message. ``code``: as in ``docs/protocol.md``, section 4; Kyutai's has none."""

    message: str
    code: str = ""


ServerMessage = Ready | Word | EndWord | Marker | Step | Error


class _RawAudio(msgspec.Struct, frozen=True, tag="Audio"):
    pcm: msgspec.Raw


class _RawOggOpus(msgspec.Struct, frozen=True, tag="OggOpus"):
    # Serde reads and writes Vec<u8> as an array of numbers; other encoders have a type for bytes.
    data: bytes | list[Annotated[int, msgspec.Meta(ge=0, le=255)]]


_encoder: Final = msgspec.msgpack.Encoder()
_from_client: Final = msgspec.msgpack.Decoder(Init | _RawAudio | _RawOggOpus | Marker)
_from_server: Final = msgspec.msgpack.Decoder(ServerMessage)
_numbers: Final = msgspec.msgpack.Decoder(list[float])


def parse_client_message(raw: bytes) -> ClientMessage:
    """The typed form of one binary message.

    Raises MessageTooLarge over :data:`MAX_MESSAGE_BYTES`, BadMessage for anything that is not one of the four messages
    with fields of the right types, or is more audio than that. Further fields are ignored, as serde does.
    """
    if len(raw) > MAX_MESSAGE_BYTES:
        raise MessageTooLarge(MAX_MESSAGE_BYTES)
    try:
        message: Init | _RawAudio | _RawOggOpus | Marker = _from_client.decode(raw)
        if isinstance(message, _RawAudio):
            return Audio(_samples(bytes(message.pcm)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadMessage from None
    if isinstance(message, _RawOggOpus):
        return OggOpus(bytes(message.data))
    return message


def encode_server_message(message: ServerMessage) -> bytes:
    return _encoder.encode(message)


def parse_server_message(raw: bytes) -> ServerMessage:
    """For clients. Raises BadMessage."""
    try:
        message: ServerMessage = _from_server.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadMessage from None
    return message


def encode_client_message(message: ClientMessage) -> bytes:
    """For clients: audio in single precision, as Kyutai's own send it."""
    if not isinstance(message, Audio):
        return _encoder.encode(message)
    samples = np.empty(message.pcm.size, dtype=_FLOAT32)
    samples["tag"] = _FLOAT32_TAG
    samples["value"] = message.pcm
    array = b"\xdd" + message.pcm.size.to_bytes(4, "big") + samples.tobytes()
    return _encoder.encode(_RawAudio(msgspec.Raw(array)))


def _samples(array: bytes) -> FloatArray:
    """The numbers of a whole msgpack array as float32; what is too large for that is infinite."""
    count, start = _array_header(array)
    if count > MAX_SAMPLES:
        raise BadMessage(f"An Audio message may have at most {MAX_SAMPLES} samples.")
    with np.errstate(over="ignore"):
        for dtype, tag in ((_FLOAT32, _FLOAT32_TAG), (_FLOAT64, _FLOAT64_TAG)):
            # All of one kind, as encoders of typed languages write them: no Python object for each sample.
            if len(array) - start == count * dtype.itemsize:
                numbers = np.frombuffer(array, dtype=dtype, offset=start)
                if (numbers["tag"] == tag).all():
                    return numbers["value"].astype(np.float32)
        return np.array(_numbers.decode(array), dtype=np.float32)


def _array_header(array: bytes) -> tuple[int, int]:
    """How many elements, and where the first begins (the msgpack specification, "array format family")."""
    match array[0]:
        case first if first & 0xF0 == 0x90:  # noqa: PLR2004 - fixarray
            return first & 0x0F, 1
        case 0xDC:
            return int.from_bytes(array[1:3], "big"), 3
        case 0xDD:
            return int.from_bytes(array[1:5], "big"), 5
        case _:
            raise BadMessage
