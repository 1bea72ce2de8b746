"""OpenAI Realtime over a model that takes no turns: what is said on both sides, told as responses and items, and what
the client asks for.

A response is a stretch in which the model speaks (or writes); a user's item is one in which the user does. Both overlap
as they do in life. Pure: events, text and frames come in with the time, events go out through a :class:`Port`. Times
are monotonic seconds, but for those of the wire, which are milliseconds of the microphone's audio.

Interruption: clients stop their loudspeaker when they are told that the user speaks. So while the model speaks they are
told only when it gives way; an "uh-huh" that it speaks through becomes an item without that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, assert_never

import msgspec

from rtc_server.errors import EngineFailed, ServerError
from rtc_server.protocols import events
from rtc_server.protocols.openai import realtime_events as client
from rtc_server.protocols.openai import realtime_items
from rtc_server.protocols.openai.errors import BadEvent
from rtc_server.protocols.openai.events import encode_event, error_event, require_shallow
from rtc_server.protocols.openai.formats import AudioFormat, decode_audio, encode_audio
from rtc_server.protocols.openai.ids import new_id
from rtc_server.protocols.openai.realtime_items import Items
from rtc_server.protocols.openai.realtime_response import Response, usage
from rtc_server.protocols.openai.realtime_settings import RealtimeSettings
from rtc_server.protocols.openai.realtime_transcripts import Transcript, Transcripts

PAUSE_S: Final = 0.64
"""Of silence that ends a response: longer than the pauses within what a model says. The voice counts as silent some
frames after it is."""
YIELD_S: Final = 0.5
"""For how long the user must have spoken for the model's silence to be a giving way: longer than an "uh-huh" takes."""
PATIENCE_S: Final = 8.0
"""How long a response that was asked for waits for the model to speak. LiveKit's client gives up after ten."""
_PREROLL_FRAMES: Final = 2
"""Kept of the time before the voice is known to be one."""
_MAX_PENDING_CHARS: Final = 4096
_SURVIVED: Final = ("draining", "engine_stalled", "engine_failed")
"""Codes of what a session goes on after: clients such as Pipecat's take every error for its end."""
_FAULTS: Final = ("engine_failed", "internal")
_MAX_METADATA_BYTES: Final = 16 * 1024


class Port(Protocol):
    """Where a conversation's outcome goes. Must not block, and must not call back."""

    def say(self, event: str) -> None:
        """Send an event to the client."""

    def take_audio(self, raw: bytes, audio_format: AudioFormat) -> None:
        """Take audio of the client's: whole samples."""

    def forget_audio(self) -> None:
        """Drop audio of the client's that the model has not been given yet."""

    def forget_voice(self) -> None:
        """Drop the model's voice that has not left yet."""


@dataclass(slots=True)
class _UserSpeech:
    """A stretch in which the user speaks. ``told``: the client knows of it. ``end_ms``: of one that waits for the
    client's commit."""

    item_id: str
    start_ms: int
    since: float
    told: bool = False
    end_ms: int | None = None


