"""A client for programs that talks with the model: for machines without a browser."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from lab.cluster.talker import AUDIBLE_DBFS, PATIENCE_S, QUIET_S, question
from lab.coming_back import come_back
from lab.sound.mouth import Mouth
from lab.sound.tones import Ear
from lab.waiting import until
from rtc_server.audio import level_dbfs
from rtc_server.client import MICROPHONE_HZ, VoiceClient

_SILENT_S: Final = 4.0
"""A client that hears nothing of its server for so long comes back, as the page does."""
_LOOK_S: Final = 0.05


class ByClient:
    """See :class:`lab.cluster.talker.Talker`."""

    def __init__(self, url: str) -> None:
        self._mouth, self._ear = Mouth(), Ear()
        self.client = VoiceClient(url, self._mouth, on_voice=self._ear)

    @property
    def events(self) -> Sequence[Mapping[str, Any]]:
        return list(self.client.events)

    @property
    def session(self) -> str:
        return str(self.client.session)

    async def begin(self) -> None:
        self.client.send({"type": "reset"})
        await self._ear.until_level(below=AUDIBLE_DBFS, window_s=QUIET_S)

    async def ask(self) -> None:
        self._mouth.utter(question(MICROPHONE_HZ))

    async def come_back(self) -> None:
        await self._until_silent()
        await come_back(self.client)

    async def hear(self) -> None:
        first = self._ear.samples
        await until(lambda: level_dbfs(self._ear.since(first)) > AUDIBLE_DBFS, "the voice", PATIENCE_S)

    async def _until_silent(self) -> None:
        heard, since = len(self.client.events), time.monotonic()
        while time.monotonic() - since < _SILENT_S:
            await asyncio.sleep(_LOOK_S)
            if len(self.client.events) != heard:
                heard, since = len(self.client.events), time.monotonic()


@contextlib.asynccontextmanager
async def by_client(url: str) -> AsyncIterator[ByClient]:
    """Connected."""
    talker = ByClient(url)
    async with talker.client:
        await talker.client.wait_for("connected")
        yield talker
