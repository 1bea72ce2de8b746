"""The access control before small handlers of our own: to which names a server answers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from rtc_server.access.hosts import Hosts
from tests.support.gate import ALLOWED, PREFLIGHT, Door, door, doorkeeper

OWN_NAMES = ["localhost", "LOCALHOST:9", "localhost.:80", "a.localhost", "127.0.0.1:8080", "127.1.2.3", "[::1]:8080"]


OTHERS_NAMES = [
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "192.168.1.7",
    "0.0.0.0",
    "[2001:db8::1]",
]


async def raw(at: Door, request: str) -> tuple[int, dict[str, Any]]:
    """Status and error of a request that is written by hand."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(at.url.rsplit(":", 1)[1]))
    writer.write(request.replace("\n", "\r\n").encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    text = json.loads(body) if body.startswith(b"{") else {}
    return int(head.split()[1]), text.get("error") or text


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
async def test_a_server_for_this_machine_answers_to_its_own_names_alone(method: str) -> None:
    """DNS rebinding: whatever the page of a stranger asks for, and most of what it asks for says no Origin."""
    paths = ["/", "/static/main.js", "/healthz", "/status", "/metrics", "/api/offer", "/whip/echo", "/nothing", "/ws"]
    async with door(doorkeeper(hosts=Hosts(["voice.example.com"]))) as at:
        for path in paths:
            for host in OTHERS_NAMES:
                for origin in ({}, {"Origin": f"http://{host}"}, {"Origin": ALLOWED}, PREFLIGHT | {"Origin": ALLOWED}):
                    status, headers, body = await at.ask(method, path, Host=host, **origin)
                    assert status == 421, (path, host, origin)
                    assert "Access-Control-Allow-Origin" not in headers
                    if method != "HEAD":
                        assert (body.get("error") or body)["code"] == "host_refused"
            for host in (*OWN_NAMES, "Voice.Example.com"):
                assert (await at.ask(method, path, Host=host))[0] != 421, (path, host)
        assert all(address == "127.0.0.1" for address, _ in at.served)


async def test_a_request_names_one_host() -> None:
    """RFC 9112, section 3.2. Without any, as HTTP/1.0 may be, it comes from no browser."""
    rest = "\nConnection: close\n\n"
    for hosts in (Hosts(), Hosts(any_name=True)):
        async with door(doorkeeper(hosts=hosts)) as at:
            for named in (
                "",
                "\nHost: localhost\nHost: evil.example",
                "\nHost: localhost\nHost: localhost",
                "\nHost: localhost, evil.example",
                "\nHost: ",
                "\nHost: localhost:x",
                "\nHost: user@localhost",
                "\nHost: [::1",
            ):
                status, error = await raw(at, f"GET /status HTTP/1.1{named}{rest}")
                # What the parser itself refuses is answered in aiohttp's words here, and in ours by a whole server.
                assert (status, error.get("code", "bad_request")) == (400, "bad_request"), named
            assert (await raw(at, f"GET /healthz HTTP/1.0{rest}"))[0] == 200
            assert not [address for address, _ in at.served if address != "127.0.0.1"]
            assert len(at.served) == 1


async def test_the_name_in_the_request_line_counts_too() -> None:
    rest = "\nConnection: close\n\n"
    async with door(doorkeeper(hosts=Hosts())) as at:
        for target, host, expected in (
            ("http://evil.example/status", "localhost", 421),
            ("http://localhost/status", "evil.example", 421),
            ("http://localhost:8080/status", "localhost:8080", 200),
        ):
            assert (await raw(at, f"GET {target} HTTP/1.1\nHost: {host}{rest}"))[0] == expected
