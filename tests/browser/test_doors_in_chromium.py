"""What browsers open without headers of the page's own: WebSockets and event sources, on a server that wants a key."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from lab.browsers.chromium import local_url, visited_page
from rtc_server.access import credentials
from rtc_server.app import Server
from rtc_server.client import VoiceClient
from tests.browser.conftest import IN_A_BROWSER
from tests.conftest import UNLIMITED
from tests.support.asr import asr_server
from tests.support.parrot import Parrot

pytestmark = IN_A_BROWSER

KEY = credentials.new_key()
_OPEN = """
([path, protocols]) => new Promise((done) => {
  const socket = new WebSocket(new URL(path, document.baseURI), protocols);
  socket.binaryType = 'arraybuffer';
  socket.onmessage = ({ data }) => { socket.close(); done([socket.protocol, data.byteLength > 0]); };
  socket.onerror = () => done(['', false]);
})
"""
# Says when the event source is open, and at its first event or error what it has read.
_FOLLOW = """
(path) => {
  const source = new EventSource(new URL(path, document.baseURI));
  const opened = new Promise((done) => {
    source.onopen = () => done(true);
    source.addEventListener('error', () => done(false));
  });
  const reasons = new Promise((done) => {
    source.onmessage = ({ data }) => { source.close(); done([JSON.parse(data).reason]); };
    source.addEventListener('error', () => { source.close(); done([]); });
  });
  window.followed = reasons;
  return opened;
}
"""


@pytest_asyncio.fixture(loop_scope="session")
async def guarded(tmp_path: Path) -> AsyncIterator[Server]:
    path = tmp_path / "auth.toml"
    path.write_text(f'[[keys]]\nname = "page"\nhash = "{credentials.hash_of(KEY)}"\n')
    async with asr_server(Parrot, None, "--auth", str(path), *UNLIMITED) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser, guarded: Server) -> AsyncIterator[Page]:
    tolerated = ("WebSocket", "Failed to load", "EventSource")
    async with visited_page(browser, local_url(guarded), tolerate=tolerated) as opened:
        yield opened


async def test_a_websocket_with_a_key(page: Page, caplog: pytest.LogCaptureFixture) -> None:
    """With a plain protocol beside it, which is the one that is chosen; alone; in the address. Nothing is logged."""
    caplog.set_level(logging.DEBUG)
    for path, protocols, chosen in (
        ("api/asr-streaming", ["rtc-server.v1", f"bearer.{KEY}"], "rtc-server.v1"),
        ("api/asr-streaming", [f"bearer.{KEY}"], f"bearer.{KEY}"),
        (f"api/asr-streaming?token={KEY}", [], ""),
    ):
        assert await page.evaluate(_OPEN, [path, protocols]) == [chosen, True]
    for path, protocols in (("api/asr-streaming", ["rtc-server.v1", f"bearer.{KEY}x"]), ("api/asr-streaming", [])):
        assert await page.evaluate(_OPEN, [path, protocols]) == ["", False]
    assert KEY not in caplog.text


async def test_an_event_source_with_a_key(guarded: Server, page: Page) -> None:
    async with VoiceClient(local_url(guarded).rstrip("/"), service="echo", token=KEY) as client:
        await client.wait_for("connected")
        path = f"api/sessions/{client.session}/events"
        assert await page.evaluate(_FOLLOW, f"{path}?token={KEY}x") is False
        assert await page.evaluate(_FOLLOW, f"{path}?token={KEY}") is True
        client.send({"type": "bye"})
        assert await page.evaluate("() => window.followed") == ["bye"]
