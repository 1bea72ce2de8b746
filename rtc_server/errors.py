"""The exception tree.

Each class carries a stable code, the HTTP status that goes with it, whether trying again may help, and
a sentence made for the peer. Exceptions hold fields and build their text from them; the text of a
foreign exception never reaches a peer. The codes are listed in ``docs/protocol.md``, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class ServerError(Exception):
    """Base of all typed errors: what a peer may be told about what went wrong."""

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = True
    retry_after_s: int | None = None
    message: str = "The server made a mistake. Try again."

    def __init__(self, message: str | None = None) -> None:
        if message is not None:
            self.message = message
        super().__init__(self.message)

    def as_dict(self) -> dict[str, str | bool]:
        """The error as peers see it: ``code``, ``message``, ``retryable``."""
        return {"code": self.code, "message": self.message, "retryable": self.retryable}


class InternalError(ServerError):
    """A fault of ours."""


class BadRequest(ServerError):
    code = "bad_request"
    http_status = 400
    retryable = False
    message = "The request cannot be understood."


class BadSdp(BadRequest):
    code = "bad_sdp"
    message = "The offer's SDP cannot be parsed."


class UnsupportedMediaType(BadRequest):
    code = "unsupported_media_type"
    http_status = 415

    def __init__(self, expected: str, message: str | None = None) -> None:
        self.expected = expected
        super().__init__(message or f"The content type must be {expected}.")


class TooLarge(BadRequest):
    code = "too_large"
    http_status = 413

    def __init__(self, limit_bytes: int, message: str | None = None) -> None:
        self.limit_bytes = limit_bytes
        super().__init__(message or f"The body is larger than {limit_bytes} bytes.")


class NoAudio(BadRequest):
    code = "no_audio"
    http_status = 422
    message = "The offer has no audio section."


class NoCommonCodec(BadRequest):
    code = "no_common_codec"
    http_status = 422
    message = "None of the offered audio codecs is supported. Offer Opus, G.722, PCMU or PCMA."


class UnknownService(BadRequest):
    code = "unknown_service"
    http_status = 404

    def __init__(self, known: tuple[str, ...]) -> None:
        self.known = known
        super().__init__(f"No such service. This server has: {', '.join(known)}.")


class UnknownRoom(BadRequest):
    code = "unknown_room"
    http_status = 404
    message = "There is no such room, or all have left it."


class UnknownMember(BadRequest):
    code = "unknown_member"
    http_status = 403
    message = "This is no member of the room, or not any more. Join it again."


class UnknownLanguage(BadRequest):
    code = "unknown_language"

    def __init__(self, languages: Sequence[str]) -> None:
        self.languages = tuple(languages)
        known = ", ".join(self.languages)
        super().__init__(f"This language is not spoken in rooms of this server. There are: {known or 'none'}.")


class UnknownSession(BadRequest):
    code = "unknown_session"
    http_status = 404
    message = "No such session, or it has ended."


class NotFound(BadRequest):
    code = "not_found"
    http_status = 404
    message = "There is nothing here."


class MethodNotAllowed(BadRequest):
    code = "method_not_allowed"
    http_status = 405
    message = "That method does not work here."


class SessionEnded(BadRequest):
    """Asked about a session that ended a short while ago."""

    code = "session_ended"
    http_status = 410

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        super().__init__(f"The session has ended ({reason}). {detail}".rstrip())


class ResumeRefused(BadRequest):
    code = "resume_refused"
    http_status = 403
    message = "The session cannot be resumed with this token."


class Unauthorized(BadRequest):
    code = "unauthorized"
    http_status = 401
    message = "This server wants a key or a token."


class Forbidden(BadRequest):
    code = "forbidden"
    http_status = 403
    message = "The key or token is valid, but not for this."


class OriginRefused(BadRequest):
    code = "origin_refused"
    http_status = 403
    message = "Pages of this origin may not use this server. Its operator can allow it with --allow-origins."


class HostRefused(BadRequest):
    code = "host_refused"
    http_status = 421
    message = (
        "This server serves its own machine, and does not answer to that name. Open it as localhost; the address of a "
        "proxy in front of it goes into --public-url."
    )


class RequestTimeout(BadRequest):
    code = "request_timeout"
    http_status = 408
    retryable = True
    message = "The request did not arrive in time."


class BadCandidate(BadRequest):
    code = "bad_candidate"
    message = "The candidates cannot be parsed."


class NotAudio(BadRequest):
    code = "not_audio"
    http_status = 422
    message = "The file holds no audio that can be decoded."


class FileUnreadable(NotAudio):
    """Decoding it costs more than it may, or breaks the decoder: a mistake of the file's, or one made with intent."""

    code = "file_unreadable"
    message = "The decoder broke down over the file."


