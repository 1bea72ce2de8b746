"""Files that are sent to be transcribed: what one file, and one visitor, may take."""

from __future__ import annotations

import asyncio
from typing import IO, Any

import numpy as np
import pytest

from lab.inputs.files import encode
from lab.waiting import until
from rtc_server.access.principals import Principal, Visitor
from rtc_server.decoding.reader import Decoders
from rtc_server.endpoints import transcribe
from rtc_server.errors import ServerFull
from tests.support.scribe import numbered
from tests.support.uploads import EVENTS, WORDS, Held, code_of, events_of, post, serving, stream


async def test_a_file_that_wants_gigabytes_is_refused_and_costs_no_call(server: Held) -> None:
    claims = WORDS[:36] + b"LIST\0\xff\xff\x7fINFOINAM\0\xfe\xff\x7f" + b"name" * 3
    for headers in ({}, EVENTS):
        status, _, text = await post(server.url, claims, headers=headers)
        assert status == 422, text
    assert (await post(server.url, WORDS))[0] == 200


async def test_an_address_has_as_many_files_as_sessions() -> None:
    async with serving("--sessions-per-address", "1", slots=4) as server:
        hold = asyncio.Event()
        first = asyncio.create_task(post(f"{server.url}?format=txt", stream(WORDS, hold, 100)), name="first")
        await until(lambda: server.uploads._receiving)
        status, headers, text = await post(server.url, WORDS)
        assert (status, code_of(text)) == (429, "too_many_sessions")
        assert "Retry-After" in headers  # type: ignore[operator]
        hold.set()
        assert (await first)[0] == 200
        assert (await post(server.url, WORDS))[0] == 200
        assert not len(server.admission)


async def test_files_and_calls_are_counted_together() -> None:
    async with serving("--max-sessions", "1", slots=4) as server:
        hold = asyncio.Event()
        first = asyncio.create_task(post(f"{server.url}?format=txt", stream(WORDS, hold, 100)), name="first")
        await until(lambda: server.uploads._receiving)
        assert code_of((await post(server.url, WORDS))[2]) == "server_full"
        with pytest.raises(ServerFull):
            server.admission.admit("echo", Visitor(Principal("other"), "192.0.2.1"))
        hold.set()
        assert (await first)[0] == 200


@pytest.mark.parametrize("headers", [{}, EVENTS])
async def test_hours_of_silence_in_kilobytes_are_more_than_a_session_may_have(headers: dict[str, str]) -> None:
    quiet = encode(np.broadcast_to(np.float32(0), ((600 * 2000),)), "flac", "flac", 2000)
    async with serving("--max-session-s", "30") as server:
        status, _, text = await post(server.url, quiet, headers=headers)
        if status == 200:
            assert events_of(text)[-1][1]["code"] == "time_limit"
        else:
            assert (status, code_of(text)) == (413, "time_limit")
        assert "30 s" in text
        await until(lambda: not server.engine.slots_used)


async def test_a_token_limits_a_file_as_it_limits_a_call(server: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    visitor = Visitor(Principal("sub/x", max_session_s=3.0), "127.0.0.1")
    monkeypatch.setattr(transcribe, "visitor_of", lambda _: visitor)
    assert (await post(server.url, encode(numbered(*[1] * 36))))[0] == 200
    status, _, text = await post(server.url, encode(numbered(*[1] * 60)))
    assert (status, code_of(text)) == (413, "time_limit")


async def test_a_token_limits_the_time_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock, from the first byte on."""
    visitor = Visitor(Principal("sub/x", max_session_s=0.2), "127.0.0.1")
    monkeypatch.setattr(transcribe, "visitor_of", lambda _: visitor)
    async with serving() as server:
        hold = asyncio.Event()
        try:
            status, _, text = await post(server.url, stream(WORDS, hold, 100))
        finally:
            hold.set()
        assert (status, code_of(text)) == (413, "time_limit")
        await until(lambda: not server.uploads._receiving)


async def test_a_place_is_taken_until_a_slot_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is being opened counts as well: six at once on four slots were six decoders."""
    async with serving(slots=1) as server:
        go_on = asyncio.Event()
        start = Decoders.start

        async def slow(decoders: Decoders, source: IO[bytes]) -> Any:
            await go_on.wait()
            return await start(decoders, source)

        monkeypatch.setattr(Decoders, "start", slow)
        first = asyncio.create_task(post(server.url, WORDS), name="first")
        await until(lambda: server.uploads._receiving)
        assert code_of((await post(server.url, WORDS))[2]) == "server_full"
        go_on.set()
        assert (await first)[0] == 200
