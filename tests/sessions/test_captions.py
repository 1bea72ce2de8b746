"""A conversation's captions: whose slot they have, when they end and come back, and where their words stand in time."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lab.waiting import until
from rtc_server.access.principals import ANONYMOUS, Visitor
from rtc_server.audio import FRAME_MS
from rtc_server.config import Settings
from rtc_server.engine.client import EngineClient
from rtc_server.engine.local import LocalLink
from rtc_server.metrics import Metrics
from rtc_server.protocols.events import OfferOptions
from rtc_server.sessions.admission import Admission
from rtc_server.sessions.captioner import Captioner, Captioners
from rtc_server.sessions.registry import Registry
from rtc_server.sessions.session import Session
from rtc_server.sessions.state import SessionState
from rtc_server.sessions.transport import Transport
from rtc_server.system.loop_lag import TICK_S, WINDOW_S, LoopLag
from tests.support.engines import Ear
from tests.support.fake_models import CountingModel
from tests.support.scribe import BREAK, Scribe, numbered
from tests.support.transport import HandTransport

VISITOR = Visitor(ANONYMOUS, "192.0.2.1")


class Server:
    """Two conversations at most, and a transcriber with ``slots``."""

    def __init__(self, slots: int, gate: threading.Event | None) -> None:
        settings = Settings(model="echo")
        self.metrics = Metrics()
        self.dialogue = EngineClient("dialogue", lambda: LocalLink(lambda: CountingModel(2)), self.metrics)
        self.stt = EngineClient("transcribe", lambda: LocalLink(lambda: Scribe(slots, 0, gate)), self.metrics)
        self.lag = LoopLag(settings.max_lag_ms, self.metrics)
        engines = {"dialogue": self.dialogue, "transcribe": self.stt}
        captioner = Captioner(self.stt, engines.values(), settings, self.lag.window, self.metrics)
        self.admission = Admission(engines, settings, self.lag)
        self.registry = Registry(self.admission, settings, self.metrics, None, Captioners(self.metrics, captioner))

    def tick(self, seconds: float, late_s: float) -> None:
        """The loop's lag as it is measured, so many seconds of it at once."""
        window = self.lag.window
        now = self._lag_at = getattr(self, "_lag_at", 0.0)
        while now < self._lag_at + seconds:
            now += TICK_S
            window.add(now, late_s)
        self._lag_at = now

    def count(self, metric: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(metric, labels) or 0.0


@contextlib.asynccontextmanager
async def running(slots: int = 1, gate: threading.Event | None = None) -> AsyncIterator[Server]:
    """What sessions take has come back at the end."""
    server = Server(slots, gate)
    for engine in (server.dialogue, server.stt):
        engine.start()
        await engine.wait_settled()
    try:
        yield server
        await server.admission.close()
        assert (server.dialogue.slots_used, server.stt.slots_used, server.count("rtc_captions")) == (0, 0, 0)
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("captions-")]
    finally:
        for engine in (server.dialogue, server.stt):
            await engine.close()


class Call:
    """One conversation."""

    def __init__(self, session: Session, token: str | None) -> None:
        self.session, self.token = session, token
        self.transport = HandTransport()

    def connect(self) -> None:
        self.transport.connected = self.transport.channel_open = True
        self.session.on_connected(self.transport)
        self.session.on_channel_open(self.transport)

    async def say(self, *numbers: int) -> list[int]:
        """A frame for each; returns where each begins, in ms of the microphone's audio."""
        starts: list[int] = []
        for number in numbers:
            await until(lambda number=number: self._take(number, starts), "room for a frame")
        return starts

    def _take(self, number: int, starts: list[int]) -> bool:
        """False while the microphone is as far ahead of real time as it may be."""
        before = self.session._stats.frames_in
        self.session.on_audio(self.transport, numbered(number), self.session._clock())
        if self.session._stats.frames_in == before:
            return False
        starts.append(before * FRAME_MS)
        return True

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.transport.events if event["type"] == kind]

    @property
    def captions(self) -> list[tuple[str, str | None]]:
        return [(event["state"], event.get("reason")) for event in self.of_kind("captions")]

    @property
    def words(self) -> list[tuple[str, int, int]]:
        return [(event["text"], event["start_ms"], event["end_ms"]) for event in self.of_kind("word")]

    async def until_captions(self, *states: tuple[str, str | None]) -> None:
        await until(lambda: self.captions == list(states), f"{states}, not {self.captions}")


