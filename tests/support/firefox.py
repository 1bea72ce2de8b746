"""Debian's Firefox, driven over WebDriver BiDi, with a sound card and a microphone that hums a tone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from playwright.async_api import Browser, async_playwright

from tests.support.soundcard import sound_card

_PREFERENCES: Final = {
    "media.autoplay.default": 0,  # allowed
    "media.navigator.permission.disabled": True,
    "media.navigator.streams.fake": True,
    # The server is on this machine, and mDNS is not.
    "media.peerconnection.ice.loopback": True,
    "media.peerconnection.ice.obfuscate_host_addresses": False,
}


@contextlib.asynccontextmanager
async def firefox(directory: Path) -> AsyncIterator[Browser]:
    """``directory``: for its sound card."""
    async with sound_card(directory) as sound, async_playwright() as playwright:
        browser = await playwright.firefox.launch(
            channel="moz-firefox",
            executable_path="/usr/bin/firefox-esr",
            firefox_user_prefs=_PREFERENCES,
            env={**os.environ, **sound},
        )
        try:
            yield browser
        finally:
            await browser.close()
