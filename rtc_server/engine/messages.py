"""What the media plane and the engine say to each other: plain values, in msgpack on a wire.

A slot is always named with its generation. The generation goes up by one when a slot is opened and when it
is reset; messages that carry an older one are stale and ignored on both sides.
"""

from __future__ import annotations

from typing import Final

import msgspec

from rtc_server.engine.model import MemoryUse, ModelInfo, TokenMark


class Open(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Ask for a slot. Answered by :class:`Opened` or :class:`Refused` with the same ``stream``."""

    stream: int


class Frame(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """80 ms of microphone: ``pcm`` is 1,920 float32 samples in native byte order. Its number ``seq`` comes back in
    :class:`Output`, by which the sender knows when it sent it: no time of one side's clock means anything to the
    other."""

    slot: int
    generation: int
    seq: int
    pcm: bytes


class Reset(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Wipe the slot's state and go on in it, one generation later. Not answered."""

    slot: int
    generation: int


class Close(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Give the slot back. Not answered."""

    slot: int
    generation: int


class Ping(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Say something: answered by :class:`Pong` between two steps."""


class Stop(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """End the engine."""


ToEngine = Open | Frame | Reset | Close | Ping | Stop


class Ready(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The model is loaded and warm: what it is, what it holds, and how long a step took when it was timed (0 if it was
    not)."""

    info: ModelInfo
    memory: MemoryUse = MemoryUse()
    step_s: float = 0.0


class MemoryChanged(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """What the model holds is no longer what was told last."""

    memory: MemoryUse


class LoadFailed(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The model cannot be loaded; for the person at the terminal."""

    message: str
    hint: str | None


class Opened(msgspec.Struct, frozen=True, tag=True, array_like=True):
    stream: int
    slot: int
    generation: int


class Refused(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """No slot is free."""

    stream: int


class Pong(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The engine goes from step to step."""


class Output(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """What one slot made of the frame ``seq``; ``pcm`` as in :class:`Frame`, or None."""

    slot: int
    generation: int
    seq: int
    pcm: bytes | None
    text: str
    pauses: tuple[float, ...] = ()
    mark: TokenMark = TokenMark.NONE


class StepDone(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """One batched step: how long it took, and what each active row made.

    ``dropped``: input frames thrown away since the last step because a slot's queue was full.
    """

    seconds: float
    dropped: int
    outputs: list[Output]


FromEngine = Ready | MemoryChanged | LoadFailed | Opened | Refused | Pong | StepDone

_encoder: Final = msgspec.msgpack.Encoder()
_to_engine: Final = msgspec.msgpack.Decoder(ToEngine)
_from_engine: Final = msgspec.msgpack.Decoder(FromEngine)


def encode(message: ToEngine | FromEngine) -> bytes:
    return _encoder.encode(message)


def decode_to_engine(raw: bytes) -> ToEngine:
    """Raises msgspec.DecodeError on anything else than a :data:`ToEngine`."""
    try:
        message: ToEngine = _to_engine.decode(raw)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None
    return message


def decode_from_engine(raw: bytes) -> FromEngine:
    """Raises msgspec.DecodeError on anything else than a :data:`FromEngine`."""
    try:
        message: FromEngine = _from_engine.decode(raw)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None
    return message