async def opened(server: Server, options: OfferOptions | None = None) -> Call:
    async with server.registry.opening("dialogue", options or OfferOptions(), VISITOR) as session:
        call = Call(session, None)
        session.attach(call.transport)
        call.token = session.start()
    call.connect()
    return call


async def test_both_sides_stand_on_one_timeline() -> None:
    async with running() as server:
        call = await opened(server)
        await call.until_captions(("on", None))
        first, second, third = await call.say(7, 8, 9)
        await until(lambda: len(call.words) == 3, "three words")
        assert call.words == [
            ("7", first, first + FRAME_MS),
            ("8", second, second + FRAME_MS),
            ("9", third, third + FRAME_MS),
        ]
        await until(lambda: len(call.of_kind("text")) > 3, "the model's words")
        for event in call.of_kind("text"):
            # The model writes how many frames it has heard.
            assert event["at_ms"] == int(event["delta"]) * FRAME_MS
        assert (server.count("rtc_captions"), server.count("rtc_caption_words_total")) == (1, 3)
        numbers = [event["seq"] for event in call.transport.events if "seq" in event]
        assert numbers == list(range(1, len(numbers) + 1))


async def test_a_client_that_wants_none_takes_no_slot_and_hears_nothing_of_them() -> None:
    async with running() as server:
        call = await opened(server, OfferOptions(captions=False))
        await call.say(7)
        await until(lambda: call.of_kind("text"), "the conversation")
        assert (call.captions, call.words, server.stt.slots_used) == ([], [], 0)


async def test_a_client_switches_them_off_and_on() -> None:
    async with running() as server:
        call = await opened(server)
        await call.until_captions(("on", None))
        call.session.on_message(call.transport, '{"type":"settings","captions":false}')
        assert call.captions == [("on", None), ("off", None)]
        assert server.stt.slots_used == 0
        await call.say(7)
        call.session.on_message(call.transport, '{"type":"settings","captions":true}')
        await call.until_captions(("on", None), ("off", None), ("on", None))
        (at_ms,) = await call.say(8)
        await until(lambda: call.words == [("8", at_ms, at_ms + FRAME_MS)], "what is said since")
        assert server.count("rtc_captions_off_total", reason="server_full") == 0


async def test_clients_of_the_model_come_first_and_captions_come_back_after_them() -> None:
    async with running() as server:
        call = await opened(server)
        await call.until_captions(("on", None))
        own = await server.stt.open(Ear())
        assert call.captions == [("on", None), ("off", "server_full")]
        await call.say(7)
        own.close()
        await call.until_captions(("on", None), ("off", "server_full"), ("on", None))
        (at_ms,) = await call.say(8)
        await until(lambda: call.words == [("8", at_ms, at_ms + FRAME_MS)], "what is said since")
        assert server.count("rtc_captions_off_total", reason="server_full") == 1


async def test_a_conversation_beyond_the_slots_is_told_and_has_them_when_another_ends() -> None:
    async with running(slots=1) as server:
        first = await opened(server)
        await first.until_captions(("on", None))
        second = await opened(server)
        await second.until_captions(("off", "server_full"))
        await first.session.end(first.session.end_reason or "bye")  # type: ignore[arg-type]
        await second.until_captions(("off", "server_full"), ("on", None))


async def test_an_engine_that_breaks_costs_no_frame_and_is_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtc_server.engine.supervisor._RESTART_PAUSES_S", (0.01,))
    async with running() as server:
        call = await opened(server)
        await call.until_captions(("on", None))
        await call.say(7, BREAK)
        await call.until_captions(("on", None), ("off", "engine_unavailable"), ("on", None))
        (at_ms,) = await call.say(8)
        await until(lambda: call.words and call.words[-1] == ("8", at_ms, at_ms + FRAME_MS), "what is said since")
        frames = call.session._stats.frames_in
        await until(lambda: len(call.of_kind("text")) >= frames, "an answer to each frame")
        heard = [int(event["delta"]) for event in call.of_kind("text")]
        assert heard == list(range(1, len(heard) + 1))
        assert server.count("rtc_captions_off_total", reason="engine_unavailable") == 1


