"""A session on a transport that is neither WebRTC nor a socket: what it asks of any, and what it gives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import numpy as np
import pytest

from lab.waiting import until
from rtc_server import config
from rtc_server.access.principals import ANONYMOUS, Visitor
from rtc_server.audio import FRAME_SAMPLES
from rtc_server.engine.client import EngineClient
from rtc_server.engine.local import LocalLink
from rtc_server.errors import ResumeRefused
from rtc_server.metrics import Metrics
from rtc_server.protocols.events import Bye, OfferOptions, Settings
from rtc_server.sessions.admission import Admission
from rtc_server.sessions.registry import Registry
from rtc_server.sessions.session import Session
from rtc_server.sessions.state import EndReason, SessionState
from rtc_server.sessions.transport import Transport, TransportFigures
from rtc_server.system.loop_lag import LoopLag
from tests.support.fake_models import CountingModel
from tests.support.transport import HandTransport

VISITOR = Visitor(ANONYMOUS, "192.0.2.1")


@contextlib.asynccontextmanager
async def registry(**settings: object) -> AsyncIterator[Registry]:
    metrics = Metrics()
    engine = EngineClient("dialogue", lambda: LocalLink(lambda: CountingModel(1)), metrics)
    engine.start()
    await engine.wait_settled()
    wanted = config.Settings(model="echo", **settings)  # type: ignore[arg-type]
    admission = Admission({"dialogue": engine}, wanted, LoopLag(wanted.max_lag_ms, metrics))
    made = Registry(admission, wanted, metrics)
    try:
        yield made
        await admission.close()
        assert engine.slots_used == 0
        assert len(made) == 0
    finally:
        await engine.close()


async def opened(registry: Registry, transport: HandTransport) -> tuple[Session, str | None]:
    """A session with ``transport``, connected, with its channel open."""
    async with registry.opening(None, OfferOptions(), VISITOR) as session:
        session.attach(transport)
        token = session.start()
    connect(session, transport)
    return session, token


def connect(session: Session, transport: HandTransport) -> None:
    transport.connected = True
    session.on_connected(transport)
    transport.channel_open = True
    session.on_channel_open(transport)


def words(*transports: HandTransport) -> list[int]:
    events = [event for transport in transports for event in transport.events if event["type"] == "text"]
    return [int(word) for event in events for word in event["delta"].split()]


def say(session: Session, transport: HandTransport, frames: int = 1) -> None:
    session.on_audio(transport, np.full(frames * FRAME_SAMPLES, 0.25, np.float32), session._clock())


async def test_audio_goes_in_and_frames_and_words_come_out() -> None:
    async with registry() as made:
        transport = HandTransport()
        session, _ = await opened(made, transport)
        assert transport.events[0]["type"] == "connected"
        say(session, transport)
        await until(lambda: len(transport.played) >= 1, "a frame")
        assert transport.played[0].shape == (FRAME_SAMPLES,)
        assert transport.played[0][1] == pytest.approx(0.25)
        assert words(transport)[0] == 1


async def test_a_client_that_comes_back_by_another_transport_has_missed_nothing() -> None:
    async with registry() as made:
        first, second = HandTransport(TransportFigures(packets_received=7)), HandTransport()
        session, token = await opened(made, first)
        assert token is not None
        say(session, first)
        await until(lambda: len(words(first)) > 1, "words")
        session.on_gone(first, orderly=False)
        assert session.state is SessionState.WAITING

        async def reconnect() -> tuple[Transport, str]:
            return second, "welcome"

        resumed = await session.resume(token, "request", None, reconnect)
        assert resumed.answer == "welcome"
        connect(session, second)
        assert first.retired
        await until(lambda: len(words(second)) > 1, "words on the second")
        counted = words(first, second)
        assert counted == list(range(1, len(counted) + 1))
        assert (await session.stats()).packets_received == 7, "totals are the session's"
        heard = session._stats.frames_in
        say(session, first)
        assert session._stats.frames_in == heard, "what the old one still brings is not heard"
        await until(lambda: first.closed, "the end of the first")
        with pytest.raises(ResumeRefused):
            await session.resume(token, "another request", None, reconnect)


async def test_a_client_that_has_said_all_gets_the_answer_to_it_before_the_end() -> None:
    """Also to the frame that came with its last words, and to nothing that comes after."""
    async with registry() as made:
        transport = HandTransport()
        session, _ = await opened(made, transport)
        say(session, transport)
        await until(lambda: len(transport.played) == 1, "a frame")
        say(session, transport, frames=2)
        session.on_finished(transport)
        say(session, transport)
        await session.end(EndReason.BYE)
        assert [bool(frame[1] > 0.2) for frame in transport.played].count(True) == 3
        assert transport.events[-1] == transport.events[-1] | {"type": "disconnected", "reason": "bye"}


async def test_a_transport_may_say_what_a_message_means() -> None:
    """Instead of the message: one that speaks a protocol of its own."""
    async with registry() as made:
        transport = HandTransport()
        session, _ = await opened(made, transport)
        session.on_command(transport, Settings(muted=True))
        say(session, transport)
        await until(lambda: len(transport.played) == 1, "a frame")
        assert not transport.played[0][1:].any()
        session.on_command(transport, Bye())
        await until(lambda: session.state is SessionState.ENDED, "the end")


async def test_a_goodbye_ends_it_and_closes_its_transport() -> None:
    async with registry() as made:
        transport = HandTransport()
        session, _ = await opened(made, transport)
        session.on_gone(transport, orderly=True)
        await until(lambda: transport.closed, "the end")
        assert session.end_reason is EndReason.BYE
        assert (transport.events[-1]["type"], transport.events[-1]["reason"]) == ("disconnected", "bye")


async def test_one_that_is_never_there_says_why() -> None:
    async with registry(connect_timeout_s=0.1) as made:
        transport = HandTransport()
        async with made.opening(None, OfferOptions(), VISITOR) as session:
            session.attach(transport)
            session.start()
        await until(lambda: made.why_ended(session.id.text), "the end")
        assert "It is not plugged in." in str(made.why_ended(session.id.text))


async def test_what_cannot_be_attached_gives_its_slot_back() -> None:
    async with registry() as made:
        with pytest.raises(OSError, match="no cable"):
            async with made.opening(None, OfferOptions(), VISITOR):
                raise OSError("no cable")
        await until(lambda: made.admission.engines["dialogue"].slots_used == 0, "the slot")
        assert len(made) == 0


async def test_the_microphones_time_goes_on_while_nothing_comes() -> None:
    """A transport that follows no audio leaves it to the session to say what a pause is: silence, at real time."""
    async with registry() as made:
        transport = HandTransport()
        session, _ = await opened(made, transport)
        say(session, transport)
        await until(lambda: session.user_audio.microphone.filled > 3, "frames of silence")
        await until(lambda: len(transport.played) > 3, "their answers")
        assert not transport.played[-1][1:].any()


async def test_a_reset_clears_what_waits() -> None:
    async with registry() as made:
        transport = HandTransport()
        session, _ = await opened(made, transport)
        say(session, transport, 3)
        await until(lambda: len(words(transport)) >= 3, "words")
        session.on_message(transport, '{"type": "reset"}')
        assert transport.cleared == 1
        seen = len(words(transport))
        await until(lambda: 1 in words(transport)[seen:], "a new count")


async def test_listeners_hear_the_voice_and_no_events() -> None:
    async with registry() as made:
        transport, listener = HandTransport(), HandTransport()
        session, _ = await opened(made, transport)
        name = session.listeners.admit(lambda _: listener)
        listener.connected = True
        say(session, transport)
        await until(lambda: bool(listener.played), "a frame")
        assert listener.events == []
        session.listeners.remove(name)
        await asyncio.sleep(0)
        assert listener.retired
