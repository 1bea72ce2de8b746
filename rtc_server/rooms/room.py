"""One room: its members, what was said in it and in what order, and to whom it goes in which language.

Pure but for its members' mailboxes and its journal: no clock, no model, no network. Times are monotonic seconds.
"""

from __future__ import annotations

import secrets
import unicodedata
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Final

from rtc_server.audio import FRAME_SAMPLES, FloatArray, level_dbfs
from rtc_server.errors import ServerFull, UnknownMember
from rtc_server.protocols.rooms import (
    MAX_NAME,
    Kind,
    MemberChange,
    RoomEvent,
    RoomMessage,
    RoomName,
    RoomSettings,
    RoomState,
    Speaking,
)
from rtc_server.rooms.homes import Inheritance
from rtc_server.rooms.journal import Journal, Unwritten
from rtc_server.rooms.member import Member, Seat, digest
from rtc_server.rooms.message import UNTRANSLATABLE, Message, Rendering, packed
from rtc_server.rooms.record import RESERVED, RoomRecord

MOST_MEMBERS: Final = 100
KEPT_MESSAGES: Final = 200
KEPT_CHARACTERS: Final = 100_000
"""Of the messages that are kept, as they were said: one alone may have 2,000, and all have them translated as well."""
KEPT_SOUND_BYTES: Final = 4 << 20
"""Of translations that are kept as sound, the newest: a minute and a half."""
_SHOWN_TO_NEWCOMERS: Final = 50
_TRANSLATED_FOR_NEWCOMERS: Final = 8
"""Of those, the last: what is older stays as it was said."""
ABSENCE_S: Final = 30.0
EMPTY_S: Final = 60.0
_QUIET_DBFS: Final = -60.0
"""Below this a microphone's frame is not mixed."""