@pytest.mark.slow
async def test_an_engine_that_hangs_holds_no_conversation_up() -> None:
    gate = threading.Event()
    gate.set()
    async with running(gate=gate) as server:
        call = await opened(server)
        await call.until_captions(("on", None))
        gate.clear()
        await call.say(7)
        await call.until_captions(("on", None), ("off", "engine_unavailable"))
        (at_ms,) = await call.say(5)
        await until(lambda: [e for e in call.of_kind("text") if e["at_ms"] > at_ms], "the conversation")
        gate.set()
        await call.until_captions(("on", None), ("off", "engine_unavailable"), ("on", None))


async def test_load_ends_them_before_it_closes_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtc_server.sessions.headroom.FIRST_PAUSE_S", 0.1)
    async with running() as server:
        call = await opened(server)
        await call.until_captions(("on", None))
        server.tick(2 * WINDOW_S, 0.0)
        server.tick(0.03 * WINDOW_S, 1.0)
        assert not server.lag.window.crowded
        await call.until_captions(("on", None), ("off", "overloaded"))
        other = await opened(server, OfferOptions())
        await other.until_captions(("off", "overloaded"))
        server.tick(2 * WINDOW_S, 0.0)
        await until(lambda: ("on", None) in [*call.captions[2:], *other.captions[1:]], "the return of captions")


async def test_a_new_conversation_begins_at_0() -> None:
    async with running() as server:
        call = await opened(server)
        await call.until_captions(("on", None))
        await call.say(1, 2, 3)
        await until(lambda: len(call.words) == 3, "words")
        began_ms = call.session._stats.frames_in * FRAME_MS
        call.session.on_message(call.transport, '{"type":"reset"}')
        await until(
            lambda: call.session.user_audio.captions is not None and call.session.user_audio.captions.on,
            "the model's prefix",
        )
        (at_ms,) = await call.say(4)
        await until(lambda: len(call.words) == 4, "a word")
        assert call.words[3] == ("4", at_ms - began_ms, at_ms - began_ms + FRAME_MS)
        last = call.of_kind("text")[-1]
        assert last["at_ms"] == int(last["delta"]) * FRAME_MS <= call.session._stats.frames_in * FRAME_MS - began_ms
        assert call.captions == [("on", None)], "they were never away"


async def test_the_last_words_come_before_the_goodbye() -> None:
    async with running() as server:
        call = await opened(server)
        await call.until_captions(("on", None))
        await call.say(7)
        call.session.on_message(call.transport, '{"type":"bye"}')
        await until(lambda: call.of_kind("disconnected"), "the end")
        kinds = [event["type"] for event in call.transport.events]
        assert [word[0] for word in call.words] == ["7"]
        assert kinds.index("word") < kinds.index("disconnected")


async def test_a_reset_behind_the_goodbye_does_not_end_the_end() -> None:
    """It cancels what the last words wait for, and the session's end was cancelled with it: the connection stayed, and
    nothing was left that would have closed it."""
    gate = threading.Event()
    gate.set()
    async with running(gate=gate) as server:
        call = await opened(server)
        await call.until_captions(("on", None))
        await call.say(7)
        captions = call.session.user_audio.captions
        assert captions is not None
        gate.clear()
        captions.on_pause(FRAME_MS)
        await asyncio.sleep(0)
        assert captions._ahead is not None, "silence that waits for the model"
        call.session.on_message(call.transport, '{"type":"bye"}')
        await until(lambda: captions._closed, "that the last words are waited for")
        call.session.on_message(call.transport, '{"type":"reset"}')
        gate.set()
        await until(lambda: len(server.registry) == 0, "the end")
        assert call.transport.closed


async def test_they_wait_with_their_session_for_its_client() -> None:
    async with running() as server:
        call = await opened(server)
        await call.until_captions(("on", None))
        call.session.on_gone(call.transport, orderly=False)
        assert call.session.state is SessionState.WAITING
        assert server.stt.slots_used == 1
        call.transport = HandTransport()

        async def reconnect() -> tuple[Transport, str]:
            return call.transport, ""

        assert call.token is not None
        await call.session.resume(call.token, "request", call.session.outbox.last, reconnect)
        call.connect()
        (at_ms,) = await call.say(7)
        await until(lambda: call.words == [("7", at_ms, at_ms + FRAME_MS)], "a word")
        assert call.captions == []


async def test_a_session_whose_model_transcribes_has_none() -> None:
    async with running(slots=2) as server, server.registry.opening("transcribe", OfferOptions(), VISITOR) as session:
        session.attach(HandTransport())
        session.start()
        assert (server.stt.slots_used, session.user_audio.captions) == (1, None)
