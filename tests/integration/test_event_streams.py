"""Event streams of a session over HTTP: how many there may be, and who is told that there are enough."""

from __future__ import annotations

import contextlib

import aiohttp

from rtc_server.app import Server
from rtc_server.client import VoiceClient
from rtc_server.sessions.outbox import MAX_FOLLOWERS


async def test_one_stream_too_many_is_refused_and_those_there_are_go_on(server: Server, base_url: str) -> None:
    """Before an answer begins: into one that has begun, another one would be written."""
    async with (
        VoiceClient(base_url) as client,
        aiohttp.ClientSession(base_url) as http,
        contextlib.AsyncExitStack() as open_streams,
    ):
        await client.wait_for("connected")
        path = f"/api/sessions/{client.session}/events"
        streams = [await open_streams.enter_async_context(http.get(path)) for _ in range(MAX_FOLLOWERS)]
        assert {stream.status for stream in streams} == {200}
        async with http.get(path) as refused:
            assert refused.status == 503
            assert (await refused.json())["error"]["code"] == "server_full"
        client.send({"type": "bye"})
        for stream in streams:
            assert b'"reason":"bye"' in await stream.read()


async def test_a_stream_is_not_asked_for_its_head_alone(server: Server, base_url: str) -> None:
    """That took a place of those who follow, until the session ended, for a client that got none of its events."""
    async with VoiceClient(base_url) as client, aiohttp.ClientSession(base_url) as http:
        await client.wait_for("connected")
        async with http.head(f"/api/sessions/{client.session}/events") as refused:
            assert (refused.status, refused.headers["Allow"]) == (405, "GET")
