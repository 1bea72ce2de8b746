"""Who may open which session, how many, for how long, and that no client reaches another's."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import WSCloseCode

from lab.waiting import until
from rtc_server.access import credentials
from rtc_server.app import Server
from rtc_server.client import OfferRefused, VoiceClient
from rtc_server.protocols.trickle import SDPFRAG_TYPE
from rtc_server.sessions.state import EndReason
from tests.conftest import running_server
from tests.support.asr import AsrClosed, AsrSocketClient, asr_client, asr_server
from tests.support.calls import offering
from tests.support.leftovers import leaves_nothing
from tests.support.parrot import Parrot, numbered

SECRET = b"s" * 64
ADA, BOB, GUEST = credentials.new_key(), credentials.new_key(), credentials.new_key()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "auth.toml"
    path.write_text(
        f'[[keys]]\nname = "ada"\nhash = "{credentials.hash_of(ADA)}"\n'
        f'[[keys]]\nname = "bob"\nhash = "{credentials.hash_of(BOB)}"\nservices = ["dialogue"]\n'
        f'[[keys]]\nname = "guest"\nhash = "{credentials.hash_of(GUEST)}"\nmax_session_s = 4\n'
    )
    return path


@pytest.fixture
async def guarded(keys: Path) -> AsyncIterator[Server]:
    async with running_server("--model", "echo", "--auth", str(keys)) as server:
        yield server


def url_of(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_a_key_opens_a_session(guarded: Server) -> None:
    async with VoiceClient(url_of(guarded), token=ADA) as client:
        await client.wait_for("connected")


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [(None, 401, "unauthorized"), ("wrong", 401, "unauthorized"), (BOB, 403, "forbidden")],
    ids=["none", "wrong", "for another service"],
)
async def test_the_wrong_key_opens_none(guarded: Server, key: str | None, status: int, code: str) -> None:
    client = VoiceClient(url_of(guarded), token=key)
    with pytest.raises(OfferRefused) as refused:
        await client.__aenter__()
    assert (refused.value.status, refused.value.code) == (status, code)


async def test_a_session_is_its_owners_alone(guarded: Server) -> None:
    """Who has its id and another's key finds nothing: not to look at, to end, to change, to follow, to hear or to
    resume."""
    url = url_of(guarded)
    async with VoiceClient(url, token=ADA) as client, aiohttp.ClientSession(headers=bearer(BOB)) as http:
        await client.wait_for("connected")
        session = f"{url}/api/sessions/{client.session}"
        fragment = {"data": "a=mid:0\r\n", "headers": {"Content-Type": SDPFRAG_TYPE, "If-Match": "*"}}
        async with offering() as body:
            resume = {**body, "resume": {"session": client.session, "token": client._resume_token}}
            sdp = {"data": body["sdp"], "headers": {"Content-Type": "application/sdp"}}
            for method, address, more in (
                ("GET", session, {}),
                ("DELETE", session, {}),
                ("PATCH", session, fragment),
                ("GET", f"{session}/events", {}),
                ("POST", f"{url}/whep/{client.session}", sdp),
                ("POST", f"{url}/api/offer", {"json": resume}),
            ):
                async with http.request(method, address, **more) as response:
                    assert response.status == 404, (method, address)
        async with aiohttp.ClientSession(headers=bearer(ADA)) as own, own.get(session) as response:
            assert response.status == 200


@pytest.mark.slow
async def test_a_key_with_a_time_limit(guarded: Server) -> None:
    async with VoiceClient(url_of(guarded), token=GUEST) as client:
        await client.wait_for("ending")
        await client.wait_for("disconnected", reason="time_limit")


async def test_so_many_sessions_from_one_address() -> None:
    """By the address that the proxy tells of: another has its own."""
    arguments = (
        "--model",
        "echo",
        "--sessions-per-address",
        "2",
        "--trusted-proxies",
        "127.0.0.1",
        "--allow-anonymous",
    )
    async with running_server(*arguments) as server, leaves_nothing(server), aiohttp.ClientSession() as http:
        url, sessions = url_of(server), []
        async with offering() as body:
            for address, status in (("192.0.2.1", 201), ("192.0.2.1", 201), ("192.0.2.1", 429), ("192.0.2.2", 201)):
                headers = {"X-Forwarded-For": address}
                async with http.post(f"{url}/api/offer", json=body, headers=headers) as response:
                    answer = await response.json()
                    assert response.status == status
                    if status == 201:
                        sessions.append(answer["session"])
                    else:
                        assert answer["error"]["code"] == "too_many_sessions"
                        assert int(response.headers["Retry-After"]) > 0
        await asyncio.gather(*(http.delete(f"{url}/api/sessions/{session}") for session in sessions))
        await until(lambda: not len(server.registry), "the end of all")


CONNECTING = ("--model", "echo", "--trusted-proxies", "127.0.0.1", "--allow-anonymous", "--connecting-per-address", "0")


@contextlib.asynccontextmanager
async def offers_from(server: Server, http: aiohttp.ClientSession) -> AsyncIterator[Callable[[str], Awaitable[int]]]:
    """Makes an offer that will never connect, from an address; the status. All that it opened is ended."""
    url, sessions = f"{url_of(server)}/api", []
    async with offering() as body:

        async def offer(address: str) -> int:
            async with http.post(f"{url}/offer", json=body, headers={"X-Forwarded-For": address}) as response:
                answer = await response.json()
                if response.status == 201:
                    sessions.append(answer["session"])
                else:
                    assert (response.status, answer["error"]["code"]) == (429, "rate_limited")
                    assert "still connecting" in answer["error"]["message"]
                    assert 0 < int(response.headers["Retry-After"]) < 10
                return response.status

        yield offer
        await asyncio.gather(*(http.delete(f"{url}/sessions/{session}") for session in sessions))
    await until(lambda: not len(server.registry), "the end of all")


@pytest.mark.parametrize(("slots", "taken"), [(2, 1), (4, 2), (64, 8)])
async def test_offers_that_never_connect_do_not_take_all_places(slots: int, taken: int) -> None:
    """Of one address, however many it makes: others still come in, and it does, once it is connected."""
    async with (
        running_server(*CONNECTING, "--echo-slots", str(slots)) as server,
        leaves_nothing(server),
        aiohttp.ClientSession() as http,
        offers_from(server, http) as offer,
    ):
        statuses = [await offer("192.0.2.1") for _ in range(12)]
        assert statuses == [201] * taken + [429] * (12 - taken)
        assert await offer("192.0.2.2") == 201
        own = next(iter(server.registry))
        await own.end(EndReason.CONNECT_TIMEOUT)
        assert await offer("192.0.2.1") == 201


async def test_a_network_of_ipv6_is_one_address() -> None:
    async with (
        running_server(*CONNECTING, "--echo-slots", "8") as server,
        aiohttp.ClientSession() as http,
        offers_from(server, http) as offer,
    ):
        assert [await offer(f"2001:db8:1:2::{n:x}") for n in range(6)] == [201] * 4 + [429] * 2
        assert await offer("2001:db8:1:3::1") == 201


async def test_connected_ones_do_not_count_as_connecting() -> None:
    async with (
        running_server(*CONNECTING, "--echo-slots", "2") as server,
        leaves_nothing(server),
        VoiceClient(url_of(server)) as one,
    ):
        await one.wait_for("connected")
        async with VoiceClient(url_of(server)) as other:
            await other.wait_for("connected")


@contextlib.asynccontextmanager
async def guarded_sockets(tmp_path: Path, *arguments: str, slots: int = 4) -> AsyncIterator[Server]:
    """A server that transcribes, and takes tokens as well as keys."""
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "auth.toml").write_text(
        f'[jwt]\nalgorithm = "HS256"\nsecret_file = "secret"\naudience = "voice"\nleeway_s = 0\n'
        f'[[keys]]\nname = "guest"\nhash = "{credentials.hash_of(GUEST)}"\nmax_session_s = 1\n'
        f'[[keys]]\nname = "ada"\nhash = "{credentials.hash_of(ADA)}"\n'
    )
    guarded = ("--auth", str(tmp_path / "auth.toml"), "--trusted-proxies", "127.0.0.1", *arguments)
    async with asr_server(lambda: Parrot(slots=slots), None, *guarded) as server:
        yield server


async def how_it_ends(client: AsrSocketClient) -> tuple[str, str, int]:
    """Code and message of its error, and of its close; audio is sent all the while."""

    async def pour() -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await client.send_audio(numbered(1))
                await asyncio.sleep(0.05)

    pouring = asyncio.create_task(pour())
    error = await client.until("Error")
    with pytest.raises(AsrClosed) as closed:
        await client.next()
    pouring.cancel()
    await asyncio.gather(pouring, return_exceptions=True)
    assert closed.value.code is not None
    return error["code"], error["message"], closed.value.code


@pytest.mark.parametrize("kind", ["key", "token", "setting"])
async def test_a_socket_lasts_as_long_as_a_session_may(tmp_path: Path, kind: str) -> None:
    rules = credentials.TokenRules("HS256", SECRET, "voice", leeway_s=0)
    signed = credentials.sign_token(rules, time.time(), 600, max_session_s=1)
    credential = {"key": GUEST, "token": signed, "setting": ADA}[kind]
    arguments = ("--max-session-s", "1") if kind == "setting" else ()
    async with (
        guarded_sockets(tmp_path, *arguments) as server,
        asr_client(server, headers=bearer(credential)) as client,
    ):
        code, _, closed = await how_it_ends(client)
        assert (code, closed) == ("time_limit", WSCloseCode.POLICY_VIOLATION)


async def test_a_socket_lasts_as_long_as_its_token(tmp_path: Path) -> None:
    rules = credentials.TokenRules("HS256", SECRET, "voice", leeway_s=0)
    signed = credentials.sign_token(rules, time.time(), 2, max_session_s=600)
    async with guarded_sockets(tmp_path) as server, asr_client(server, f"?token={signed}") as client:
        code, message, closed = await how_it_ends(client)
        assert (code, closed) == ("unauthorized", WSCloseCode.POLICY_VIOLATION)
        assert "token" in message


async def test_sockets_and_sessions_of_an_address_are_counted_together(tmp_path: Path) -> None:
    limits = ("--sessions-per-address", "2")
    ada = {**bearer(ADA), "X-Forwarded-For": "192.0.2.1"}
    async with guarded_sockets(tmp_path, *limits) as server, aiohttp.ClientSession(headers=ada) as http:
        async with asr_client(server, headers=ada) as one:
            await one.until("Ready")
            async with offering() as body, http.post(f"{url_of(server)}/api/offer", json=body) as response:
                assert response.status == 201
                session = (await response.json())["session"]
            async with asr_client(server, headers=ada) as another:
                code, _, closed = await how_it_ends(another)
                assert (code, closed) == ("too_many_sessions", WSCloseCode.TRY_AGAIN_LATER)
            async with asr_client(server, headers={**ada, "X-Forwarded-For": "192.0.2.2"}) as elsewhere:
                await elsewhere.until("Ready")
            await (await http.delete(f"{url_of(server)}/api/sessions/{session}")).read()
        await until(lambda: not len(server.asr_sockets), "the end of the sockets")
        async with asr_client(server, headers=ada) as one:
            await one.until("Ready")


async def test_sockets_without_audio_do_not_take_all_places(tmp_path: Path) -> None:
    ada = {**bearer(ADA), "X-Forwarded-For": "192.0.2.1"}
    async with (
        guarded_sockets(tmp_path, "--connecting-per-address", "0", slots=4) as server,
        asr_client(server, headers=ada) as one,
        asr_client(server, headers=ada) as two,
    ):
        await one.until("Ready")
        await two.until("Ready")
        async with asr_client(server, headers=ada) as three:
            code, _, closed = await how_it_ends(three)
            assert (code, closed) == ("rate_limited", WSCloseCode.TRY_AGAIN_LATER)
        await one.send_audio(numbered(9))
        await one.until("Word")
        async with asr_client(server, headers=ada) as three:
            await three.until("Ready")


async def test_sockets_count_among_all_sessions(tmp_path: Path) -> None:
    async with (
        guarded_sockets(tmp_path, "--max-sessions", "1") as server,
        asr_client(server, headers=bearer(ADA)) as one,
    ):
        await one.until("Ready")
        with pytest.raises(OfferRefused) as refused:
            await VoiceClient(url_of(server), service="echo", token=ADA).__aenter__()
        assert (refused.value.status, refused.value.code) == (503, "server_full")
