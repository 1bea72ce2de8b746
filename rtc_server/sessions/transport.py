"""The protocol between a session and the transport to its client: audio and messages both ways, connected, gone,
figures.

A transport carries them over WebRTC or a WebSocket; the session does not know which. Whatever its kind needs (a jitter
buffer, a decoder, a playout buffer, an encoder that reacts to loss) is its own.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Protocol

from rtc_server.audio import FloatArray
from rtc_server.protocols.events import ClientMessage, ServerEvent
from rtc_server.sessions.state import EndReason


@dataclass(frozen=True, slots=True)
class TransportFigures:
    """Totals so far, and the state of now.

    ``concealed_ms`` stood in for what was lost or late; ``heard_dropped_ms`` came too fast. ``jitter_buffer_ms`` and
    ``playout_ms``: what waits in either direction. ``fraction_lost_out``: 0 to 1, from the client's last report; None
    before the first. A transport that loses nothing leaves all of them as they are.
    """

    packets_received: int = 0
    packets_lost: int = 0
    packets_late: int = 0
    packets_duplicate: int = 0
    packets_undecodable: int = 0
    concealed_ms: float = 0.0
    played_ms: float = 0.0
    jitter_buffer_ms: float = 0.0
    jitter_s: float = 0.0
    fraction_lost_out: float | None = None
    rtt_s: float | None = None
    playout_ms: float = 0.0
    playout_dropped_ms: float = 0.0
    heard_dropped_ms: float = 0.0
    underruns: int = 0

    def after(self, before: TransportFigures) -> TransportFigures:
        """The same with the totals of an earlier transport of the session added."""
        totals = {name: getattr(self, name) + getattr(before, name) for name in _TOTALS}
        return dataclasses.replace(self, **totals)


_TOTALS = (
    "packets_received",
    "packets_lost",
    "packets_late",
    "packets_duplicate",
    "packets_undecodable",
    "concealed_ms",
    "played_ms",
    "playout_dropped_ms",
    "heard_dropped_ms",
    "underruns",
)


@dataclass(frozen=True, slots=True)
class Unreached:
    """Why a client never got through: the ``reason`` of the end, a sentence for the client, and one for the log."""

    reason: EndReason = EndReason.CONNECT_TIMEOUT
    detail: str = ""
    log: str = "the client never connected"


class TransportOwner(Protocol):
    """What happens to a transport is told to the session, or to its listeners. Called on the event loop; must not
    block. After :meth:`Transport.retire` nothing is told any more."""

    def on_audio(self, transport: Transport, pcm: FloatArray, now: float) -> None:
        """Samples of the client's microphone: any number, mono float32 at 24 kHz, in order."""

    def on_connected(self, transport: Transport) -> None:
        """Audio can flow."""

    def on_channel_open(self, transport: Transport) -> None:
        """Messages can be sent."""

    def on_channel_closed(self, transport: Transport) -> None:
        """No more messages can be sent, until the client opens another channel."""

    def on_message(self, transport: Transport, message: str | bytes) -> None:
        """A message of the client, as it came."""

    def on_command(self, transport: Transport, command: ClientMessage) -> None:
        """A message of a client that speaks another protocol, by what it means."""

    def on_refused(self, transport: Transport) -> None:
        """A message in another protocol was refused, and its client told so: too many of them end the session."""

    def on_finished(self, transport: Transport) -> None:
        """The client has said all: the end, once what it said is answered."""

    def on_gone(self, transport: Transport, orderly: bool) -> None:
        """It is over: the client said goodbye (orderly), or its path is lost. May be told twice."""

    def on_first_voice(self, transport: Transport) -> None:
        """The first samples of the model leave."""


class Transport(Protocol):
    """One way to one client, from its start to its end; a client that comes back has another.

    All methods but the coroutines return at once. Times are monotonic seconds.
    """

    @property
    def name(self) -> str:
        """For the log: the kind of transport, and how the audio is coded."""

    @property
    def endpoint(self) -> str:
        """For metrics: one of few names."""

    @property
    def opened_at(self) -> float:
        """When it began."""

    @property
    def connected(self) -> bool:
        """Whether audio can flow, or could until the path was lost."""

    @property
    def sends(self) -> bool:
        """Whether the client has said that it will send audio."""

    @property
    def channel_open(self) -> bool:
        """Whether messages can be sent."""

    @property
    def failure(self) -> Unreached | None:
        """Why it cannot be set up although the client was reached; None if nothing of the kind is known."""

    @property
    def deadline(self) -> float | None:
        """When to call :meth:`poll` next. None while it follows no audio: then what is late or missing is for the
        session to decide, by the microphone's own time."""

    def poll(self, now: float) -> None:
        """Audio that is due although it did not come is told to the owner, concealed."""

    def send(self, message: str, event: ServerEvent | None) -> bool:
        """Queue a message: an ``event`` in its form on the data channel. A transport with words of its own for it says
        it in those. ``event`` is None for one that is said again. False if it cannot be sent."""

    def play(self, pcm: FloatArray, now: float) -> None:
        """Queue a frame of the model's voice: mono float32 at 24 kHz."""

    def clear(self) -> None:
        """Forget the voice that has not left yet: the model was interrupted."""

    async def look(self) -> TransportFigures:
        """The figures of now; that the client has answered since the last look is a sign of life."""

    def silent_s(self, now: float) -> float:
        """How long the client has shown no sign of life, as of the last :meth:`look`."""

    def unreached(self) -> Unreached:
        """Why the client did not get through in time."""

    def retire(self) -> None:
        """Tell the owner nothing any more. Idempotent."""

    async def close(self, flush: bool = True) -> None:
        """End it. Idempotent, and done within a few seconds. ``flush``: waits briefly for what was sent last."""
