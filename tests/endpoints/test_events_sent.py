"""What is sent to a client that follows events: a client that takes none of it is followed no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import cast

import pytest
from aiohttp import web

from rtc_server import signaling


class Transport:
    aborted = False

    def abort(self) -> None:
        self.aborted = True


class Response:
    """``takes``: so many writes; the next one never comes to its end."""

    def __init__(self, takes: int) -> None:
        self.takes = takes
        self.written: list[bytes] = []

    async def write(self, raw: bytes) -> None:
        if len(self.written) == self.takes:
            await asyncio.Event().wait()
        self.written.append(raw)


async def two_events() -> AsyncGenerator[tuple[int, str], None]:
    for number in (1, 2):
        yield number, f"event {number}"


async def send(transport: Transport, response: Response) -> None:
    request = cast("web.Request", SimpleNamespace(transport=transport))
    await signaling.send_events(request, cast("web.StreamResponse", response), two_events())


async def test_one_who_reads_has_all() -> None:
    transport, response = Transport(), Response(takes=2)
    await send(transport, response)
    assert response.written == [b"id: 1\ndata: event 1\n\n", b"id: 2\ndata: event 2\n\n"]
    assert not transport.aborted


async def test_one_who_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it was a member who is there, for as long as its machine answers."""
    monkeypatch.setattr(signaling, "_STUCK_S", 0.05)
    transport, response = Transport(), Response(takes=1)
    with pytest.raises(TimeoutError):
        await send(transport, response)
    assert transport.aborted
