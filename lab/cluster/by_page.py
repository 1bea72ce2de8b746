"""The page, in a real browser, that talks with the model: what its server tells it and what it plays are listened to,
and nothing is done in its place but that its button is pressed and its user speaks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from playwright.async_api import Page

from lab.browsers.chromium import chromium, give_mouth, say, start_talking
from lab.cluster.talker import PATIENCE_S, QUIET_S, question
from lab.waiting import until
from rtc_server.audio import MODEL_RATE_HZ

PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome")
_LOOK_S: Final = 0.1
_AUDIBLE_J: Final = 1e-4
"""Of a voice's energy as browsers count it, the square of its level times seconds: a fiftieth of a second of speech."""
_EAVESDROP: Final = """
const { createDataChannel } = RTCPeerConnection.prototype;
RTCPeerConnection.prototype.createDataChannel = function (...wish) {
  const channel = createDataChannel.apply(this, wish);
  channel.addEventListener('message', ({ data }) => window.told(String(data)));
  return channel;
};
"""
_ENERGY: Final = """
async () => {
  for (const each of (await window.__voice.pc?.getStats())?.values() ?? []) {
    if (each.type === 'inbound-rtp' && each.kind === 'audio') return each.totalAudioEnergy ?? 0;
  }
  return 0;
}
"""


class ByPage:
    """See :class:`lab.cluster.talker.Talker`."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self._events: list[Mapping[str, Any]] = []
        self._last_seq = 0

    @property
    def events(self) -> Sequence[Mapping[str, Any]]:
        return self._events

    @property
    def session(self) -> str:
        return next((str(event["session"]) for event in reversed(self._events) if event["type"] == "connected"), "")

    def take(self, message: str) -> None:
        """A message of the server's. One that is sent again after a resume has been taken."""
        event = json.loads(message)
        seq = event.get("seq")
        if event["type"] == "connected" and not event.get("resumed"):
            self._last_seq = 0
        if seq is None or seq > self._last_seq:
            self._last_seq = self._last_seq if seq is None else seq
            self._events.append(event)

    async def begin(self) -> None:
        await self.page.locator("#reset").click()
        energy, quiet_since = await self._energy(), time.monotonic()
        while time.monotonic() - quiet_since < QUIET_S:
            await asyncio.sleep(_LOOK_S)
            before, energy = energy, await self._energy()
            if energy - before > _AUDIBLE_J:
                quiet_since = time.monotonic()

    async def ask(self) -> None:
        await say(self.page, question(MODEL_RATE_HZ))

    async def come_back(self) -> None:
        """It does so by itself."""
        known = len(self._events)
        await until(
            lambda: any(event["type"] == "connected" for event in self._events[known:]), "the page is back", PATIENCE_S
        )

    async def hear(self) -> None:
        energy, deadline = await self._energy(), time.monotonic() + PATIENCE_S
        while (now := await self._energy()) - energy < _AUDIBLE_J:
            assert time.monotonic() < deadline, "the page plays no voice"
            energy = min(energy, now)  # another connection counts from zero
            await asyncio.sleep(_LOOK_S)

    async def _energy(self) -> float:
        return float(await self.page.evaluate(_ENERGY))


def browser_here() -> str | None:
    """Chromium, by the name by which it is started; None if there is none."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


@contextlib.asynccontextmanager
async def by_page(url: str, program: str) -> AsyncIterator[ByPage]:
    """In a conversation."""
    async with chromium(program=program) as browser:
        page = await browser.new_page()
        talker = ByPage(page)
        await page.expose_function("told", talker.take)
        await page.add_init_script(f"(() => {{ {_EAVESDROP} }})();")
        await give_mouth(page)
        await page.goto(url)
        await start_talking(page, PATIENCE_S * 1000)
        await until(lambda: talker.session, "the server's greeting", PATIENCE_S)
        yield talker
