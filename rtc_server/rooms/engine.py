"""The service of rooms as an engine: a stream of it is a member's seat. Frames of the member's microphone go in, and
with each, at its pace, a frame of what the member hears comes out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final, Protocol, runtime_checkable

from rtc_server.audio import FloatArray
from rtc_server.engine.engine import OnStall
from rtc_server.engine.messages import Opened
from rtc_server.engine.model import MemoryUse, ModelInfo, ServiceKind, TokenMark
from rtc_server.engine.stream import EngineStream, StreamListener, StreamOutput
from rtc_server.engine.supervisor import EngineState
from rtc_server.errors import EngineFailed, EngineUnavailable, Forbidden, ResumeRefused, ServerError, ServerFull
from rtc_server.metrics import Metrics
from rtc_server.protocols import events
from rtc_server.protocols.rooms import RoomEvent, RoomSettings, Say
from rtc_server.rooms import booth
from rtc_server.rooms.lobby import Lobby
from rtc_server.rooms.member import Member
from rtc_server.rooms.room import Room
from rtc_server.rooms.speaker import Speaker

NAME: Final = "rooms"


@runtime_checkable
class SeatListener(StreamListener, Protocol):
    """A member's session."""

    @property
    def member_token(self) -> str:
        """What its client has brought."""

    def on_room_event(self, event: RoomEvent) -> None:
        """Something for the client."""

    def warn(self, error: ServerError) -> None:
        """The client is to know of trouble that the session survives."""

    def recovered(self, error: ServerError) -> None:
        """That trouble is over."""

    def on_unseated(self, moved: bool = False) -> None:
        """The session is over: the member has left the room, or sits elsewhere; or the room itself has ``moved``."""


class SeatStream(EngineStream):
    """One member's seat, from the beginning of their session to its end."""

    def __init__(
        self,
        lobby: Lobby,
        room: Room,
        member: Member,
        slot: int,
        listener: SeatListener,
        on_close: Callable[[EngineStream], None],
    ) -> None:
        super().__init__(Opened(0, slot, 0), listener, lambda _: True, on_close)
        self._lobby = lobby
        self._where = room
        self._member = member
        self._ear = member.ear or member
        self._client = listener
        self._speaker = Speaker(lobby, room, member)
        self._numbers = 0

    @property
    def language(self) -> str:
        return self._member.language

    def push(self, pcm: FloatArray) -> bool:
        if self.closed:
            return False
        self._numbers += 1
        self._speaker.on_frame(pcm)
        heard = self._where.hear(self._ear, self._lobby.clock())
        self.listener.on_output(StreamOutput(self._numbers, heard, "", (), TokenMark.NONE, 0.0))
        return True

    def take(self, message: events.ClientMessage | events.ServerEvent | events.WordsComplete) -> bool:
        if self.closed:
            return False
        match message:
            case RoomSettings(language=str(target)) if self._ear is not self._member:
                self._lobby.allow(self._member)
                booth.retarget(self._lobby, self._where, self._member, target)
            case Say() | RoomSettings():
                self._lobby.obey(self._where, self._member, message)
            case events.SpeechStarted() | events.SpeechEnded() | events.Word() | events.WordsComplete():
                self._speaker.on_event(message)
            case _:
                return False
        return True

    def reset(self) -> None:
        if not self.closed:
            self._numbers = 0
            self._speaker.reset()
            self._ear.forget_sound(self._lobby.clock())

    def lock(self, digest: bytes, memo: bytes = b"") -> None:
        """A seat is where its room is: no other media node can have it."""

    def close(self) -> None:
        if not self.closed:
            self._speaker.finish()
            self._where.stand_up(self._ear, self, self._lobby.clock())
            super().close()
            if self._ear is not self._member:
                booth.leave(self._where, self._member, self._lobby.clock())

    def tell(self, event: RoomEvent) -> None:
        """The room tells its member something."""
        if not self.closed:
            self._client.on_room_event(event)

    def warn(self, error: ServerError, over: bool = False) -> None:
        """There is trouble with all rooms, or it is over."""
        if not self.closed:
            (self._client.recovered if over else self._client.warn)(error)

    def end(self, moved: bool = False) -> None:
        """The member has left, or taken another seat; or the room has ``moved`` to another process."""
        if not self.closed:
            self._client.on_unseated(moved)

    def begin(self) -> None:
        """The session can take events."""
        self._lobby.catch_up(self._where, self._ear)
        self._where.sit(self._ear, self, self._lobby.clock())
        if self._ear is not self._member:  # who is there as long as the ear is
            self._member.absent_since = None


class RoomEngine:
    """``lobby``: the rooms. An :class:`rtc_server.engine.engine.Engine` with as many slots as the server has sessions.
    It is ready from the start: what it needs of models it does without while they load."""

    def __init__(self, service: str, lobby: Lobby, slots: int, metrics: Metrics) -> None:
        self.service = service
        self.lobby = lobby
        self.shared = False
        self.on_stall: OnStall = lambda stalled, listeners: None
        self.failure = None
        self.restarts = 0
        self.pid = None
        self.slots_asked_for = 0
        self.coming = False
        self.starts_in_s: float | None = None
        self.step_p50_ms: float | None = None
        self.step_p95_ms: float | None = None
        self.step_with_another_ms: float | None = None
        self.memory = MemoryUse()
        self.pages = None
        self.info: ModelInfo | None = ModelInfo(NAME, ServiceKind.TRANSLATE, slots, "cpu", speaks=True, writes=True)
        self._slots = slots
        self._streams: set[EngineStream] = set()
        self._closed = False
        metrics.slots.labels(service).set(slots)
        metrics.slots_used.labels(service).set_function(lambda: self.slots_used)

    @property
    def state(self) -> EngineState:
        return EngineState.CLOSED if self._closed else EngineState.READY

    @property
    def ready(self) -> bool:
        return not self._closed

    @property
    def slots_used(self) -> int:
        return len(self._streams)

    @property
    def has_room(self) -> bool:
        return self.slots_used < self._slots

    def start(self) -> None:
        self.lobby.start()

    def require_ready(self) -> None:
        """Raises EngineUnavailable."""
        if self._closed:
            raise EngineUnavailable

    async def wait_settled(self) -> None:
        """Until it is known whether rooms are paused."""
        if self.lobby.homes is not None:
            await self.lobby.homes.store.wait_known()

    async def wait_ready(self) -> None:
        """It is."""

    async def wait_room(self) -> None:
        """Raises EngineFailed: for a seat there is no waiting."""
        raise EngineFailed

    def queued(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    async def open(self, listener: StreamListener, spare: bool = False, queued: bool = False) -> EngineStream:
        """The seat of the member whose token the listener has. Raises UnknownMember, ServerFull."""
        self.require_ready()
        if not isinstance(listener, SeatListener):
            raise Forbidden
        room, member = self.lobby.member(listener.member_token)
        if not self.has_room:
            raise ServerFull
        taken = {stream.slot for stream in self._streams}
        slot = next(number for number in range(self._slots) if number not in taken)
        stream = SeatStream(self.lobby, room, member, slot, listener, self._streams.discard)
        self._streams.add(stream)
        stream.begin()
        return stream

    async def adopt(self, key: bytes, listener: StreamListener) -> EngineStream:
        """Raises ResumeRefused: a seat is where its room is."""
        raise ResumeRefused

    async def close(self) -> None:
        self._closed = True
        await self.lobby.close()
