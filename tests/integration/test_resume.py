"""A path that dies and a client that comes back: the conversation goes on where it was.

The model counts its frames, so that its words tell whether its state has survived and whether any frame ran while
the client was away.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import pytest

from lab.network.vanishing import vanish
from lab.sound.tones import Ear, tone
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.client import OfferRefused, VoiceClient
from rtc_server.engine.local import LocalLink
from rtc_server.sessions.state import SessionState
from tests.conftest import server_with
from tests.support.calls import assert_serves, get_json, offering
from tests.support.fake_models import CountingModel
from tests.support.leftovers import leaves_nothing

pytestmark = pytest.mark.slow

NOTICED_S = 5.0
"""In which a dead path must be noticed, with the settings that the server has by itself. One test waits for that; to
all others what comes after it matters."""
SOON = ("--peer-timeout-s", "1")


def counting_server(*arguments: str, slots: int = 1) -> AbstractAsyncContextManager[Server]:
    return server_with({"dialogue": lambda: LocalLink(lambda: CountingModel(slots))}, *arguments)


def url_of(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


def words(client: VoiceClient) -> list[int]:
    return [int(word) for event in client.events if event["type"] == "text" for word in event["delta"].split()]


def state_of(server: Server) -> list[SessionState]:
    return list(server.registry.count_by_state().elements())


async def cut(server: Server, client: VoiceClient) -> None:
    """Nothing of the client reaches the server any more, and the server knows."""
    vanish(client)
    await until(lambda: state_of(server) == [SessionState.WAITING], "the loss to be noticed", NOTICED_S)


async def test_the_conversation_goes_on_where_it_was() -> None:
    """No word is missing, none comes twice, and none was spoken to an empty room: the count goes on without a hole."""
    ear = Ear()
    async with (
        counting_server() as server,
        leaves_nothing(server),
        VoiceClient(url_of(server), tone(440), on_voice=ear) as client,
    ):
        await until(lambda: len(words(client)) > 5, "words")
        await cut(server, client)
        (before,) = server.registry
        frames = (await before.stats()).frames_in
        left_s = before.presence.waits_s()
        await until(lambda: before.presence.waits_s() < left_s - 0.5, "half a second in which the client is away")
        assert (await before.stats()).frames_in == frames
        session = client.session
        await client.resume()
        again = await client.wait_for("connected", resumed=True)
        assert (again["session"], client.session) == (session, session)
        seen = len(words(client))
        heard = ear.samples
        await until(lambda: len(words(client)) > seen + 5, "more words")
        await until(lambda: ear.samples > heard + 24_000, "a voice")
        assert words(client) == list(range(1, len(words(client)) + 1))
        assert server.metrics.sessions_resumed.labels("dialogue")._value.get() == 1
        client.send({"type": "bye"})
        await client.wait_for("disconnected", reason="bye")


async def test_it_can_happen_again_and_again() -> None:
    async with (
        counting_server(*SOON) as server,
        leaves_nothing(server),
        VoiceClient(url_of(server), tone(440)) as client,
    ):
        for _ in range(3):
            seen = len(words(client))
            await until(lambda seen=seen: len(words(client)) > seen + 2, "words")
            await cut(server, client)
            await client.resume()
            await until(lambda: state_of(server) != [SessionState.WAITING], "a way back")
        assert words(client) == list(range(1, len(words(client)) + 1))


async def test_a_client_that_is_back_before_the_server_has_missed_it() -> None:
    async with (
        counting_server("--peer-timeout-s", "60") as server,
        leaves_nothing(server),
        VoiceClient(url_of(server), tone(440)) as client,
    ):
        await until(lambda: len(words(client)) > 2, "words")
        vanish(client)
        await client.resume()
        await client.wait_for("connected", resumed=True)
        seen = len(words(client))
        await until(lambda: len(words(client)) > seen + 2, "words")
        assert words(client) == list(range(1, len(words(client)) + 1))


async def test_a_path_that_comes_back_by_itself_needs_no_offer() -> None:
    async with (
        counting_server(*SOON) as server,
        leaves_nothing(server),
        VoiceClient(url_of(server), tone(440)) as client,
    ):
        await until(lambda: len(words(client)) > 2, "words")
        mended = vanish(client)
        await until(lambda: state_of(server) == [SessionState.WAITING], "the loss to be noticed")
        mended()
        seen = len(words(client))
        await until(lambda: len(words(client)) > seen + 5, "words")
        assert words(client) == list(range(1, len(words(client)) + 1))


async def test_when_the_grace_is_over_the_slot_is_free_and_the_session_unknown() -> None:
    async with (
        counting_server("--resume-grace-s", "0.5", *SOON) as server,
        leaves_nothing(server),
        VoiceClient(url_of(server), tone(440)) as client,
    ):
        await client.wait_for("connected")
        vanish(client)
        await until(lambda: not len(server.registry), "the grace to be over")
        with pytest.raises(OfferRefused) as refused:
            await client.resume()
        assert (refused.value.status, refused.value.code) == (404, "unknown_session")
        status, body = await get_json(f"{url_of(server)}/api/sessions/{client.session}")
        assert (status, body["error"]["code"]) == (410, "session_ended")
        assert "peer_lost" in body["error"]["message"]
        await assert_serves(url_of(server))


async def test_of_two_claimants_one_gets_in() -> None:
    async with (
        counting_server(*SOON) as server,
        leaves_nothing(server),
        VoiceClient(url_of(server), tone(440)) as client,
    ):
        await client.wait_for("connected")
        stolen = client._resume_token
        await cut(server, client)

        async def claim(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            body = {**body, "resume": {"session": client.session, "token": stolen}}
            async with aiohttp.ClientSession() as http, http.post(f"{url_of(server)}/api/offer", json=body) as response:
                return response.status, await response.json()

        async with offering() as one, offering() as other:
            answers = await asyncio.gather(claim(one), claim(other))
            assert sorted(status for status, _ in answers) == [201, 403]
            refused = next(body for status, body in answers if status == 403)
            assert refused["error"]["code"] == "resume_refused"
            # The one that got in asks again, its answer lost, and gets it; the other does not.
            winner, answer = next((offer, body) for offer, (status, body) in zip((one, other), answers, strict=True)
                                  if status == 201)  # fmt: skip
            assert await claim(winner) == (201, answer)
            assert (await claim(other if winner is one else one))[0] == 403
            async with aiohttp.ClientSession() as http:
                await http.delete(f"{url_of(server)}/api/sessions/{client.session}")


async def test_a_used_token_gets_nothing() -> None:
    async with (
        counting_server(*SOON) as server,
        leaves_nothing(server),
        VoiceClient(url_of(server), tone(440)) as client,
    ):
        await client.wait_for("connected")
        used = client._resume_token
        await cut(server, client)
        await client.resume()
        await client.wait_for("connected", resumed=True)
        async with VoiceClientOfAThief(url_of(server), client.session, used) as status:
            assert status == (403, "resume_refused")
        seen = len(words(client))
        await until(lambda: len(words(client)) > seen + 2, "words: the client is not disturbed")


@contextlib.asynccontextmanager
async def VoiceClientOfAThief(url: str, session: str | None, token: str | None) -> AsyncIterator[tuple[int, str]]:  # noqa: N802
    async with (
        offering() as body,
        aiohttp.ClientSession() as http,
        http.post(f"{url}/api/offer", json={**body, "resume": {"session": session, "token": token}}) as response,
    ):
        yield response.status, (await response.json())["error"]["code"]


async def test_a_token_opens_its_own_session_only() -> None:
    async with (
        counting_server(slots=2) as server,
        leaves_nothing(server),
        VoiceClient(url_of(server), tone(440)) as one,
        VoiceClient(url_of(server), tone(440)) as other,
    ):
        await asyncio.gather(one.wait_for("connected"), other.wait_for("connected"))
        async with VoiceClientOfAThief(url_of(server), one.session, other._resume_token) as status:
            assert status == (403, "resume_refused")
        async with VoiceClientOfAThief(url_of(server), "0-0-nobody", one._resume_token) as status:
            assert status == (404, "unknown_session")
        vanish(one)
        await one.resume()
        await one.wait_for("connected", resumed=True)


async def test_a_bad_offer_does_not_cost_the_token() -> None:
    async with (
        counting_server(*SOON) as server,
        leaves_nothing(server),
        VoiceClient(url_of(server), tone(440)) as client,
    ):
        await client.wait_for("connected")
        await cut(server, client)
        body = {"sdp": "v=0\r\n", "type": "offer", "resume": {"session": client.session, "token": client._resume_token}}
        async with aiohttp.ClientSession() as http, http.post(f"{url_of(server)}/api/offer", json=body) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (422, "no_audio")
        await client.resume()
        await client.wait_for("connected", resumed=True)


async def test_a_server_full_of_waiting_sessions_says_when_to_come_again() -> None:
    """Their places are kept, and they come back to them."""
    async with (
        counting_server("--resume-grace-s", "20", *SOON, slots=2) as server,
        leaves_nothing(server),
        VoiceClient(url_of(server), tone(440)) as one,
        VoiceClient(url_of(server), tone(440)) as other,
    ):
        await asyncio.gather(one.wait_for("connected"), other.wait_for("connected"))
        vanish(one)
        vanish(other)
        await until(lambda: set(state_of(server)) == {SessionState.WAITING}, "the losses to be noticed", NOTICED_S)
        async with (
            offering() as body,
            aiohttp.ClientSession() as http,
            http.post(f"{url_of(server)}/api/offer", json=body) as response,
        ):
            assert (response.status, (await response.json())["error"]["code"]) == (503, "server_full")
            assert 5 < int(response.headers["Retry-After"]) <= 22
        await asyncio.gather(one.resume(), other.resume())
        await asyncio.gather(one.wait_for("connected", resumed=True), other.wait_for("connected", resumed=True))


async def test_a_client_that_comes_back_and_does_not_connect_may_try_again() -> None:
    """With the token of that answer; the session waits on."""
    async with (
        counting_server("--connect-timeout-s", "2", *SOON) as server,
        leaves_nothing(server),
        VoiceClient(url_of(server), tone(440)) as client,
    ):
        await client.wait_for("connected")
        await cut(server, client)
        async with offering() as body, aiohttp.ClientSession() as http:
            body["resume"] = {"session": client.session, "token": client._resume_token}
            async with http.post(f"{url_of(server)}/api/offer", json=body) as response:
                client._resume_token = (await response.json())["resume"]["token"]
        await client.resume()
        await client.wait_for("connected", resumed=True)
        assert words(client) == list(range(1, len(words(client)) + 1))


async def test_a_goodbye_is_final() -> None:
    async with (
        counting_server(*SOON) as server,
        leaves_nothing(server),
        VoiceClient(url_of(server), tone(440)) as client,
    ):
        client_token = client._resume_token
        await client.wait_for("connected")
        client.send({"type": "bye"})
        await client.wait_for("disconnected", reason="bye")
        await until(lambda: not len(server.registry), "the end")
        async with VoiceClientOfAThief(url_of(server), client.session, client_token) as status:
            assert status == (404, "unknown_session")


async def test_a_server_that_stops_does_not_wait_for_anybody() -> None:
    async with counting_server(*SOON) as server, VoiceClient(url_of(server), tone(440)) as client:
        await client.wait_for("connected")
        await cut(server, client)
        async with asyncio.timeout(10):
            await server.admission.drain(60)
        assert not len(server.registry)


async def test_without_a_grace_there_is_no_token() -> None:
    async with (
        counting_server("--resume-grace-s", "0", *SOON) as server,
        leaves_nothing(server),
        VoiceClient(url_of(server), tone(440)) as client,
    ):
        await client.wait_for("connected")
        assert client._resume_token is None
        vanish(client)
        await until(lambda: not len(server.registry), "the end")


async def test_a_session_ends_by_the_clock_and_is_told_before() -> None:
    async with (
        counting_server("--max-session-s", "5") as server,
        leaves_nothing(server),
        VoiceClient(url_of(server), tone(440)) as client,
    ):
        ending = await client.wait_for("ending")
        assert ending["reason"] == "time_limit"
        assert 0 < ending["in_ms"] <= 5000
        await client.wait_for("disconnected", reason="time_limit")
        await until(lambda: not len(server.registry), "the end")