class TimeLimit(BadRequest):
    """More seconds than the server, or a token, lets a session have."""

    code = "time_limit"
    http_status = 413
    message = "It takes longer than a session may."


class PreconditionRequired(BadRequest):
    code = "precondition_required"
    http_status = 428
    message = "The request needs an If-Match header with the session's ETag."


class PreconditionFailed(BadRequest):
    code = "precondition_failed"
    http_status = 412
    message = "The ETag is not that of the session's connection."


class RestartUnsupported(BadRequest):
    code = "ice_restart_unsupported"
    http_status = 422
    message = "This server does not restart ICE. Make a new offer; the session goes on as it was."


class Unavailable(ServerError):
    """The door is shut for now; the same request may work a little later."""

    http_status = 503
    retry_after_s = 5


class ServerFull(Unavailable):
    code = "server_full"
    message = "Every slot is taken. Try again in a few seconds."


class Overloaded(Unavailable):
    code = "overloaded"
    message = "The model is at its limit. Try again in a few seconds."


class TooManyConnections(Unavailable):
    code = "too_many_connections"
    message = "The server has as many connections as it may have. Try again in a few seconds."


class EngineUnavailable(Unavailable):
    code = "engine_unavailable"
    message = "The model is not ready yet. Try again in a few seconds."


class EngineStarting(EngineUnavailable):
    """``retry_after_s``: when it will be there, by what others took."""

    code = "engine_starting"
    message = "A model is started for you. Try again when it is there."

    def __init__(self, retry_after_s: int = 5) -> None:
        self.retry_after_s = retry_after_s
        super().__init__()


class Draining(Unavailable):
    code = "draining"
    message = "The server is shutting down. Try again in a few seconds."


class RoomsPaused(Unavailable):
    """What rooms are kept in does not answer, or one of them is on its way from one process to another."""

    code = "rooms_paused"
    retry_after_s = 2
    message = "Rooms are paused for a moment. What was said is kept; say more in a few seconds."


class UnsupportedPair(BadRequest):
    code = "unsupported_pair"
    http_status = 422
    message = "This server does not translate between these languages."


class UtteranceTooLong(BadRequest):
    code = "utterance_too_long"
    http_status = 413
    message = "What is to be translated is longer than it may be. Say it in parts."


class TranslationLate(Unavailable):
    """It was not there by its deadline, and is not computed any more."""

    code = "translation_late"
    message = "The translation took too long. Try again in a few seconds."


class TranslationFailed(ServerError):
    code = "translation_failed"
    message = "This could not be translated."


class EngineFailed(ServerError):
    code = "engine_failed"
    http_status = 503
    message = "The model failed and is restarting. Start a new conversation in a few seconds."


class EngineStalled(ServerError):
    """Told to running conversations, which may go on."""

    code = "engine_stalled"
    http_status = 503
    message = "The model does not answer at the moment. The conversation goes on when it does."


class ResumedElsewhere(ServerError):
    """Told to the conversation of a server by which its client came before it came back by another."""

    code = "resumed_elsewhere"
    retryable = False
    message = "The conversation goes on by another server."


class BadMessage(ServerError):
    code = "bad_message"
    http_status = 400
    retryable = False
    message = "That message is not one this server understands."


class MessageTooLarge(BadMessage):
    code = "message_too_large"

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        super().__init__(f"A message may have at most {limit_bytes} bytes.")


class RateLimited(ServerError):
    code = "rate_limited"
    http_status = 429
    retryable = True
    retry_after_s = 5
    message = "Too many messages. Slow down."

    def __init__(self, message: str | None = None, retry_after_s: int | None = None) -> None:
        self.retry_after_s = retry_after_s or self.retry_after_s
        super().__init__(message)


class TooManySessions(ServerError):
    code = "too_many_sessions"
    http_status = 429
    retryable = True
    retry_after_s = 30
    message = "Too many conversations run from this address. End one, or wait."


class NoPort(Unavailable):
    code = "no_port"
    message = "The server has no free UDP port for the audio. Try again in a few seconds."


class StartupError(ServerError):
    """The server cannot start or run as asked. For the person at the terminal, never for a peer.

    ``hint`` says what to do about it.
    """

    code = "startup"
    retryable = False

    def __init__(self, message: str, hint: str | None = None) -> None:
        self.hint = hint
        super().__init__(message)


class ConfigError(StartupError):
    code = "config"


class ModelLoadError(StartupError):
    code = "model_load"


class NoEngine(StartupError):
    """An engine on another machine that a media node could not use now."""

    code = "no_engine"


class IllegalTransition(InternalError):
    """A state machine was asked for a move that its table does not have; nothing has changed."""

    def __init__(self, machine: str, state: str, event: str) -> None:
        self.machine, self.state, self.event = machine, state, event
        super().__init__(f"{machine}: no transition from {state} on {event}")
