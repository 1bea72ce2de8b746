"""Behind a real nginx, configured as documented: at the root and under a path of its own, with keys and without."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urljoin

import aiohttp
import pytest

from lab.sound.tones import Ear
from lab.whip import posted
from rtc_server.access import credentials
from rtc_server.app import Server
from rtc_server.client import VoiceClient
from rtc_server.protocols.trickle import SDPFRAG_TYPE
from tests.conftest import UNLIMITED, need_commands, running_server
from tests.integration.test_whip import player, publisher
from tests.support.asr import AsrSocketClient, asr_server
from tests.support.calls import offering
from tests.support.leftovers import leaves_nothing
from tests.support.nginx import PREFIX, Nginx, nginx_before
from tests.support.parrot import Parrot

KEY = credentials.new_key()
BEARER = {"Authorization": f"Bearer {KEY}"}
EVERYWHERE = pytest.mark.parametrize("prefix", ["", PREFIX], ids=["root", "path"])


@pytest.fixture(autouse=True)
def _needs() -> None:
    need_commands("nginx")


@pytest.fixture
async def anonymous(tmp_path: Path) -> AsyncIterator[tuple[Server, Nginx]]:
    """Shown under a name that is not this machine's own."""
    public = f"https://voice.example.org{PREFIX}/"
    arguments = ("--trusted-proxies", "127.0.0.1", "--allow-anonymous", "--public-url", public)
    async with running_server("--model", "echo", *arguments) as server, nginx_before(server.port, tmp_path) as nginx:
        yield server, nginx


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[tuple[Server, Nginx]]:
    path = tmp_path / "auth.toml"
    path.write_text(f'[[keys]]\nname = "page"\nhash = "{credentials.hash_of(KEY)}"\n')
    arguments = ("--auth", str(path), "--trusted-proxies", "127.0.0.1", *UNLIMITED)
    async with asr_server(Parrot, None, *arguments) as server, nginx_before(server.port, tmp_path) as nginx:
        yield server, nginx


@EVERYWHERE
async def test_the_page_and_all_that_it_is_made_of(anonymous: tuple[Server, Nginx], prefix: str) -> None:
    _, nginx = anonymous
    async with aiohttp.ClientSession(headers={"Host": "voice.example.org"}) as http:
        page = nginx.url(prefix) + "/"
        async with http.get(page) as response:
            assert response.status == 200
            named = re.findall(r'(?:href|src)="([^"#]+)"', await response.text())
        assert len(named) > 30
        for reference in named:
            assert not reference.startswith("/")
            async with http.get(urljoin(page, reference)) as response:
                assert response.status == 200, reference
        async with http.get(urljoin(page, "api/config"), headers={"Origin": "https://voice.example.org"}) as response:
            assert response.status == 200
        async with http.get(page, headers={"Host": "evil.example"}) as response:
            assert response.status == 421
        async with http.get(nginx.url(PREFIX), allow_redirects=False) as response:
            assert (response.status, response.headers["Location"][-7:]) == (301, f"{PREFIX}/")


@EVERYWHERE
async def test_a_program(anonymous: tuple[Server, Nginx], prefix: str) -> None:
    server, nginx = anonymous
    async with leaves_nothing(server), VoiceClient(nginx.url(prefix)) as client:
        await client.wait_for("connected")


@EVERYWHERE
async def test_whip_and_whep(anonymous: tuple[Server, Nginx], prefix: str) -> None:
    """What is made is found where ``Location`` says, as its client resolves it."""
    server, nginx = anonymous
    ear = Ear()
    async with (
        leaves_nothing(server),
        posted(nginx.url(prefix), "/whip/echo", publisher(440)) as session,
        posted(nginx.url(prefix), f"/whep/{session.id}", player(ear)) as listener,
    ):
        assert session.url == f"{nginx.url(prefix)}/whip/echo/{session.id}"
        await ear.until_voice()
        fragment = "a=mid:0\r\na=end-of-candidates\r\n"
        for resource in (listener, session):
            assert await resource.patch(fragment, SDPFRAG_TYPE, If_Match=resource.headers["ETag"]) == (204, None)
            assert await resource.delete() == 200


@EVERYWHERE
async def test_the_session_of_an_offer(anonymous: tuple[Server, Nginx], prefix: str) -> None:
    server, nginx = anonymous
    async with leaves_nothing(server), offering() as body, aiohttp.ClientSession() as http:
        async with http.post(f"{nginx.url(prefix)}/api/offer", json=body) as response:
            assert response.status == 201
            session = urljoin(str(response.url), response.headers["Location"])
        async with http.get(session) as response:
            assert (response.status, (await response.json())["state"]) == (200, "connecting")
        async with http.delete(session) as response:
            assert response.status == 204


@EVERYWHERE
async def test_sockets_and_event_sources_with_keys_that_no_log_has(guarded: tuple[Server, Nginx], prefix: str) -> None:
    _, nginx = guarded
    url = nginx.url(prefix)
    async with aiohttp.ClientSession() as http:
        for path, protocols in (
            ("", ("rtc-server.v1", f"bearer.{KEY}")),
            (f"?token={KEY}", ()),
            (f"?auth_id={KEY}", ()),
        ):
            async with http.ws_connect(f"{url}/api/asr-streaming{path}", protocols=protocols) as socket:
                await AsrSocketClient(socket).until("Ready")
                assert socket.protocol == (protocols[0] if protocols else None)
        async with VoiceClient(url, service="echo", token=KEY) as client:
            await client.wait_for("connected")
            async with http.get(f"{url}/api/sessions/{client.session}/events?token={KEY}") as response:
                assert (response.status, response.content_type) == (200, "text/event-stream")
                client.send({"type": "bye"})
                assert b'"reason":"bye"' in await response.read()
        async with http.get(f"{url}/status", headers=BEARER) as response:
            assert response.status == 200
    assert "/api/asr-streaming" in nginx.access_log
    assert "/events" in nginx.access_log
    assert KEY not in nginx.access_log
