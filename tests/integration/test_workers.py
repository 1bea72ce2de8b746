"""A server with several media processes: to its clients it is one, and none of them notices the end of another."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import re
import signal
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import psutil
import pytest
from yarl import URL

from lab import media_processes
from lab.waiting import until, until_told
from rtc_server.access import credentials
from rtc_server.client import OfferRefused, VoiceClient
from tests.conftest import ON_ONE_LOOP
from tests.support import workers as workers_of
from tests.support.calls import get_json, offering
from tests.support.gate import bearer
from tests.support.openai_calls import realtime_call
from tests.support.openai_realtime import realtime_client
from tests.support.orphans import alive
from tests.support.server_process import ServerProcess, server_process
from tests.web.test_tls import issue

pytestmark = [pytest.mark.slow, ON_ONE_LOOP]

ECHO = ("--model", "echo", "--workers", "2", "--vad", "off")
FRESH = 12
"""Requests, each by a connection of its own: that all of them come to one of two processes happens once in 2,000."""


@contextlib.asynccontextmanager
async def workers(*options: str, **kwargs: Any) -> AsyncIterator[ServerProcess]:
    async with server_process(*ECHO, *options, **kwargs) as server:
        await server.wait_ready()
        await until_told(lambda: both_answer(server))
        yield server


async def status_of(server: ServerProcess) -> dict[str, Any]:
    _, told = await get_json(f"{server.url}/status")
    return told


async def both_answer(server: ServerProcess) -> bool:
    told = (await status_of(server)).get("workers", {})
    return len(told) == 2 and all(each["engines"]["echo"]["state"] == "ready" for each in told.values())


async def sessions_by_worker(server: ServerProcess) -> dict[str, int]:
    told = await status_of(server)
    return {index: sum(each["sessions"].values()) for index, each in told["workers"].items()}


def worker_of(client: VoiceClient) -> int:
    assert client.session is not None
    return media_processes.worker_of(client.session)


@contextlib.asynccontextmanager
async def talking(server: ServerProcess, count: int, **kwargs: Any) -> AsyncIterator[list[VoiceClient]]:
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(VoiceClient(server.url, **kwargs)) for _ in range(count)]
        for client in clients:
            await client.wait_for("connected")
        yield clients


async def test_calls_are_spread_and_each_is_found_by_whatever_process_is_asked() -> None:
    async with workers() as server, talking(server, 4) as clients, contextlib.AsyncExitStack() as stack:
        assert Counter(map(worker_of, clients)) == {0: 2, 1: 2}
        assert await sessions_by_worker(server) == {"0": 2, "1": 2}
        assert (await status_of(server))["sessions"]["listening"] == 4
        one = clients[0].session
        for _ in range(FRESH):
            status, told = await get_json(f"{server.url}/api/sessions/{one}")
            assert (status, told["session"]) == (200, one)
        await self_described(server)
        followed = [await stack.enter_async_context(events_of(server, client)) for client in clients]
        for client in clients:
            async with aiohttp.ClientSession() as http, http.delete(session_url(server, client)) as gone:
                assert gone.status == 204
        for client, events in zip(clients, followed, strict=True):
            assert (await client.wait_for("disconnected"))["reason"] == "deleted"
            assert '"type":"disconnected"' in (await events.text()).replace(" ", "")
        for client in clients:
            for _ in range(FRESH // 4):
                status, told = await get_json(session_url(server, client))
                assert (status, told["error"]["code"]) == (404, "unknown_session")


async def self_described(server: ServerProcess) -> None:
    """Metrics are of all processes, whichever is asked."""
    for _ in range(FRESH // 2):
        async with aiohttp.ClientSession() as http, http.get(f"{server.url}/metrics") as response:
            text = await response.text()
        for worker in "01":
            assert f'rtc_sessions{{state="listening",worker="{worker}"}} 2.0' in text


@contextlib.asynccontextmanager
async def events_of(server: ServerProcess, client: VoiceClient) -> AsyncIterator[aiohttp.ClientResponse]:
    url = f"{session_url(server, client)}/events"
    async with aiohttp.ClientSession() as http, http.get(url) as events:
        assert events.content_type == "text/event-stream"
        yield events


def session_url(server: ServerProcess, client: VoiceClient) -> str:
    return f"{server.url}/api/sessions/{client.session}"


async def test_a_client_comes_back_to_its_process_whichever_answers() -> None:
    async with workers() as server, talking(server, 2) as clients:
        for _ in range(FRESH // 3):
            for client in clients:
                before = client.session
                await client.resume()
                assert client.session == before
                await client.wait_for("connected", resumed=True)
        assert Counter(map(worker_of, clients)) == {0: 1, 1: 1}


async def test_a_socket_beside_a_call_of_another_process() -> None:
    async with workers() as server:
        place = SimpleNamespace(port=int(server.url.rpartition(":")[2]))
        async with realtime_call(place) as caller:  # type: ignore[arg-type]
            await caller.comes("session.created")
            for number in range(FRESH // 2):
                url = f"{server.url}/v1/realtime?call_id={caller.id}"
                async with realtime_client(url, None) as beside:
                    await beside.comes("session.created")
                    await beside.send("session.update", session={"instructions": f"Be kind, {number}."})
                    told = await beside.comes("session.updated")
                    assert told["session"]["instructions"] == f"Be kind, {number}."
        for worker in (0, 1) * (FRESH // 4):
            async with aiohttp.ClientSession() as http:
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await http.ws_connect(f"{server.url}/v1/realtime?call_id=rtc_0-{worker}-{'x' * 22}")
                assert refused.value.status == 404


async def test_an_answer_is_the_same_whichever_process_makes_it() -> None:
    """Headers that come several times, pages of other origins, and bodies that are refused included."""
    options = ("--stun-urls", "stun:a.example,stun:b.example", "--allow-origins", "https://app.example")
    async with workers(*options) as server, offering() as body:
        headers = {"Content-Type": "application/sdp", "Origin": "https://app.example"}
        made = set()
        for _ in range(FRESH // 2):
            async with (
                aiohttp.ClientSession() as http,
                http.post(f"{server.url}/whip/echo", data=body["sdp"], headers=headers) as answer,
            ):
                assert answer.status == 201
                assert len(answer.headers.getall("Link")) == 2
                assert answer.headers.getall("Access-Control-Allow-Origin") == ["https://app.example"]
                made.add(answer.headers["Location"].rpartition("/")[2].split("-")[1])
                resource = answer.url.join(URL(answer.headers["Location"]))
            async with aiohttp.ClientSession() as http, http.patch(resource, data="x", headers=headers) as refused:
                assert (refused.status, refused.content_type) == (415, "application/problem+json")
        assert made == {"0", "1"}


async def test_limits_are_of_the_server() -> None:
    async with workers("--sessions-per-address", "3") as server, talking(server, 3) as clients:
        assert len(set(map(worker_of, clients))) == 2
        for _ in range(FRESH):
            with pytest.raises(OfferRefused) as refused:
                await VoiceClient(server.url).connect()
            assert refused.value.code == "too_many_sessions"
        await clients[0].close()
        await until_told(lambda: held_is(server, 2))
        async with talking(server, 1):
            pass


async def held_is(server: ServerProcess, count: int) -> bool:
    return sum((await sessions_by_worker(server)).values()) == count


async def test_offers_are_counted_by_the_server() -> None:
    async with workers("--offers-per-minute", "20") as server, offering() as body:
        statuses = Counter()  # type: ignore[var-annotated]
        began_at = time.monotonic()
        for _ in range(3 * FRESH):
            async with aiohttp.ClientSession() as http, http.post(f"{server.url}/api/offer", json=body) as response:
                statuses[response.status] += 1
        brought = math.ceil((time.monotonic() - began_at) / 3)
        assert statuses[201] <= 10 + brought, "ten at once, and those that time has brought"
        assert statuses[429] == 3 * FRESH - statuses[201]


async def test_a_process_that_is_killed_is_replaced_and_the_others_do_not_notice() -> None:
    async with workers() as server, talking(server, 2) as clients:
        lives, dies = sorted(clients, key=worker_of)
        victim = workers_of.media_processes(server)[worker_of(dies)]
        heard = sum(event["type"] == "stats" for event in lives.events)
        for _ in range(FRESH):  # the other one keeps its connection to it
            assert (await get_json(session_url(server, dies)))[0] == 200
        victim.kill()
        for _ in range(FRESH):
            status, told = await get_json(session_url(server, dies))
            assert (status, told["error"]["code"]) == (404, "unknown_session")
        await until_told(lambda: both_answer(server))
        assert workers_of.media_processes(server)[worker_of(dies)].pid != victim.pid
        await until(lambda: sum(event["type"] == "stats" for event in lives.events) > heard + 1, "figures")
        assert (await get_json(session_url(server, lives)))[0] == 200
        assert not [event for event in lives.events if event["type"] == "error"]
        # An echo has nothing to remember; a new conversation has room at once, and both processes take some.
        with pytest.raises(OfferRefused) as refused:
            await dies.resume()
        assert refused.value.code == "unknown_session"
        async with talking(server, 3) as more:
            assert Counter(map(worker_of, [lives, *more])) == {0: 2, 1: 2}


async def test_a_signal_to_all_processes_at_once_lets_conversations_end(tmp_path: Path) -> None:
    """As service managers send it; nothing stays behind."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    async with workers("--drain-s", "60", start_new_session=True, environment=environment) as server:
        family = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
        (directory,) = tmp_path.glob("rtc-server-*")  # noqa: ASYNC240
        assert directory.stat().st_mode & 0o777 == 0o700
        async with talking(server, 2) as clients:
            os.killpg(server.process.pid, signal.SIGTERM)
            for client in clients:
                assert (await client.wait_for("error"))["code"] == "draining"
            assert len(alive(family)) == len(family)
        assert await server.wait_exit() == 0
        await until(lambda: not alive(family), "the end of all")
        assert not directory.exists()


