"""Moshi's WebSocket messages, as Kyutai's servers and clients have them: a byte for the kind, then the payload.

Wire format alone: no sockets, no codec. Two kinds of client that speak it without the first byte, in one direction or
both, are dialects (:class:`Dialect`). ``docs/protocol.md``, section 9.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final


class Kind(enum.IntEnum):
    """The first byte of a message. Those that no server of Kyutai's obeys are here to be ignored by name."""

    HANDSHAKE = 0
    AUDIO = 1
    TEXT = 2
    CONTROL = 3
    METADATA = 4
    ERROR = 5
    PING = 6


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a client frames what it sends and wants what it gets.

    ``handshake``: it waits for one. ``tagged``: its audio has the first byte; else each message is Ogg. ``speaks``: it
    wants audio. ``text``: the kind that its text has. ``errors``: it knows messages of :attr:`Kind.ERROR`.
    """

    handshake: bool
    tagged: bool
    speaks: bool
    text: Kind
    errors: bool


MOSHI: Final = Dialect(handshake=True, tagged=True, speaks=True, text=Kind.TEXT, errors=True)
QUILLMAN: Final = Dialect(handshake=False, tagged=False, speaks=True, text=Kind.TEXT, errors=False)
TRANSCRIPT: Final = Dialect(handshake=False, tagged=False, speaks=False, text=Kind.AUDIO, errors=False)
"""Text under the number that audio has elsewhere: there is no audio to confuse it with."""

HANDSHAKE_MESSAGE: Final = bytes([Kind.HANDSHAKE])
"""As Kyutai's server in Python sends it; the one in Rust adds two version numbers, which no client reads."""


def audio_of(message: bytes, dialect: Dialect) -> bytes:
    """The Ogg bytes in a client's message; empty for one that has none: a kind that is not audio is ignored, as by
    Kyutai's servers."""
    if not dialect.tagged:
        return message
    return message[1:] if message[:1] == bytes([Kind.AUDIO]) else b""


def encode_audio(ogg: bytes) -> bytes:
    """Bytes of the Ogg stream, cut anywhere."""
    return bytes([Kind.AUDIO]) + ogg


def encode_text(text: str, dialect: Dialect) -> bytes:
    """A piece of text, whole characters. Clients put one behind the other, with nothing between."""
    return bytes([dialect.text]) + text.encode()


def encode_error(message: str) -> bytes:
    """A sentence for the user."""
    return bytes([Kind.ERROR]) + message.encode()
