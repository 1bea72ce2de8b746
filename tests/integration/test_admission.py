"""Who may open which session, how many, for how long, and that nobody reaches another's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from rtc_server import auth
from rtc_server.app import Server
from rtc_server.client import OfferRefused, VoiceClient
from rtc_server.protocols.trickle import SDPFRAG_TYPE
from tests.conftest import running_server
from tests.support.calls import leaves_nothing, offering, until

ADA, BOB, GUEST = auth.new_key(), auth.new_key(), auth.new_key()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "auth.toml"
    path.write_text(
        f'[[keys]]\nname = "ada"\nhash = "{auth.hash_of(ADA)}"\n'
        f'[[keys]]\nname = "bob"\nhash = "{auth.hash_of(BOB)}"\nservices = ["dialogue"]\n'
        f'[[keys]]\nname = "guest"\nhash = "{auth.hash_of(GUEST)}"\nmax_session_s = 1\n'
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
