"""The session's state table.

All states and all moves between them stand in one table; an illegal move raises and changes nothing. Pure:
no IO, no clock. The session that lives on the network is :class:`rtc_server.sessions.session.Session`.
"""

from __future__ import annotations

import enum
import hashlib
import logging
import secrets
from typing import Final

from rtc_server.errors import IllegalTransition

logger = logging.getLogger(__name__)


class SessionState(enum.StrEnum):
    CONNECTING = "connecting"
    """Answered; the peer's media path is not up yet."""
    LISTENING = "listening"
    """Connected; the model is quiet."""
    SPEAKING = "speaking"
    """Connected; the model's voice is audible."""
    WAITING = "waiting"
    """The media path is dead. The slot keeps the model's state until the client is back or the grace is over."""
    ENDED = "ended"
    """Over; nothing is held any more, or is being released right now."""


class SessionEvent(enum.StrEnum):
    CONNECTED = "connected"
    VOICE_STARTED = "voice_started"
    VOICE_STOPPED = "voice_stopped"
    RESET = "reset"
    TAKEN_OVER = "taken_over"
    PATH_LOST = "path_lost"
    END = "end"


_S = SessionState
_E = SessionEvent

TRANSITIONS: Final[dict[tuple[SessionState, SessionEvent], SessionState]] = {
    (_S.CONNECTING, _E.CONNECTED): _S.LISTENING,
    (_S.CONNECTING, _E.TAKEN_OVER): _S.WAITING,
    (_S.CONNECTING, _E.END): _S.ENDED,
    (_S.LISTENING, _E.VOICE_STARTED): _S.SPEAKING,
    (_S.LISTENING, _E.RESET): _S.LISTENING,
    (_S.LISTENING, _E.PATH_LOST): _S.WAITING,
    (_S.LISTENING, _E.END): _S.ENDED,
    (_S.SPEAKING, _E.VOICE_STOPPED): _S.LISTENING,
    (_S.SPEAKING, _E.RESET): _S.LISTENING,
    (_S.SPEAKING, _E.PATH_LOST): _S.WAITING,
    (_S.SPEAKING, _E.END): _S.ENDED,
    (_S.WAITING, _E.CONNECTED): _S.LISTENING,
    (_S.WAITING, _E.END): _S.ENDED,
}


class EndReason(enum.StrEnum):
    """Why a session ended: the ``reason`` of ``disconnected``."""

    BYE = "bye"
    DELETED = "deleted"
    CONNECT_TIMEOUT = "connect_timeout"
    PEER_LOST = "peer_lost"
    HANDSHAKE_FAILED = "handshake_failed"
    """The media path came up, but client and server could not agree on keys."""
    ENGINE_FAILED = "engine_failed"
    ENGINE_UNAVAILABLE = "engine_unavailable"
    """The model that the session waited for did not come."""
    SERVER_SHUTDOWN = "server_shutdown"
    MOVED = "moved"
    """The server stops, and its client goes on in the same conversation by another one."""
    TIME_LIMIT = "time_limit"
    PROTOCOL_ABUSE = "protocol_abuse"
    INTERNAL = "internal"
    LEFT = "left"
    """Its client is a member of its room no more, or has another session as one."""
    REFUSED = "refused"
    """It never began: the offer could not be answered. No client is told on a data channel."""


class SessionMachine:
    """One session's state."""

    def __init__(self, log_id: str) -> None:
        self._log_id = log_id
        self.state = SessionState.CONNECTING

    @property
    def live(self) -> bool:
        return self.state in (SessionState.LISTENING, SessionState.SPEAKING)

    def apply(self, event: SessionEvent) -> SessionState:
        """Move; returns the new state. Raises IllegalTransition and stays where it is if the table has none."""
        after = TRANSITIONS.get((self.state, event))
        if after is None:
            raise IllegalTransition("session", self.state, event)
        if after is not self.state:
            logger.debug("session %s: %s -> %s", self._log_id, self.state, after)
        self.state = after
        return after


class SessionId:
    """An unguessable id that says where its session lives: ``node-worker-secret``.

    A client that has the text of it may end the session, so logs carry :attr:`log_id` instead, which identifies
    the session as well and opens nothing.
    """

    __slots__ = ("log_id", "text")

    def __init__(self, node: str, worker: int) -> None:
        self.text = f"{node}-{worker}-{secrets.token_urlsafe(16)}"
        digest = hashlib.blake2s(self.text.encode(), digest_size=4).hexdigest()
        self.log_id = f"{node}-{worker}-{digest}"

    def __str__(self) -> str:
        return self.text
