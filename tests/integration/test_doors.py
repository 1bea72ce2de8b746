"""A whole server with access control: who gets to talk, over HTTPS too, and what every answer carries."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lab.waiting import until
from rtc_server.access import credentials
from rtc_server.app import Server
from rtc_server.client import VoiceClient
from rtc_server.config import parse
from rtc_server.errors import ConfigError
from rtc_server.web.limits import ConnectionLimits
from tests.conftest import UNLIMITED, running_server
from tests.support.calls import get_json, offering
from tests.support.leftovers import leaves_nothing
from tests.support.server_process import server_process
from tests.web.test_tls import issue

KEY = credentials.new_key()
BEARER = {"Authorization": f"Bearer {KEY}"}
ECHO = ("--model", "echo")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "auth.toml"
    path.write_text(f'[[keys]]\nname = "kiosk"\nhash = "{credentials.hash_of(KEY)}"\n')
    return path


@contextlib.asynccontextmanager
async def trusting(path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """A client that has accepted this certificate."""
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(path)))
    async with aiohttp.ClientSession(connector=connector) as http:
        yield http


async def offer(url: str, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    async with offering() as body, aiohttp.ClientSession() as http:  # noqa: SIM117 - the session outlives the request
        async with http.post(f"{url}/api/offer", json=body, headers=headers) as response:
            answer = await response.json()
            if response.status == 201:
                await (await http.delete(f"{url}/api/sessions/{answer['session']}", headers=headers)).read()
            return response.status, answer


def _write(path: Path, text: str) -> None:
    path.write_text(text)


async def test_with_keys_only_who_has_one_gets_to_talk(keys: Path) -> None:
    async with running_server(*ECHO, "--auth", str(keys)) as server, leaves_nothing(server):
        url = f"http://127.0.0.1:{server.port}"
        assert (await offer(url, {}))[0] == 401
        assert (await offer(url, {"Authorization": f"Bearer {KEY}x"}))[0] == 401
        assert (await offer(url, BEARER))[0] == 201
        assert (await get_json(f"{url}/api/config"))[0] == 200
        assert (await get_json(f"{url}/status"))[0] == 401


async def test_keys_are_read_again_while_it_runs(keys: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One that is taken out is good no longer; a file that cannot be read changes nothing."""
    async with running_server(*ECHO, "--auth", str(keys)) as server:
        url = f"http://127.0.0.1:{server.port}"
        other = credentials.new_key()
        _write(keys, "rubbish")
        server.reload()
        assert (await offer(url, BEARER))[0] == 201
        assert "not taken" in caplog.text
        _write(keys, f'[[keys]]\nname = "b"\nhash = "{credentials.hash_of(other)}"\n')
        server.reload()
        assert (await offer(url, BEARER))[0] == 401
        assert (await offer(url, {"Authorization": f"Bearer {other}"}))[0] == 201


