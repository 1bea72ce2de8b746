"""Audio in events: which formats there are, and base64 to bytes and back. What the bytes mean is ``media.plain``'s."""

from __future__ import annotations

import binascii
import enum
from collections.abc import Collection

from rtc_server.protocols.openai.errors import BadEvent


class AudioFormat(enum.Enum):
    """Name, rate in Hz, and bytes of a sample. All are mono; ``audio/pcm`` is 16 bits, little-endian."""

    PCM_24K = ("audio/pcm", 24_000, 2)
    PCM_16K = ("audio/pcm", 16_000, 2)
    PCMU = ("audio/pcmu", 8_000, 1)
    PCMA = ("audio/pcma", 8_000, 1)

    def __init__(self, type_: str, rate_hz: int, sample_bytes: int) -> None:
        self.type = type_
        self.rate_hz = rate_hz
        self.sample_bytes = sample_bytes

    def as_dict(self) -> dict[str, str | int]:
        """As sessions are described with it."""
        return {"type": self.type, "rate": self.rate_hz}


LIVE_FORMATS = tuple(AudioFormat)
REALTIME_FORMATS = (AudioFormat.PCM_24K, AudioFormat.PCMU, AudioFormat.PCMA)


def find_format(type_: str, rate_hz: int | None, formats: Collection[AudioFormat], param: str) -> AudioFormat:
    """The format that a client names. ``rate_hz``: None is the first that there is of the type. ``param``: where the
    client named it, for the error. Raises BadEvent."""
    for each in formats:
        if each.type == type_ and rate_hz in (None, each.rate_hz):
            return each
    known = ", ".join(f"{each.type} at {each.rate_hz} Hz" for each in formats)
    raise BadEvent("invalid_value", f"There is no such audio format here. There are: {known}.", param)


def decode_audio(text: str, audio_format: AudioFormat, param: str = "audio") -> bytes:
    """The bytes of an event's audio: whole samples. Raises BadEvent."""
    try:
        raw = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        raise BadEvent("invalid_value", "The audio is not base64.", param) from None
    if len(raw) % audio_format.sample_bytes:
        raise BadEvent("invalid_value", "The audio ends within a sample: it has an odd number of bytes.", param)
    return raw


def encode_audio(raw: bytes) -> str:
    """Bytes of audio as an event has them."""
    return binascii.b2a_base64(raw, newline=False).decode("ascii")
