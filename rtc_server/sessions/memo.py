"""What a session leaves with its engine for another media node, so that its client can go on there if this node dies.

The engine keeps it beside the slot's key and does not read it. Pure: no clock; the engine says how old a memo is.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from rtc_server.errors import ResumeRefused
from rtc_server.protocols.events import StatsInterval

RESERVED: Final = 512
"""Numbers of events that a memo is ahead of those that were given away: twice as many as a session keeps. Those that it
says after its last memo are none that another node would use."""
_MARGIN: Final = RESERVED // 2


class Memo(msgspec.Struct, frozen=True, array_like=True):
    """A session, without what its model remembers. ``last_seq``: no event has a higher number. ``age_s``: since it was
    opened; ``time_s``: since its media first connected, None if it never did. ``frames_before``: of the microphone,
    that the slot's model has not heard: an earlier engine has died."""

    muted: bool
    stats_interval_ms: StatsInterval
    captions: bool
    last_seq: int
    age_s: float
    time_s: float | None
    frames_before: int = 0

    def covers(self, seq: int) -> bool:
        """Whether an event of this number is well below those that another node would use."""
        return seq <= self.last_seq - _MARGIN


_decoder: Final = msgspec.msgpack.Decoder(Memo)


def write(memo: Memo) -> bytes:
    return msgspec.msgpack.encode(memo)


def read(raw: bytes) -> Memo:
    """Raises ResumeRefused for what another release may have written, or what holds no session."""
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ResumeRefused from None


def slot_key(token: str, session_id: str, principal: str) -> bytes:
    """The key of a session's slot, which follows from its resume token: a client that has the token, and is the one
    that opened the session, opens the slot, and the engine never sees the token."""
    made = hashlib.sha256()
    for part in (token, session_id, principal):
        raw = part.encode("utf-8", "surrogatepass")
        made.update(len(raw).to_bytes(8, "big") + raw)
    return made.digest()