class Room:
    """``journal``: where it is told what of the room is to last."""

    def __init__(self, room_id: str, name: str, private: bool, now: float, journal: Journal | None = None) -> None:
        self.id = room_id
        self.name = name
        self.private = private
        self._translated: frozenset[tuple[str, str]] = frozenset()
        self._gains: dict[str, dict[str, float]] = {}
        """By listener, of the others' own voices: made when first heard after something of a member has changed."""
        self._interpreted: dict[str, str] = {}
        """Into which language a model translates a member while they speak, by member."""
        self.spoken: frozenset[str] = frozenset()
        """The languages that have a voice, as of now."""
        self._members: dict[str, Member] = {}
        self._messages: OrderedDict[str, Message] = OrderedDict()
        self._last_member = 0
        self._last_message = 0
        self.sound_bytes = 0
        """Of the messages that are kept, in all languages."""
        self._empty_since: float | None = now
        self._journal = journal or Unwritten()

    @classmethod
    def inherited(cls, room_id: str, left: Inheritance, now: float, journal: Journal) -> Room:
        """A room that another process was the home of, with all its members, who are away. What was being translated is
        not any more."""
        room = cls(room_id, left.room.name, left.room.private, now, journal)
        room._last_member = left.room.last_member
        for each in left.room.members:
            mailbox = journal.mailbox(each.id, left.last_numbers.get(each.id, 0))
            member = Member(each.id, each.name, each.language, each.digest, now, mailbox)
            member.original = each.original
            room._members[member.id] = member
            room._empty_since = None
        for said in left.messages:
            room._messages[said.id] = said.message(now)
            room._last_message = int(said.id)
        room._last_message += RESERVED if left.messages else 0
        return room

    def record(self) -> RoomRecord:
        """What of the room lasts, beside its messages."""
        return RoomRecord(self.name, self.private, self._last_member, [member.record() for member in self])

    def listing(self) -> dict[str, Any] | None:
        """What the lobby shows of it; None: nothing."""
        if self.private or not self._members:
            return None
        languages = sorted({member.language for member in self})
        return {"id": self.id, "name": self.name, "members": len(self), "languages": languages}

    @property
    def translated(self) -> frozenset[tuple[str, str]]:
        """The pairs of languages between which there is a translation, as of now."""
        return self._translated

    @translated.setter
    def translated(self, pairs: frozenset[tuple[str, str]]) -> None:
        if pairs != self._translated:
            self._translated = pairs
            self._gains.clear()

    @property
    def messages(self) -> list[Message]:
        """Those that are kept, the oldest first."""
        return list(self._messages.values())

    def __iter__(self) -> Iterator[Member]:
        """The members of now, in the order in which they came."""
        return iter(list(self._members.values()))

    def __len__(self) -> int:
        return len(self._members)

    @property
    def title(self) -> RoomName:
        return RoomName(self.id, self.name)

    def join(self, name: str, language: str, now: float) -> tuple[Member, str]:
        """A new member, and the token that is the member. Raises ServerFull."""
        if len(self._members) >= MOST_MEMBERS:
            raise ServerFull("This room is full.")
        self._last_member += 1
        token = f"{self.id}.{secrets.token_urlsafe(24)}"
        member_id = f"m{self._last_member}"
        mailbox = self._journal.mailbox(member_id)
        member = Member(member_id, readable(name) or member_id, language, digest(token), now, mailbox)
        self._members[member.id] = member
        self._gains.clear()
        self._empty_since = None
        self._journal.changed()
        self._tell_others(member, MemberChange(member.view(), "joined"))
        return member, token

    def member(self, token: str) -> Member:
        """Raises UnknownMember."""
        wanted = digest(token)
        for member in self._members.values():
            if secrets.compare_digest(member.digest, wanted):
                return member
        raise UnknownMember

    def leave(self, member: Member, now: float) -> None:
        """Idempotent."""
        if self._members.pop(member.id, None) is None:
            return
        self._gains.clear()
        self._interpreted.pop(member.id, None)
        member.forget_sound(now)
        member.mailbox.close()
        seat, member.seat = member.seat, None
        if seat is not None:
            seat.end()
        for other in self:
            other.mixer.forget(member.id)
        self._journal.forget(member.id)
        self._journal.changed()
        self._tell_others(member, MemberChange(member.view(), "left"))
        if not self._members:
            self._empty_since = now

    def sit(self, member: Member, seat: Seat, now: float) -> None:
        """The member's session begins; one that was there before ends."""
        former, member.seat = member.seat, seat
        if former is not None:
            former.end()
        member.looked_for(now)
        for event in self.greeting(member):
            seat.tell(event)
        self._tell_others(member, MemberChange(member.view(), "changed"))

    def stand_up(self, member: Member, seat: Seat, now: float) -> None:
        """The member's session has ended."""
        if member.seat is not seat:
            return
        member.seat = None
        member.forget_sound(now)
        self.set_speaking(member, False)
        self.look_for(member, now)

    def look_for(self, member: Member, now: float) -> None:
        """The member has come or gone."""
        member.looked_for(now)
        if member.id in self._members:
            self._tell_others(member, MemberChange(member.view(), "changed"))

    def expire(self, now: float) -> bool:
        """Let members go that have been away for too long; whether the room itself is over."""
        for member in self:
            if member.absent_since is not None and now - member.absent_since >= ABSENCE_S:
                self.leave(member, now)
        return self._empty_since is not None and now - self._empty_since >= EMPTY_S

    def greeting(self, member: Member) -> Iterator[RoomEvent]:
        """What a member is told first: who is there, and what was said last."""
        yield RoomState(self.title, member.id, [each.view() for each in self])
        shown = [message for message in self._messages.values() if message.is_for(member.language)]
        for message in shown[-_SHOWN_TO_NEWCOMERS:]:
            yield self._seen(member, message)

    def change(self, member: Member, settings: RoomSettings, now: float) -> None:
        """Raises nothing: the language was looked at before."""
        before = member.view()
        self._gains.clear()
        if settings.name is not None:
            member.name = readable(settings.name) or member.name
        if settings.original is not None:
            member.original = settings.original
            if settings.original == "only":
                member.forget_sound(now)
        if settings.language is not None and settings.language != member.language:
            member.language = settings.language
            member.forget_sound(now)
        self._journal.changed()
        if member.view() != before:
            for other in self:
                other.tell(MemberChange(member.view(), "changed"))

    def set_speaking(self, member: Member, on: bool) -> None:
        if member.speaking != on:
            member.speaking = on
            for other in self:
                other.tell(Speaking(member.id, on))

    def needed(self, member: Member, language: str | None = None) -> frozenset[str]:
        """The languages into which what ``member`` says has to be translated: those of the others who are here.
        ``language``: in which it was said, where it is not the member's any more."""
        languages = {other.language for other in self if other is member or other.here}
        return frozenset(languages - {language or member.language})

    def say(
        self,
        member: Member,
        text: str,
        kind: Kind,
        spoken_ms: int,
        ended_at: float,
        language: str | None = None,
        elsewhere: str = "",
    ) -> Message:
        """Something was said, or written. It is pending in all the languages that are needed now. ``language``: as in
        :meth:`needed`. ``elsewhere``: the language into which it has been translated while it was said."""
        message = self._new_message(member, language or member.language, kind, text, spoken_ms, ended_at)
        message.elsewhere = elsewhere
        for wanted in sorted(self.needed(member, message.language) - {elsewhere}):
            message.renderings[wanted] = self._wanted(message, wanted)
        self._keep(message)
        for other in self:
            self._tell(other, message)
            if kind == "speech" and other.language in message.renderings and other is not member:
                other.expect(message)
        return message

    def take_up(self, message: Message) -> None:
        """The model that was to translate a message ``elsewhere`` has not come to it: it is as if there had been none,
        pending in that language if a member of it is here."""
        language, message.elsewhere = message.elsewhere, ""
        if any(member.here and member.language == language for member in self):
            message.renderings[language] = self._wanted(message, language)
        if message.id in self._messages:
            self._journal.said(message)
        for member in self:
            if member.language == language and language in message.renderings:
                self._tell(member, message)
                if member.id != message.member:
                    member.expect(message)

    def _wanted(self, message: Message, language: str) -> Rendering:
        possible = (message.language, language) in self.translated
        return Rendering() if possible else Rendering("failed", reason=UNTRANSLATABLE)

    def begin_interpreting(self, member: Member, language: str) -> None:
        """From now on a model translates ``member`` into ``language`` while they speak."""
        self._interpreted[member.id] = language
        self._gains.clear()

    def end_interpreting(self, member: Member) -> None:
        """It does so no more. Idempotent."""
        if self._interpreted.pop(member.id, None) is not None:
            self._gains.clear()
            for other in self:
                other.mixer.end_interpreting(member.id)

    def interpret(self, member: Member, language: str, pcm: FloatArray) -> None:
        """A frame of the model's voice, finite and within ±1, to the ears of those who hear that language."""
        for other in self._members.values():
            if other is not member and other.listens and other.language == language:
                other.mixer.interpret(member.id, pcm)

    def begin_message(self, member: Member, source: str, target: str, text: str, now: float) -> Message:
        """The first of what a model makes in ``target`` of what ``member`` says in ``source``: it grows, and members of
        that language alone see it."""
        message = self._new_message(member, source, "speech", "", 0, now)
        message.only = target
        message.renderings[target] = Rendering("pending", text)
        self._keep(message)
        self._tell_of_growth(message, text, now)
        return message

    def grow(self, message: Message, text: str, now: float) -> None:
        """There is more of it: all of it is ``text``."""
        message.renderings[message.only] = Rendering("pending", text)
        self._tell_of_growth(message, text, now)

    def end_message(self, message: Message, text: str, pcm: FloatArray, spoken_ms: int, now: float) -> None:
        """It grows no more. ``pcm``: as it was heard."""
        message.spoken_ms, message.ended_at = spoken_ms, now
        self.rendered(message, message.only, now, text, message.original, pcm)
        for member in self:
            member.interpreted_to_the_end(message.id, now)

    def rendered(
        self,
        message: Message,
        language: str,
        now: float,
        text: str = "",
        original: str = "",
        pcm: FloatArray | None = None,
        reason: str | None = None,
    ) -> None:
        """A message is there in a language, or will not be, for a ``reason``. ``original``: as the model heard it."""
        unwritten = not message.original
        if unwritten:
            message.original = original
        sound = None if pcm is None or not pcm.size else packed(pcm)
        state = "ready" if reason is None else "failed"
        message.renderings[language] = Rendering(state, text, reason, sound)  # type: ignore[arg-type]
        self.forget_old_sounds()
        if message.id in self._messages:
            self._journal.said(message)
        for member in self:
            if member.language == language or (unwritten and member.language == message.language):
                self._tell(member, message)
            member.advance(now)

    def keep_sound(self, message: Message, language: str, pcm: FloatArray) -> None:
        """A message was spoken in a language in which it is there."""
        message.renderings.setdefault(language, Rendering("ready", message.original)).sound = packed(pcm)
        self.forget_old_sounds()

    def untranslated(self, member: Member) -> list[Message]:
        """Of what was said last, that which could be had in the member's language and is not: it is pending now."""
        found = []
        for message in list(self._messages.values())[-_TRANSLATED_FOR_NEWCOMERS:]:
            pair = message.language, member.language
            known = member.language in message.renderings or not message.is_for(member.language)
            if not known and message.original and pair in self.translated:
                message.renderings[member.language] = Rendering()
                found.append(message)
        return found

    def message(self, message_id: str) -> Message | None:
        return self._messages.get(message_id)

    def forget_old_sounds(self, most_bytes: int = KEPT_SOUND_BYTES) -> None:
        """Keep the newest, within so many bytes. One that is asked for is made again."""
        kept, full = 0, False
        for message in reversed(self._messages.values()):
            for rendering in message.renderings.values():
                if rendering.sound is not None:
                    full = full or kept + len(rendering.sound) > most_bytes
                    kept += 0 if full else len(rendering.sound)
                    rendering.sound = None if full else rendering.sound
        self.sound_bytes = kept

    def speak(self, member: Member, pcm: FloatArray) -> None:
        """A frame of a member's microphone, finite and within ±1, to the others' ears."""
        if pcm.size == FRAME_SAMPLES and level_dbfs(pcm) > _QUIET_DBFS:
            for other in self._members.values():
                if other is not member and other.seat is not None:
                    other.mixer.hear(member.id, pcm)

    def hear(self, member: Member, now: float) -> FloatArray:
        """The next 80 ms of what a member hears."""
        gains = self._gains.get(member.id)
        if gains is None:
            others = [other for other in self._members.values() if other is not member]
            gains = {other.id: member.gain(other.language, self._is_translated(other, member)) for other in others}
            self._gains[member.id] = gains
        return member.hear(gains, now)

    def close(self, now: float) -> None:
        """The room is over: all leave."""
        for member in self:
            self.leave(member, now)

    def move(self) -> None:
        """The room goes on in another process: its members come back to it there."""
        for member in self:
            member.mailbox.close()
            seat, member.seat = member.seat, None
            if seat is not None:
                seat.end(moved=True)

    def forgive(self, now: float) -> None:
        """Members could not come back until now: their absence counts from now on."""
        for member in self:
            member.looked_for(now)

    def _is_translated(self, speaker: Member, listener: Member) -> bool:
        if self._interpreted.get(speaker.id) == listener.language:
            return True
        return (speaker.language, listener.language) in self._translated

    def _new_message(
        self, member: Member, language: str, kind: Kind, text: str, spoken_ms: int, ended_at: float
    ) -> Message:
        self._last_message += 1
        number = str(self._last_message)
        return Message(number, member.id, member.name, language, member.voice, kind, text, spoken_ms, ended_at)

    def _keep(self, message: Message) -> None:
        self._messages[message.id] = message
        characters = sum(len(each.original) for each in self._messages.values())
        while len(self._messages) > KEPT_MESSAGES or characters > KEPT_CHARACTERS:
            _, forgotten = self._messages.popitem(last=False)
            characters -= len(forgotten.original)
            if any(rendering.sound for rendering in forgotten.renderings.values()):
                self.forget_old_sounds()
        self._journal.said(message)

    def _tell_of_growth(self, message: Message, text: str, now: float) -> None:
        for member in self:
            self._tell(member, message)
            if member.id != message.member and member.listens and member.language == message.only:
                member.interpreted(message.id, text, now)

    def _tell(self, member: Member, message: Message) -> None:
        if message.is_for(member.language):
            member.tell(self._seen(member, message))

    def _seen(self, member: Member, message: Message) -> RoomMessage:
        language = member.language
        rendering = message.renderings.get(language)
        has_voice = language in self.spoken or (rendering is not None and rendering.sound is not None)
        audible = has_voice and message.text_in(language)
        return message.seen_in(
            language, f"rooms/{self.id}/messages/{message.id}/audio?language={language}" if audible else None
        )

    def _tell_others(self, member: Member, event: MemberChange) -> None:
        for other in self:
            if other is not member:
                other.tell(event)


def readable(name: str) -> str:
    """A name of a room or a member without what would not be seen, or would move other text."""
    kept = (" " if unicodedata.category(char)[0] in "CZ" else char for char in name)
    return " ".join("".join(kept).split())[:MAX_NAME]