class RealtimeConversation:
    """One session's. ``by_event``: the voice travels in events (a WebSocket), not beside them (WebRTC)."""

    def __init__(
        self,
        port: Port,
        settings: RealtimeSettings,
        by_event: bool,
        make_id: Callable[[str], str] = new_id,
    ) -> None:
        self.settings = settings
        self._port = port
        self._by_event = by_event
        self._make_id = make_id
        self._conversation_id = make_id("conv")
        self._items = Items()
        self._response: Response | None = None
        self._last_response_id = ""
        self._user: _UserSpeech | None = None
        self._transcripts = Transcripts()
        self._pending_text = ""
        self._preroll: list[bytes] = []
        self._voice = False
        self._gated = False
        self._last_said_at = 0.0
        self._audio_bytes = 0
        self._frames = 0

    @property
    def silenced(self) -> bool:
        """Whether the model's voice is kept from the client: it has cancelled what is being said."""
        return self._gated or not self.settings.speaks

    def created(self) -> str:
        """The first event that a client gets."""
        event = {"type": "session.created", "event_id": self._make_id("event"), "session": self.settings.as_dict()}
        return encode_event(event)

    def on_text(self, text: str, now: float) -> None:
        """The model writes what it says."""
        if self._gated:
            return
        self._last_said_at = now
        if self._response is None or not self._response.opened:
            self._pending_text = (self._pending_text + text).lstrip()[:_MAX_PENDING_CHARS]
            if self._pending_text:
                self._speak(now)
            return
        self._tell_text(self._response, text)

    def on_voice(self, active: bool, now: float) -> None:
        """The model's voice has become audible, or is no longer."""
        self._voice = active
        if active and not self._gated:
            self._last_said_at = now
            self._speak(now)
        elif not active:
            self._last_said_at = now
            self._gated = False
        self.poll(now)

    def on_frame(self, raw: bytes, now: float) -> None:
        """A frame of the model's voice, audible or not: in the format that the client hears, or empty where that
        travels beside the events."""
        self._frames += 1
        response = self._response
        if response is not None and response.opened and not self._gated:
            self._tell_audio(response, raw)
        else:
            self._preroll = [*self._preroll, raw][-_PREROLL_FRAMES:]
        self.poll(now)

    def on_speech_started(self, at_ms: int, now: float) -> None:
        """The user begins to speak."""
        if self._user is not None and not self._turns:
            return  # of the same item, until the client commits it
        self._user = _UserSpeech(self._make_id("item"), at_ms, now)
        for transcript in self._transcripts.begin(self._user.item_id, at_ms, now):
            self._tell_transcript(transcript)
        if self._response is not None and self._response.opened and not self._voice:
            self._finish("completed")  # it only seems to pause: the user has the floor
        self._tell_speech()

    def on_speech_ended(self, at_ms: int, now: float) -> None:
        """The user has stopped."""
        user = self._user
        if user is None:
            return
        user.end_ms = at_ms
        if self._turns:
            if user.told:
                self._say("input_audio_buffer.speech_stopped", item_id=user.item_id, audio_end_ms=at_ms)
            self._commit(now)

    def on_user_word(self, word: str, start_ms: int, now: float) -> None:
        """A word of the user's, some time after it was said."""
        transcript = self._transcripts.word(word, start_ms, now)
        if transcript is not None and transcript.over:
            self._tell_words(transcript)

    def on_event(self, event: events.ServerEvent, now: float) -> None:
        """An event of the session's, of whatever kind: what it means here."""
        match event:
            case events.Connected():
                self._port.say(self.created())
            case events.Text(delta):
                self.on_text(delta, now)
            case events.State(state):
                self.on_voice(state == "speaking", now)
            case events.SpeechStarted(at_ms):
                self.on_speech_started(at_ms, now)
            case events.SpeechEnded(at_ms):
                self.on_speech_ended(at_ms, now)
            case events.Word(text, start_ms, _):
                self.on_user_word(text, start_ms, now)
            case events.Error(
                "engine_failed"
            ):  # another one may take its place, and remembers nothing of this response
                self._break_off()
            case events.Error() if event.code not in _SURVIVED:
                self._fail(event.code, event.message)
            case events.Disconnected("engine_failed"):
                self._fail("engine_failed", EngineFailed.message)
            case events.Disconnected("time_limit"):
                self._fail("session_expired", "The session has lasted as long as it may.")
            case _:
                pass
        self.poll(now)

    def poll(self, now: float) -> None:
        """What is due because time has passed. To be called with each frame at least."""
        for transcript in self._transcripts.complete(now):
            self._tell_transcript(transcript)
        if self._response is not None:
            self._poll_response(self._response, now)
        self._tell_speech()

    def _poll_response(self, response: Response, now: float) -> None:
        user = self._user
        if not response.opened:
            if response.asked_at is not None and now - response.asked_at >= PATIENCE_S:
                self._finish("completed")
        elif self._voice:
            pass
        elif user is not None and user.end_ms is None and self._turns and now - user.since >= YIELD_S:
            self._finish("cancelled", "turn_detected")
        elif now - self._last_said_at >= PAUSE_S:
            self._finish("completed")

    def receive(self, message: str | bytes, now: float) -> None:
        """One of the client's events. Raises BadEvent, and changes nothing then."""
        head, event = client.read_client_event(message)
        try:
            self._obey(event, now)
        except BadEvent as error:
            if error.event_id is None:
                error.event_id = head.event_id
            raise

    def refuse(self, error: ServerError) -> None:
        """Tell the client that an event of its was not obeyed."""
        self._port.say(error_event(error, "event_id"))

    def _obey(self, event: client.ClientEvent, now: float) -> None:
        match event:
            case client.Append(audio):
                self._append(audio)
            case client.SessionUpdate(session):
                self.settings.update(session)
                self._say("session.updated", session=self.settings.as_dict())
            case client.Commit():
                self._commit_asked(now)
            case client.Clear():
                self._audio_bytes = 0
                self._port.forget_audio()
                self._say("input_audio_buffer.cleared")
            case client.ResponseCreate(options):
                self._create_asked(options, now)
            case client.ResponseCancel(response_id):
                self._cancel_asked(response_id)
            case client.OutputClear():
                self._clear_voice()
            case _:
                self._obey_about_items(event)

    def _obey_about_items(
        self, event: client.ItemCreate | client.ItemRetrieve | client.ItemDelete | client.ItemTruncate
    ) -> None:
        match event:
            case client.ItemCreate(item):
                self._add(realtime_items.made_by_client(item, self._make_id("item")))
            case client.ItemRetrieve(item_id):
                item = self._known(item_id, "item_retrieve_invalid_item_id")
                self._say("conversation.item.retrieved", item=item)
            case client.ItemDelete(item_id):
                self._known(item_id, "item_delete_invalid_item_id")
                self._items.remove(item_id)
                self._say("conversation.item.deleted", item_id=item_id)
            case client.ItemTruncate(item_id, content_index, audio_end_ms):
                self._known(item_id, "item_truncate_invalid_item_id")
                self._say(
                    "conversation.item.truncated",
                    item_id=item_id,
                    content_index=content_index,
                    audio_end_ms=audio_end_ms,
                )
            case _:
                assert_never(event)

    def _known(self, item_id: str, code: str) -> dict[str, Any]:
        item = self._items.get(item_id)
        if item is None:
            raise BadEvent(code, "There is no such item, or it was forgotten.", "item_id")
        return item

    def _append(self, audio: str) -> None:
        raw = decode_audio(audio, self.settings.input_format)
        if self._by_event:
            self._audio_bytes += len(raw)
            self._port.take_audio(raw, self.settings.input_format)

    def _commit_asked(self, now: float) -> None:
        if self._by_event and not self._turns and not self._audio_bytes:
            raise BadEvent("input_audio_buffer_commit_empty", "No audio has come since the last item.")
        self._commit(now)

    def _create_asked(self, options: client.ResponseOptions | None, now: float) -> None:
        metadata = None if options is None else options.metadata
        require_shallow(metadata, "response.metadata")
        if metadata is not None and len(msgspec.json.encode(metadata)) > _MAX_METADATA_BYTES:
            raise BadEvent("invalid_value", f"It is larger than {_MAX_METADATA_BYTES} bytes.", "response.metadata")
        if self._response is not None:
            raise BadEvent(
                "conversation_already_has_active_response", "The model is speaking, or is about to. Wait for it."
            )
        self._create(now, metadata)
        if self._voice and not self._gated:
            self._speak(now)

    def _cancel_asked(self, response_id: str | None) -> None:
        response = self._response
        if response is None or response_id not in (None, response.id):
            raise BadEvent("response_cancel_not_active", "There is no such response to be cancelled.")
        self._gated = self._voice
        self._port.forget_voice()
        self._finish("cancelled", "client_cancelled")
        self._tell_speech()

    def _clear_voice(self) -> None:
        self._gated = self._voice
        self._port.forget_voice()
        self._say("output_audio_buffer.cleared", response_id=self._last_response_id)

    def _create(self, asked_at: float | None = None, metadata: dict[str, Any] | None = None) -> Response:
        response = Response(
            self._make_id("resp"), self._make_id("item"), asked_at, metadata, speaks=self.settings.speaks
        )
        self._response = response
        self._last_response_id = response.id
        self._say("response.created", response=self._described(response, "in_progress"))
        return response

    def _speak(self, now: float) -> None:
        """The model has begun to say something: open what it goes into, unless that is open."""
        response = self._response or self._create()
        if response.opened:
            return
        response.opened = True
        item = response.item("in_progress")
        item["content"] = []
        response.before = self._items.put(item)
        where = {"response_id": response.id, "output_index": 0}
        self._say("response.output_item.added", **where, item=item)
        self._say("conversation.item.added", previous_item_id=response.before, item=item)
        self._say_in(response, "content_part.added", part=response.part(""))
        if not self._by_event and response.speaks:
            self._say("output_audio_buffer.started", response_id=response.id)
        text, self._pending_text = self._pending_text, ""
        self._tell_text(response, text)
        for raw in self._preroll:
            self._tell_audio(response, raw)
        self._preroll = []

    def _tell_text(self, response: Response, text: str) -> None:
        text = text if response.transcript else text.lstrip()
        if text:
            response.transcript += text
            self._say_in(response, f"{response.text_kind}.delta", delta=text)

    def _tell_audio(self, response: Response, raw: bytes) -> None:
        response.frames += 1
        if raw and self._by_event and response.speaks:
            self._say_in(response, "output_audio.delta", delta=encode_audio(raw))

    def _finish(self, status: str, reason: str | None = None) -> None:
        response = self._response
        if response is None:
            return
        self._response = None
        details = None if reason is None else {"type": status, "reason": reason}
        if response.opened:
            self._close_item(response, status)
        self._say("response.done", response=self._described(response, status, details))
        if response.opened and response.speaks and not self._by_event:
            kind = "stopped" if status == "completed" else "cleared"
            self._say(f"output_audio_buffer.{kind}", response_id=response.id)
        self._frames = 0

    def _close_item(self, response: Response, status: str) -> None:
        item = response.item("completed" if status == "completed" else "incomplete")
        self._items.put(item)
        if response.speaks:
            self._say_in(response, "output_audio.done")
            self._say_in(response, "output_audio_transcript.done", transcript=response.transcript)
        else:
            self._say_in(response, "output_text.done", text=response.transcript)
        self._say_in(response, "content_part.done", part=response.part(response.transcript))
        self._say("response.output_item.done", response_id=response.id, output_index=0, item=item)
        self._say("conversation.item.done", previous_item_id=response.before, item=item)

    def _described(self, response: Response, status: str, details: dict[str, Any] | None = None) -> dict[str, Any]:
        over = status != "in_progress"
        item = self._items.get(response.item_id) if over and response.opened else None
        return {
            **response.as_dict(status, details, [] if item is None else [item]),
            "conversation_id": self._conversation_id,
            "output_modalities": self.settings.modalities,
            "audio": self.settings.audio_output(),
            "usage": usage(self._frames, response.frames) if over else None,
        }

    @property
    def _turns(self) -> bool:
        """Whether the client wants to be told when the user speaks; else it says itself what is an item."""
        return self.settings.turn_detection is not None

    def _tell_speech(self) -> None:
        """That the user speaks, if the model does not."""
        user = self._user
        if user is None or user.told or not self._turns or (self._response is not None and self._response.opened):
            return
        user.told = True
        self._say("input_audio_buffer.speech_started", item_id=user.item_id, audio_start_ms=user.start_ms)

    def _commit(self, now: float) -> None:
        """What the user has said becomes an item."""
        user, self._user = self._user, None
        item_id = self._make_id("item") if user is None else user.item_id
        self._audio_bytes = 0
        self._say("input_audio_buffer.committed", item_id=item_id, previous_item_id=self._items.last_id)
        self._add(realtime_items.message(item_id, "user", [{"type": "input_audio", "transcript": None}]))
        if user is not None:
            end_ms = user.start_ms if user.end_ms is None else user.end_ms
            transcript = self._transcripts.end(item_id, end_ms, now)
            if transcript is not None:
                self._tell_words(transcript)

    def _tell_words(self, transcript: Transcript) -> None:
        delta = transcript.untold()
        if delta and self.settings.transcribes:
            where = {"item_id": transcript.item_id, "content_index": 0}
            self._say("conversation.item.input_audio_transcription.delta", **where, delta=delta)

    def _tell_transcript(self, transcript: Transcript) -> None:
        """That it is whole, if the client wants transcripts, and there are words."""
        item = self._items.get(transcript.item_id)
        if item is None or not transcript.text or not self.settings.transcribes:
            return
        self._tell_words(transcript)
        content = [{"type": "input_audio", "transcript": transcript.text}]
        self._items.put(realtime_items.message(transcript.item_id, "user", content))
        self._say(
            "conversation.item.input_audio_transcription.completed",
            item_id=transcript.item_id,
            content_index=0,
            transcript=transcript.text,
            usage={"type": "duration", "seconds": transcript.seconds},
        )

    def _add(self, item: dict[str, Any]) -> None:
        before = self._items.put(item)
        self._say("conversation.item.added", previous_item_id=before, item=item)
        self._say("conversation.item.done", previous_item_id=before, item=item)

    def _break_off(self) -> None:
        """The model says no more of what it was saying."""
        self._voice = self._gated = False
        self._pending_text = ""
        self._finish("failed")

    def _fail(self, code: str, message: str) -> None:
        """A failure that ends the session."""
        self._finish("failed")
        kind = "server_error" if code in _FAULTS else "invalid_request_error"
        error = {"type": kind, "code": code, "message": message, "param": None, "event_id": None}
        self._say("error", error=error)

    def _say(self, type_: str, **fields: Any) -> None:
        self._port.say(encode_event({"type": type_, "event_id": self._make_id("event"), **fields}))

    def _say_in(self, response: Response, type_: str, **fields: Any) -> None:
        """An event about the one part of a response."""
        where = {"response_id": response.id, "item_id": response.item_id, "output_index": 0, "content_index": 0}
        self._say(f"response.{type_}", **where, **fields)