async def test_a_second_signal_does_not_wait() -> None:
    async with workers("--drain-s", "60") as server, talking(server, 2) as clients:
        server.signal(signal.SIGTERM)
        await clients[0].wait_for("error")
        server.signal(signal.SIGTERM)
        assert await server.wait_exit() == 0


async def test_when_the_first_process_is_killed_all_others_end() -> None:
    async with workers() as server:
        family = psutil.Process(server.process.pid).children(recursive=True)
        assert len(family) >= 2
        server.process.kill()
        await until(lambda: not alive(family), "the end of all")


async def test_keys_are_read_again_by_all_and_what_one_makes_opens_the_others(tmp_path: Path) -> None:
    first, second = credentials.new_key(), credentials.new_key()
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[[keys]]\nname = "a"\nhash = "{credentials.hash_of(first)}"\n')
    async with server_process(*ECHO, "--auth", str(keys)) as server:
        await server.wait_ready()
        secrets = f"{server.url}/v1/realtime/client_secrets"
        async with aiohttp.ClientSession(headers=bearer(first)) as http, http.post(secrets, json={}) as made:
            short = (await made.json())["value"]
        for _ in range(FRESH):
            assert await opens(server, short)
        keys.write_text(f'[[keys]]\nname = "b"\nhash = "{credentials.hash_of(second)}"\n')
        server.signal(signal.SIGHUP)
        await until(lambda: sum("keys are read" in line for line in server.log) == 2, "both")
        for _ in range(FRESH):
            assert await opens(server, second)
            assert not await opens(server, first)
            assert not await opens(server, short)


