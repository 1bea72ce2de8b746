"""One member of a room: who they are, where their events and their sound go, and what they are to hear next. Pure but
for the mailbox's waiting readers; times are monotonic seconds."""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass
from typing import Final, Protocol

from rtc_server.audio import FloatArray
from rtc_server.errors import ServerError
from rtc_server.protocols.rooms import MemberView, Original, Playing, RoomEvent
from rtc_server.rooms.echoes import Echoes
from rtc_server.rooms.mailbox import Mailbox
from rtc_server.rooms.message import Message, unpacked
from rtc_server.rooms.mixer import FULL, UNDER, Mixer, Played, faded
from rtc_server.rooms.record import MemberRecord
from rtc_server.system.rate_limit import TokenBucket

WISHES_PER_S: Final = 1.0
WISHES_AT_ONCE: Final = 10
"""Messages in writing, changes and sounds that one member may ask for: each costs the others time."""
VISITS_PER_S: Final = 0.5
VISITS_AT_ONCE: Final = 20
"""Event streams that one member may open: all others are told that the member has come and gone, and of what they are
told the last few hundred events are kept. A browser whose way breaks off comes back after three seconds."""


class Seat(Protocol):
    """A member's session."""

    def tell(self, event: RoomEvent) -> None: ...

    def warn(self, error: ServerError, over: bool = False) -> None:
        """There is trouble with all rooms, or it is ``over``."""

    def end(self, moved: bool = False) -> None:
        """The member has left, or taken another seat; or the room has ``moved`` to another process."""


@dataclass(slots=True, eq=False)
class _Turn:
    """A message that this member is to hear in their language, once it is there."""

    message: Message
    language: str


class Member:
    """``digest``: of the token; who has that is the member. ``voice``: the translator's number of it."""

    def __init__(
        self, member_id: str, name: str, language: str, digest: bytes, now: float, mailbox: Mailbox | None = None
    ) -> None:
        self.id = member_id
        self.name = name
        self.language = language
        self.original: Original = "under"
        self.digest = digest
        self.voice = int.from_bytes(self.digest[:2], "big")
        self.wishes = TokenBucket(WISHES_PER_S, WISHES_AT_ONCE, now)
        self.visits = TokenBucket(VISITS_PER_S, VISITS_AT_ONCE, now)
        self.speaking = False
        self.seat: Seat | None = None
        self.readers = 0
        """Event streams that are open."""
        self.absent_since: float | None = now
        self.mailbox = mailbox or Mailbox()
        self.mixer = Mixer()
        self.echoes = Echoes()
        self.ear: Member | None = None
        """As which this one's session hears and is told; None: as itself."""
        self._turns: deque[_Turn] = deque()
        self._texts: dict[str, str] = {}

    @property
    def here(self) -> bool:
        return self.seat is not None or self.readers > 0

    @property
    def listens(self) -> bool:
        """Whether translations are heard, and not only read."""
        return self.seat is not None and self.original != "only"

    def view(self) -> MemberView:
        return MemberView(self.id, self.name, self.language, self.here)

    def tell(self, event: RoomEvent) -> None:
        self.mailbox.add(event)
        if self.seat is not None:
            self.seat.tell(event)

    def record(self) -> MemberRecord:
        """What of the member lasts."""
        return MemberRecord(self.id, self.name, self.language, self.original, self.digest)

    def looked_for(self, now: float) -> None:
        """The member has come or gone: absence counts from now on, if there is any."""
        self.absent_since = None if self.here else now

    def expect(self, message: Message) -> None:
        """The message is to be heard by this member when those before it were."""
        if self.listens:
            self._turns.append(_Turn(message, self.language))

    def advance(self, now: float) -> None:
        """Whatever is translated, and has nothing before it that is not, is played next."""
        while self._turns:
            turn = self._turns[0]
            rendering = turn.message.renderings.get(turn.language)
            if rendering is not None and rendering.state == "pending":
                return
            self._turns.popleft()
            if rendering is None or rendering.state == "failed" or rendering.sound is None:
                continue
            if not self.listens or turn.language != self.language:
                continue
            self._texts[turn.message.id] = rendering.text
            sound = faded(unpacked(rendering.sound))
            self.played(self.mixer.play(turn.message.id, turn.message.member, sound), now)

    def gain(self, language: str, translated: bool) -> float:
        """How loud this member hears another's own voice, of one who speaks ``language``. ``translated``: into this
        member's own."""
        if language == self.language or self.original == "only" or not translated:
            return FULL
        return UNDER if self.original == "under" else 0.0

    def hear(self, gains: dict[str, float], now: float) -> FloatArray:
        """The next 80 ms of what this member hears, the others' own voices each with its :meth:`gain`."""
        pcm, played = self.mixer.pull(gains)
        self.played(played, now)
        return pcm

    def forget_sound(self, now: float) -> None:
        """What waits is not to be heard any more."""
        self._turns.clear()
        self.played(self.mixer.clear(), now)

    def interpreted(self, message: str, text: str, now: float) -> None:
        """A message is being heard, while it grows; so far it is ``text``."""
        if message not in self._texts:
            self._texts[message] = text
            self.played([(message, "started")], now)
        self.echoes.grew(message, text)

    def interpreted_to_the_end(self, message: str, now: float) -> None:
        """Such a message has ended."""
        if message in self._texts:
            self.played([(message, "ended")], now)

    def played(self, played: list[Played], now: float) -> None:
        for message, state in played:
            if state == "started":
                self.echoes.started(message, self._texts.get(message, ""), now)
            else:
                self.echoes.ended(message, now)
                self._texts.pop(message, None)
            self.tell(Playing(message, state))


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()  # a header's bytes may be no text