async def test_a_key_of_a_service_that_there_is_not(keys: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It would open nothing. That this server has not got a service is no mistake: another may."""
    async with running_server(*ECHO, "--auth", str(keys)) as server:
        good = f'[[keys]]\nname = "kiosk"\nhash = "{credentials.hash_of(KEY)}"\n'
        _write(keys, good + 'services = ["ecko"]\n')
        server.reload()
        assert "there is no service ecko. Did you mean echo?" in caplog.text
        assert (await offer(f"http://127.0.0.1:{server.port}", BEARER))[0] == 201
        with pytest.raises(ConfigError, match="ecko"):
            Server(parse([*ECHO, "--auth", str(keys)], environment={}))
        _write(keys, good + 'services = ["dialogue"]\n')
        server.reload()
        assert (await offer(f"http://127.0.0.1:{server.port}", BEARER))[0] == 403


def test_a_file_of_keys_that_is_not_there_stops_the_start() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        Server(parse([*ECHO, "--auth", "/nowhere.toml"], environment={}))


async def test_a_client_that_waits_to_be_let_in(keys: Path) -> None:
    """It is asked for its body once it has shown a key; what else it expects is ignored."""
    async with running_server(*ECHO, "--auth", str(keys)) as server:
        for expected, key, first in (
            ("100-continue", KEY, b"HTTP/1.1 100 Continue"),
            ("100-continue", "wrong", b"HTTP/1.1 401 Unauthorized"),
            ("a-miracle", KEY, b"HTTP/1.1 400 Bad Request"),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(
                b"POST /api/offer HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nContent-Length: 2\r\n"
                + f"Authorization: Bearer {key}\r\nExpect: {expected}\r\n\r\n".encode()
                + (b"" if expected == "100-continue" else b"{}")
            )
            async with asyncio.timeout(10):
                assert (await reader.readline()).strip() == first
            writer.close()


async def test_too_many_offers() -> None:
    async with running_server(
        *ECHO, "--offers-per-minute", "1", "--trusted-proxies", "127.0.0.1", "--allow-anonymous"
    ) as server:
        url = f"http://127.0.0.1:{server.port}"
        async with aiohttp.ClientSession() as http:

            async def status(address: str) -> int:
                async with http.post(f"{url}/api/offer", data=b"x", headers={"X-Forwarded-For": address}) as response:
                    return response.status

            assert [await status("198.51.100.1") for _ in range(11)] == [415] * 10 + [429]
            flood = await asyncio.gather(*(status("198.51.100.1") for _ in range(1000)))
            assert set(flood) == {429}
            assert await status("198.51.100.2") == 415


async def test_a_page_of_a_stranger_whose_name_was_rebound(server: Server, base_url: str) -> None:
    port = server.port
    for host, origin, expected in (
        (f"evil.example:{port}", f"http://evil.example:{port}", 421),
        (f"127.0.0.1:{port}", "https://evil.example", 403),
        (f"localhost:{port}", f"http://localhost:{port}", 201),
    ):
        assert (await offer(base_url, {"Host": host, "Origin": origin}))[0] == expected
    async with aiohttp.ClientSession(headers={"Host": f"evil.example:{port}"}) as http:
        for path in ("/", "/static/main.js", "/status", "/metrics", "/api/ice-servers", "/healthz", "/nothing"):
            async with http.get(base_url + path) as response:
                assert response.status == 421
                assert (await response.json())["error"]["code"] == "host_refused"
        async with http.delete(f"{base_url}/whip/echo/x") as response:
            assert (response.status, (await response.json(content_type=None))["code"]) == (421, "host_refused")


async def test_a_request_without_a_host_is_told_so_in_our_words(server: Server) -> None:
    for named in (b"", b"Host: localhost\r\nHost: localhost\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /status HTTP/1.1\r\n" + named + b"Connection: close\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert b" 400 " in head.splitlines()[0]
        assert json.loads(body)["error"]["code"] == "bad_request"


async def test_names_that_are_configured() -> None:
    """That of the proxy which shows it, and those of the pages that may come in; with keys, any."""
    arguments = (
        *("--public-url", "https://voice.example.com/app/", "--allow-anonymous"),
        *("--allow-origins", "https://a.example,app://b"),
    )
    async with running_server(*ECHO, *arguments) as server, aiohttp.ClientSession() as http:
        for host, origin, status in (
            ("voice.example.com", None, 200),
            ("voice.example.com", "https://voice.example.com", 200),
            ("127.0.0.1", "https://voice.example.com", 200),
            ("a.example:8080", None, 200),
            ("localhost", "app://b", 200),
            ("b", None, 421),
            ("example.com", None, 421),
        ):
            headers = {"Host": host, **({} if origin is None else {"Origin": origin})}
            async with http.get(f"http://127.0.0.1:{server.port}/status", headers=headers) as response:
                assert response.status == status, (host, origin)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("--allow-anonymous",), 421),
        (("--allow-anonymous", "--allow-origins", "https://a.example"), 421),
        (("--allow-anonymous", "--allow-origins", "*"), 200),
        (("--allow-anonymous", "--trusted-proxies", "127.0.0.1"), 200),
        (("--allow-anonymous", "--trusted-proxies", "127.0.0.1", "--public-url", "https://a.example"), 421),
        (("--allow-anonymous", "--host", "0.0.0.0"), 200),
    ],
    ids=[
        "on loopback",
        "for pages",
        "for all pages",
        "behind a proxy",
        "behind a proxy that is named",
        "for a network",
    ],
)
async def test_who_answers_to_any_name(arguments: tuple[str, ...], status: int) -> None:
    async with running_server(*ECHO, *arguments) as server, aiohttp.ClientSession() as http:
        headers = {"Host": "other.example", "X-Forwarded-For": "203.0.113.9"}
        async with http.get(f"http://127.0.0.1:{server.port}/status", headers=headers) as response:
            assert response.status == status


async def test_an_event_source_with_keys(keys: Path) -> None:
    """What ``new EventSource(url)`` sends; what it gets is kept nowhere."""
    async with (
        running_server(*ECHO, "--auth", str(keys)) as server,
        VoiceClient(f"http://127.0.0.1:{server.port}", token=KEY) as client,
        aiohttp.ClientSession() as http,
    ):
        await client.wait_for("connected")
        url = f"http://127.0.0.1:{server.port}/api/sessions/{client.session}/events"
        async with http.get(f"{url}?token={KEY}x", headers={"Accept": "text/event-stream"}) as response:
            assert response.status == 401
        async with http.get(f"{url}?token={KEY}", headers={"Accept": "text/event-stream"}) as response:
            assert (response.status, response.content_type) == (200, "text/event-stream")
            assert response.headers["Cache-Control"] == "no-store"
            assert response.headers["Referrer-Policy"] == "no-referrer"
            client.send({"type": "bye"})
            assert b'"reason":"bye"' in await response.read()


@pytest.mark.parametrize("path", ["/", "/static/main.js", "/nothing", "/api/config", "/metrics", "/healthz"])
async def test_every_answer_carries_what_protects_the_page(server: Server, base_url: str, path: str) -> None:
    async with aiohttp.ClientSession() as http, http.get(base_url + path) as response:
        headers = response.headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["base-uri"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert "Strict-Transport-Security" not in headers


async def test_a_bought_certificate(tmp_path: Path) -> None:
    """With it goes HSTS: browsers come by HTTPS from then on."""
    chain, key = issue(tmp_path, "localhost")
    arguments = (*ECHO, "--host", "localhost", "--tls-cert", str(chain), "--tls-key", str(key))
    async with running_server(*arguments) as server, trusting(chain) as http:
        for path, status in (("/", 200), ("/nothing", 404)):
            async with http.get(f"https://localhost:{server.port}{path}") as response:
                assert response.status == status
                assert response.headers["Strict-Transport-Security"] == "max-age=31536000"
        with pytest.raises(aiohttp.ClientError):
            await http.get(f"http://localhost:{server.port}/")


async def test_one_made_on_the_spot(tmp_path: Path) -> None:
    """The whole program: it says what to expect, serves the page, and takes a new certificate on SIGHUP."""
    path = tmp_path / "rtc-server" / "self-signed.pem"
    arguments = (*ECHO, "--tls", "self-signed", "--host", "0.0.0.0", "--allow-anonymous")
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    async with server_process(*arguments, environment=environment) as server:
        await server.wait_ready(scheme="https")
        url = server.url.replace("127.0.0.1", "localhost")
        async with trusting(path) as http, http.get(f"{url}/") as response:
            assert response.status == 200
            assert "Strict-Transport-Security" not in response.headers
        path.unlink()
        server.signal(signal.SIGHUP)
        await until(path.exists, "a new certificate")

        async def trusted() -> bool:
            with contextlib.suppress(aiohttp.ClientError, ssl.SSLError):
                async with trusting(path) as http, http.get(f"{url}/healthz") as response:
                    return response.status == 200
            return False

        async with asyncio.timeout(15):
            while not await trusted():  # noqa: ASYNC110 - it is another process that changes
                await asyncio.sleep(0.05)
        server.signal(signal.SIGTERM)
        assert await server.wait_exit(20) == 0


async def test_a_request_that_does_not_come_is_dropped() -> None:
    """In a whole server, under limits of the test's own."""
    server = Server(parse(["--port", "0", *UNLIMITED, *ECHO], environment={}), ConnectionLimits(head_s=0.3))
    await server.start()
    try:
        for sent in (b"POST /api/of", b"POST /api/offer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{"):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(sent)
            async with asyncio.timeout(10):
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            assert b" 408 " in head.splitlines()[0]
            assert json.loads(body)["error"]["code"] == "request_timeout"
            writer.close()
        assert (await get_json(f"http://127.0.0.1:{server.port}/healthz"))[0] == 200
    finally:
        await server.stop(0.0)
