"""Presence: a client that is there, is waited for, comes back, or does not; by a clock of the test's own."""

from __future__ import annotations

import asyncio

import pytest

from rtc_server.config import Settings
from rtc_server.errors import EngineUnavailable, ResumeRefused
from rtc_server.sessions.presence import Presence
from rtc_server.sessions.state import EndReason, SessionMachine, SessionState
from rtc_server.sessions.transport import Transport, TransportFigures, Unreached
from tests.support.transport import HandTransport

SETTINGS = Settings(model="echo", connect_timeout_s=15, resume_grace_s=30)


class Owner:
    """Keeps what presence tells it."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.transport: Transport | None = None
        self.ending = False

    def refuse_if_ending(self) -> None:
        if self.ending:
            raise EngineUnavailable

    def on_transport(self, transport: Transport | None) -> None:
        self.transport = transport

    def on_here(self, transport: Transport, back: bool) -> None:
        self.told.append("back" if back else "here")

    def on_path_lost(self) -> None:
        self.told.append("lost")

    def on_seen(self, last_seq: int) -> None:
        self.told.append(last_seq)

    def on_token(self, token: str) -> None:
        self.token = token

    def on_unreached(self, why: Unreached) -> None:
        self.told.append(why)

    def on_left(self, reason: EndReason) -> None:
        self.told.append(reason)

    async def look_beside(self) -> None: ...


class Case:
    """A presence, with its owner, its state and its time."""

    def __init__(self, resumable: bool = True, settings: Settings = SETTINGS) -> None:
        self.now = 100.0
        self.machine = SessionMachine("0-0-test")
        self.owner = Owner()
        self.presence = Presence(self.machine, self.owner, settings, resumable, "0-0-test", lambda: self.now)

    def there(self, figures: TransportFigures | None = None) -> HandTransport:
        """The client is there, by a transport that is returned."""
        transport = HandTransport(figures)
        transport.connected = True
        self.presence.attach(transport)
        self.presence.connected(transport)
        return transport

    async def resume(self, token: str | None, request: str = "request", last_seq: int | None = None) -> HandTransport:
        transport = HandTransport()

        async def connect() -> tuple[Transport, str]:
            return transport, "welcome"

        assert token is not None
        resumed = await self.presence.resume(token, request, last_seq, connect)
        assert resumed.answer == "welcome"
        return transport


async def test_a_client_has_so_long_to_come() -> None:
    case = Case()
    case.presence.attach(HandTransport())
    assert case.presence.waits_s() == 15
    case.now += 15
    assert await case.presence.wait() is False
    assert case.presence.unreached().detail == "It is not plugged in."


async def test_one_that_is_there_is_not_waited_for() -> None:
    case = Case()
    case.there()
    assert case.owner.told == ["here"]
    assert await case.presence.wait() is True


async def test_a_path_that_is_lost_is_waited_for_and_its_voice_forgotten() -> None:
    case = Case()
    transport = case.there()
    case.now += 50
    case.presence.gone(transport, orderly=False)
    assert case.machine.state is SessionState.WAITING
    assert (case.presence.waits_s(), transport.cleared) == (30, 1)
    case.now += 30
    assert await case.presence.wait() is False


async def test_a_path_that_answers_again_is_taken_up() -> None:
    """Without a request of the client: its network was gone for a moment."""
    case = Case()
    case.there()
    case.presence.lose_path()
    assert await case.presence.wait() is True
    assert case.owner.told == ["here", "lost", "back"]


@pytest.mark.parametrize("resumable", [True, False])
async def test_a_goodbye_is_none_to_be_waited_for(resumable: bool) -> None:
    case = Case(resumable)
    case.presence.gone(case.there(), orderly=True)
    assert case.owner.told == ["here", EndReason.BYE]


@pytest.mark.parametrize(
    ("resumable", "settings"), [(False, SETTINGS), (True, Settings(model="echo", resume_grace_s=0))]
)
async def test_one_that_cannot_come_back_is_given_up(resumable: bool, settings: Settings) -> None:
    case = Case(resumable, settings)
    case.presence.gone(case.there(), orderly=False)
    assert case.owner.told == ["here", EndReason.PEER_LOST]
    assert case.presence.next_token() is None


async def test_one_that_comes_back_has_another_transport_and_another_token() -> None:
    case = Case()
    first = case.there(TransportFigures(packets_received=7))
    token = case.presence.next_token()
    await case.presence.look()
    case.presence.gone(first, orderly=False)
    second = await case.resume(token, last_seq=5)
    assert (first.retired, case.owner.transport) == (True, second)
    assert case.presence.resumed
    assert (await case.presence.look()).packets_received == 7
    case.presence.connected(first)
    assert case.machine.state is SessionState.WAITING, "the old one counts no more"
    case.presence.connected(second)
    assert case.owner.told == ["here", "lost", 5, "back"]
    with pytest.raises(ResumeRefused):
        await case.resume(token, "another request")
    await case.presence.close()
    assert (first.closed, second.closed) == (True, True)


async def test_an_answer_that_was_lost_is_given_again() -> None:
    case = Case()
    case.there()
    token = case.presence.next_token()
    assert token is not None
    transports: list[HandTransport] = []

    async def connect() -> tuple[Transport, str]:
        transports.append(HandTransport())
        return transports[-1], f"answer {len(transports)}"

    answers = [await case.presence.resume(token, "request", None, connect) for _ in range(2)]
    assert answers[0] == answers[1]
    assert len(transports) == 1


async def test_a_token_is_good_again_when_no_answer_can_be_made() -> None:
    case = Case()
    first = case.there()
    token = case.presence.next_token()
    case.owner.ending = True
    with pytest.raises(EngineUnavailable):
        await case.resume(token)
    assert case.owner.transport is first
    case.owner.ending = False
    second = await case.resume(token)
    assert case.owner.transport is second


async def test_while_the_server_drains_no_path_is_waited_for() -> None:
    case = Case()
    transport, token = case.there(), case.presence.next_token()
    case.presence.refuse_resumes()
    with pytest.raises(ResumeRefused):
        await case.resume(token)
    case.presence.gone(transport, orderly=False)
    assert case.owner.told == ["here", EndReason.PEER_LOST]


async def test_one_who_is_coming_back_is_let_go_at_the_end() -> None:
    case = Case()
    first = case.there()
    token = case.presence.next_token()
    assert token is not None
    asked, never = asyncio.Event(), asyncio.Event()

    async def connect() -> tuple[Transport, str]:
        asked.set()
        await never.wait()
        raise AssertionError

    coming = asyncio.create_task(case.presence.resume(token, "request", None, connect), name="resume")
    await asked.wait()
    await case.presence.stop_resuming()
    with pytest.raises(ResumeRefused):  # and not CancelledError, with which its request would go without an answer
        await coming
    assert case.owner.transport is first
