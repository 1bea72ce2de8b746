"""Debian's Firefox, driven over WebDriver BiDi, with a sound card; its microphone hums a tone, or hears a room."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

from playwright.async_api import Browser, async_playwright

from lab.sound.card import SoundCard, sound_card

_PREFERENCES: Final[Mapping[str, str | float | bool]] = {
    "media.autoplay.default": 0,  # allowed
    "media.navigator.permission.disabled": True,
    "media.navigator.streams.fake": True,
    # The server is on this machine, and mDNS is not.
    "media.peerconnection.ice.loopback": True,
    "media.peerconnection.ice.obfuscate_host_addresses": False,
}


@contextlib.asynccontextmanager
async def firefox(directory: Path) -> AsyncIterator[Browser]:
    """Its microphone hums. ``directory``: for its sound card."""
    async with sound_card(directory) as card, _launched(card, _PREFERENCES) as browser:
        yield browser


def firefox_with(card: SoundCard) -> AbstractAsyncContextManager[Browser]:
    """Its microphone is the card's."""
    return _launched(card, {**_PREFERENCES, "media.navigator.streams.fake": False})


@contextlib.asynccontextmanager
async def _launched(card: SoundCard, preferences: Mapping[str, str | float | bool]) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.firefox.launch(
            channel="moz-firefox",
            executable_path="/usr/bin/firefox-esr",
            firefox_user_prefs=dict(preferences),
            env={**os.environ, **card.environment},
        )
        try:
            yield browser
        finally:
            await browser.close()
