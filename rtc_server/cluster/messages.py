"""What engines and media nodes say to their pool, and the pool to them: plain values, in msgpack on a wire.

All that a pool knows, it knows from these: engines and nodes speak up each second, and a pool that is started again
has heard all of them a second later.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

import msgspec

from rtc_server.cluster.policy import Phase

PROTOCOL: Final = 1
"""Of the messages in this file: one more with each change of theirs that an older version would misread."""
EVERY_S: Final = 1.0
"""How often an engine and a media node speak up."""
MAX_ENGINES: Final = 1_024
MAX_NODES: Final = 1_024
_M = TypeVar("_M")
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class Beat(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """An engine is there. ``name``: as the pool calls it; ``life``: of this process of it. ``slots``: 0 until the model
    is loaded; ``used``: those kept for a media node that is away included; ``idle_s``: for how long none has been;
    ``load_s``: how long it took to be ready, 0 until it is. Not answered, but for :class:`OtherProtocol`."""

    protocol: int
    name: Name
    life: Name
    service: Name
    address: Annotated[str, msgspec.Meta(max_length=300)]
    phase: Phase
    slots: Count = 0
    used: Count = 0
    idle_s: Seconds = 0.0
    load_s: Seconds = 0.0


class Gone(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A process of an engine has ended; what was in it is over."""

    life: Name


class Ask(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A media node is there; so many clients of each service wait for a slot. Answered by :class:`Roster`, now and
    whenever it changes. ``process``: which of its media processes asks, ``NODE-WORKER``; ``url``: where that is for
    other nodes; empty: it is not. ``known``: the edition of the peers that it has been told of."""

    protocol: int
    waiting: Annotated[dict[Name, Count], msgspec.Meta(max_length=16)]
    process: Annotated[str, msgspec.Meta(max_length=80)] = ""
    url: Annotated[str, msgspec.Meta(max_length=300)] = ""
    known: int = 0


ToPool = Beat | Gone | Ask


class Listed(msgspec.Struct, frozen=True, array_like=True):
    """An engine whose model is loaded."""

    life: Name
    service: Name
    address: str
    phase: Phase


class Outlook(msgspec.Struct, frozen=True, array_like=True):
    """What is to be expected of a service: in how many seconds it will have another engine, by what earlier ones took.
    None: it has all that it may have."""

    service: Name
    starts_in_s: float | None


class Peers(msgspec.Struct, frozen=True, array_like=True):
    """Where media processes are for other nodes: URLs, by process. ``edition``: another number with each change, and of
    each pool."""

    edition: int
    urls: dict[str, str]


class Roster(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The engines that can be used. ``gone``: lives that ended lately. ``peers``: None for a node that knows them."""

    engines: list[Listed]
    outlooks: list[Outlook]
    gone: list[str] = []
    peers: Peers | None = None


class OtherProtocol(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The pool speaks this version of the protocol, and not that of the message."""

    protocol: int


FromPool = Roster | OtherProtocol

_encoder: Final = msgspec.msgpack.Encoder()
_to_pool: Final[msgspec.msgpack.Decoder[ToPool]] = msgspec.msgpack.Decoder(ToPool)
_from_pool: Final[msgspec.msgpack.Decoder[FromPool]] = msgspec.msgpack.Decoder(FromPool)


def encode(message: ToPool | FromPool) -> bytes:
    return _encoder.encode(message)


def decode_to_pool(raw: bytes) -> ToPool:
    """Raises msgspec.DecodeError on anything else than a :data:`ToPool`."""
    return _decode(_to_pool, raw)


def decode_from_pool(raw: bytes) -> FromPool:
    """Raises msgspec.DecodeError on anything else than a :data:`FromPool`."""
    return _decode(_from_pool, raw)


def _decode(decoder: msgspec.msgpack.Decoder[_M], raw: bytes) -> _M:
    try:
        return decoder.decode(raw)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None