async def test_a_certificate_is_read_again_by_all(tmp_path: Path) -> None:
    """And one who is connected stays so."""
    paths = issue(tmp_path)
    async with server_process(*ECHO, "--tls-cert", str(paths[0]), "--tls-key", str(paths[1])) as server:
        await server.wait_ready(scheme="https")
        await until(lambda: certificates_read(server) == {"0": 1, "1": 1}, "both processes")
        first = der_of(paths[0])
        async with secure_connection(server) as (reader, writer):
            assert certificate_of(writer) == first
            issue(tmp_path)
            server.signal(signal.SIGHUP)
            await until(lambda: certificates_read(server) == {"0": 2, "1": 2}, "both processes")
            for _ in range(FRESH):
                async with secure_connection(server) as (_, another):
                    assert certificate_of(another) == der_of(paths[0]) != first
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200" in await reader.readline()


def certificates_read(server: ServerProcess) -> Counter[str]:
    """How often, by process."""
    found = (re.search(r"worker (\d+) .*the certificate is valid until", line) for line in server.log)
    return Counter(match[1] for match in found if match)


def der_of(path: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(path.read_text())


def certificate_of(writer: asyncio.StreamWriter) -> bytes | None:
    shown: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return shown


@contextlib.asynccontextmanager
async def secure_connection(server: ServerProcess) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", server.url.rpartition(":")[2], ssl=trusting)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_a_process_that_cannot_take_anothers_place_yet_costs_no_other(tmp_path: Path) -> None:
    """The file of keys was broken meanwhile. Once it is mended, the process is there."""
    key, keys = credentials.new_key(), tmp_path / "keys.toml"
    good = f'[[keys]]\nname = "a"\nhash = "{credentials.hash_of(key)}"\n'
    keys.write_text(good)
    async with server_process(*ECHO, "--auth", str(keys)) as server:
        await server.wait_ready()
        await until(lambda: len(workers_of.media_processes(server)) == 2)
        keys.write_text("nothing like it")
        workers_of.media_processes(server)[1].kill()
        await until(lambda: any("ended with status 3" in line for line in server.log), "its refusal")
        for _ in range(FRESH):
            assert await opens(server, key)
        keys.write_text(good)
        await until(lambda: len(workers_of.media_processes(server)) == 2, "its return")


async def opens(server: ServerProcess, key: str) -> bool:
    async with aiohttp.ClientSession(headers=bearer(key)) as http, http.get(f"{server.url}/v1/models") as response:
        assert response.status in (200, 401)
        return response.status == 200


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--workers", "0"), "--workers '0' is neither auto nor a number from 1 to 64"),
        (("--workers", "65"), "neither auto nor a number"),
        (("--workers", "two"), "neither auto nor a number"),
        (("--udp-ports", "50000"), "are fewer than the 2 media processes"),
        (("--auth", "/nowhere"), "Cannot read /nowhere"),
        (("--model", "nowhere/at-all/x"), "neither a directory nor a hub repository"),
    ],
)
async def test_what_cannot_be_started_says_why(options: tuple[str, ...], said: str) -> None:
    async with server_process(*ECHO, *options) as server:
        assert await server.wait_exit() == 1
        assert any(said in line for line in server.log), server.log


async def test_a_port_that_is_taken_is_not_shared() -> None:
    async with workers() as server, server_process(*ECHO, "--port", server.url.rpartition(":")[2]) as other:
        assert await other.wait_exit() == 1
        assert any("Cannot listen" in line for line in other.log)


async def test_strangers_cannot_say_where_they_come_from() -> None:
    """Only what comes by the processes' own sockets is believed; and what an id names is a number of ours or none."""
    async with workers("--sessions-per-address", "1") as server, talking(server, 1):
        async with offering() as body, aiohttp.ClientSession(headers={"x-forwarded-for": "198.51.100.7"}) as http:
            for _ in range(FRESH // 2):
                async with http.post(f"{server.url}/api/offer", json=body) as response:
                    assert (await response.json())["error"]["code"] == "too_many_sessions"
        for name in ("0-7-x", "0-00001-x", "0-²-x", "0--x", "9-1-x", "x_0-1-x", "0-1-", "-", "0-1-../../status"):
            status, told = await get_json(f"{server.url}/api/sessions/{name.replace('/', '%2F')}")
            assert (status, told["error"]["code"]) == (404, "unknown_session"), name
