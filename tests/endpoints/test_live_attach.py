"""A connection beside a session of OpenAI Live, which may be closed from two sides at once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

from aiohttp import web

from rtc_server.endpoints.openai_live_attach import Attached
from rtc_server.protocols import events
from rtc_server.protocols.openai.live import LiveSession
from rtc_server.sessions.outbox import Outbox
from rtc_server.sessions.session import Session


async def test_a_close_is_not_cut_short_by_another() -> None:
    """Of its own handler and of its session, which ends just then: the end of the session waits for it, and was
    cancelled with what both wait for."""
    outbox = Outbox()
    session = cast("Session", SimpleNamespace(outbox=outbox, listeners=None))
    socket = cast("web.WebSocketResponse", SimpleNamespace(prepared=False))
    attached = Attached(session, cast("LiveSession", SimpleNamespace()), cast("web.Request", None), socket)
    await asyncio.sleep(0)  # it follows
    of_its_handler = asyncio.create_task(attached.close(), name="handler")
    await asyncio.sleep(0)
    outbox.emit(events.Disconnected("bye"))
    outbox.close()
    of_its_session = asyncio.create_task(attached.close(), name="session")
    await asyncio.wait({of_its_handler, of_its_session})
    assert not of_its_session.cancelled()
    assert not of_its_handler.cancelled()
    assert not outbox._followers
