"""What the media plane and a translator's process say to each other: plain values, in msgpack.

Each :class:`Job` is answered once, by :class:`Done` or :class:`Failed`, also one that was called off. Where the way
is the same as that of other engines, so are the messages.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from rtc_server.audio import FloatArray
from rtc_server.engine.messages import PCM, LoadFailed, Ping, Pong, Stop
from rtc_server.errors import ServerError, TranslationFailed, TranslationLate, UnsupportedPair
from rtc_server.translation.model import TranslatorInfo


class Job(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Translate an utterance within ``within_s`` from now: after that it need not be done. ``pcm``: samples of type
    :data:`rtc_server.engine.messages.PCM`. The rest is as in :class:`rtc_server.translation.model.Utterance`."""

    number: int
    within_s: float
    source: str
    target: str
    text: str
    pcm: bytes | None
    voice: int
    speak: bool


class Forget(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """No caller waits for the job any more."""

    number: int


class Loaded(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The model is loaded and warm."""

    info: TranslatorInfo


class Done(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """``seconds``: how long the batch took that the job was in."""

    number: int
    seconds: float
    text: str
    original: str
    pcm: bytes | None


class Failed(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """``code``: one of :data:`ERRORS`."""

    number: int
    code: str


ToTranslator = Job | Forget | Ping | Stop
FromTranslator = Loaded | LoadFailed | Done | Failed | Pong

ERRORS: Final[dict[str, type[ServerError]]] = {
    error.code: error for error in (TranslationFailed, TranslationLate, UnsupportedPair)
}
"""What may go wrong with one utterance, by code."""

_encoder: Final = msgspec.msgpack.Encoder()
_to_translator: Final[msgspec.msgpack.Decoder[ToTranslator]] = msgspec.msgpack.Decoder(ToTranslator)
_from_translator: Final[msgspec.msgpack.Decoder[FromTranslator]] = msgspec.msgpack.Decoder(FromTranslator)


def encode(message: ToTranslator | FromTranslator) -> bytes:
    return _encoder.encode(message)


def decode_to_translator(raw: bytes) -> ToTranslator:
    """Raises msgspec.DecodeError on anything else than a :data:`ToTranslator`."""
    return _to_translator.decode(raw)


def decode_from_translator(raw: bytes) -> FromTranslator:
    """Raises msgspec.DecodeError on anything else than a :data:`FromTranslator`."""
    return _from_translator.decode(raw)


def pack_pcm(pcm: FloatArray | None) -> bytes | None:
    return None if pcm is None else pcm.astype(PCM, copy=False).tobytes()


def unpack_pcm(raw: bytes | None) -> FloatArray | None:
    """A view of ``raw``, which cannot be written to."""
    return None if raw is None else np.frombuffer(raw, dtype=PCM).astype(np.float32, copy=False)
