"""What the media plane and the engine say to each other: plain values, in msgpack on a wire.

A slot is always named with its generation. The generation goes up by one when a slot is opened, when it
is reset, and when another owner adopts it; messages that carry an older one are stale and ignored on both sides.

One engine serves the process that started it, or media nodes on other machines, which greet it first
(:class:`Hello`). Numbers are little-endian everywhere.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

import msgspec

from rtc_server.engine.model import MemoryUse, ModelInfo, PagesUse, TokenMark

PROTOCOL: Final = 2
"""Of the messages in this file: one more with each change of theirs that an older version would misread."""
PCM: Final = "<f4"
"""Type of the samples in a message, for numpy."""
_M = TypeVar("_M")
Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Secret = Annotated[bytes, msgspec.Meta(min_length=16, max_length=64)]
MEMO_BYTES: Final = 1024
Memo = Annotated[bytes, msgspec.Meta(max_length=MEMO_BYTES)]
FETCH_BYTES: Final = 2 * 1024 * 1024
"""Of a row's state, at most, in one answer of an engine."""
PUT_BYTES: Final = 48 * 1024
"""The same in one message to an engine: those are bounded more narrowly, for many may send them."""
RowBytes = Annotated[int, msgspec.Meta(ge=0, le=2**40)]


class Open(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Ask for a slot. Answered by :class:`Opened` or :class:`Refused` with the same ``stream``."""

    stream: int


class Frame(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """80 ms of microphone: ``pcm`` is 1,920 samples of type :data:`PCM`. Its number ``seq`` comes back in
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


class Lock(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Let another owner adopt the slot by a key: ``digest`` is the key's SHA-256, in place of an earlier one. ``memo``:
    kept with it for that owner; it means nothing to the engine. Not answered."""

    slot: int
    generation: int
    digest: Digest
    memo: Memo = b""


class Adopt(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Ask for the slot that was locked with the digest of ``key``, with all that the model remembers. Answered by
    :class:`Opened` or :class:`NotFound`. A key opens once; the owner so far gets :class:`Lost`."""

    stream: int
    key: Secret


class Export(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Copy the state of the slot's row as it is now, for another engine; the row goes on. Answered by :class:`Exported`
    or :class:`CannotMove`."""

    slot: int
    generation: int


class Fetch(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Ask for up to ``size`` bytes of the copy, from ``offset``. Answered by :class:`Part` or :class:`CannotMove`."""

    slot: int
    generation: int
    offset: RowBytes
    size: Annotated[int, msgspec.Meta(ge=0, le=FETCH_BYTES)]


class Import(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Ask for a slot in which a conversation of another engine goes on, that has heard ``heard`` frames. Its state
    follows in :class:`Put`. Answered by :class:`Opened` or :class:`Refused`."""

    stream: int
    row_format: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    heard: RowBytes


class Put(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The next bytes of the state. Frames are heard once it is whole. Answered by :class:`Taken` or
    :class:`CannotMove`."""

    slot: int
    generation: int
    data: Annotated[bytes, msgspec.Meta(max_length=PUT_BYTES)]


class Hello(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Greet an engine on another machine. Answered by :class:`Ready`, or by :class:`OtherVersion`."""

    protocol: int


class Goodbye(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Give all slots back and be forgotten; but what is locked is left to the media node that has its key, for as
    long as the slots of a node that is silent. Not answered."""


class Ping(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Say something: answered by :class:`Pong` between two steps."""


class Drain(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Open no more slots, and end the engine when none is in use."""


class Stop(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """End the engine."""


FromNode = Open | Frame | Reset | Close | Ping | Lock | Adopt | Export | Fetch | Import | Put | Hello | Goodbye
"""What a media node may say to an engine that it did not start."""
ToEngine = FromNode | Drain | Stop


class Ready(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The model is loaded and warm: what it is, what it holds, and how long a step took when it was timed (0 if it was
    not). ``pages``: as in :class:`Pong`."""

    info: ModelInfo
    memory: MemoryUse = MemoryUse()
    step_s: float = 0.0
    pages: PagesUse | None = None


class MemoryChanged(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """What the model holds is no longer what was told last."""

    memory: MemoryUse


class LoadFailed(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The model cannot be loaded; for the person at the terminal."""

    message: str
    hint: str | None


class Opened(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The slot is yours. Of one that was adopted: ``heard``, how many frames its conversation has heard so far; the
    ``memo`` of its last :class:`Lock`, and ``memo_age_s``, how long ago that was."""

    stream: int
    slot: int
    generation: int
    heard: int = 0
    memo: bytes = b""
    memo_age_s: float = 0.0


class Refused(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """No slot is free, or there is no memory for another conversation."""

    stream: int


class NotFound(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """No slot is locked with this key: it is over, or was adopted."""

    stream: int


class Lost(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The slot has another owner now."""

    slot: int
    generation: int


class Exported(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """There is a copy of the row, of ``size`` bytes, from after the frame ``seq``, the ``heard``-th of its
    conversation."""

    slot: int
    generation: int
    size: int
    heard: int
    seq: int


class Part(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Bytes of the copy from ``offset``."""

    slot: int
    generation: int
    offset: int
    data: bytes


class Taken(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """So many bytes of a state are in the slot's row; ``whole``: it can be stepped."""

    slot: int
    generation: int
    written: int
    whole: bool


class CannotMove(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """There is no copy of the slot's row: its model has no state that can be moved, or one that is another. Or there
    will be one later (``busy``): the row of another slot is being copied."""

    slot: int
    generation: int
    busy: bool = False


class OtherVersion(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The engine speaks this version of the protocol, and not that of the greeting."""

    protocol: int


class Stranger(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The engine does not know who speaks: it was started again since the greeting, or heard nothing for so long that
    the slots have gone."""


class Pong(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The engine goes from step to step. ``elsewhere``: slots that others hold than the one that asked. ``pages``: the
    memory that all slots share; None where each has its own."""

    elsewhere: int = 0
    pages: PagesUse | None = None


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
    """One batched step: how long it took, and what each active row of this owner made.

    ``dropped``: input frames thrown away since the last step because a slot's queue was full. ``rows``: of the whole
    step, told to one of its owners, who counts it; 0 to the others.
    """

    seconds: float
    dropped: int
    outputs: list[Output]
    rows: int = 0


AboutRow = Exported | Part | Taken | CannotMove
"""What an engine says while a row moves."""
FromEngine = (
    Ready
    | MemoryChanged
    | LoadFailed
    | Opened
    | Refused
    | NotFound
    | Lost
    | OtherVersion
    | Stranger
    | Pong
    | StepDone
    | AboutRow
)

_encoder: Final = msgspec.msgpack.Encoder()
_to_engine: Final[msgspec.msgpack.Decoder[ToEngine]] = msgspec.msgpack.Decoder(ToEngine)
_from_node: Final[msgspec.msgpack.Decoder[FromNode]] = msgspec.msgpack.Decoder(FromNode)
_from_engine: Final[msgspec.msgpack.Decoder[FromEngine]] = msgspec.msgpack.Decoder(FromEngine)


def encode(message: ToEngine | FromEngine) -> bytes:
    return _encoder.encode(message)


def decode_to_engine(raw: bytes) -> ToEngine:
    """Raises msgspec.DecodeError on anything else than a :data:`ToEngine`."""
    return _decode(_to_engine, raw)


def decode_from_node(raw: bytes) -> FromNode:
    """Raises msgspec.DecodeError on anything else than a :data:`FromNode`."""
    return _decode(_from_node, raw)


def decode_from_engine(raw: bytes) -> FromEngine:
    """Raises msgspec.DecodeError on anything else than a :data:`FromEngine`."""
    return _decode(_from_engine, raw)


def _decode(decoder: msgspec.msgpack.Decoder[_M], raw: bytes) -> _M:
    try:
        return decoder.decode(raw)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None
