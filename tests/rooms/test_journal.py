"""A room's journal whose Redis takes its time: what ends it leaves none who wait for it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from rtc_server.errors import RoomsPaused
from rtc_server.rooms import journal as journals
from rtc_server.rooms.journal import StoredJournal
from rtc_server.rooms.record import RoomRecord
from rtc_server.rooms.store import Store


class ARoom:
    """With nothing in it."""

    messages = ()

    def record(self) -> RoomRecord:
        return RoomRecord("Kitchen", False, 1, [])

    def listing(self) -> dict[str, Any] | None:
        return None


class SlowStore:
    """It is asked, and has not answered yet; or breaks in a way that no one has thought of."""

    answers = True

    def __init__(self, broken: bool = False) -> None:
        self.asked = asyncio.Event()
        self._broken = broken

    async def run(self, script: str, keys: list[str], arguments: tuple[Any, ...]) -> Any:
        self.asked.set()
        if self._broken:
            raise ValueError
        await asyncio.Event().wait()


async def test_one_that_is_given_up_leaves_none_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is closed once more without ado."""
    monkeypatch.setattr(journals, "RENEW_S", 0.01)
    store = SlowStore()
    journal = StoredJournal(cast("Store", store), "a-0 life", "a-0-room", lambda: None)
    journal.begin(cast("Any", ARoom()))
    waiting = asyncio.create_task(journal.settle(), name="request")
    await store.asked.wait()
    await journal.close()
    with pytest.raises(RoomsPaused):
        await waiting
    await journal.close()
    assert journal.done


async def test_one_that_fails_says_so_and_leaves_none_who_wait(caplog: pytest.LogCaptureFixture) -> None:
    journal = StoredJournal(cast("Store", SlowStore(broken=True)), "a-0 life", "a-0-room", lambda: None)
    journal.begin(cast("Any", ARoom()))
    with pytest.raises(RoomsPaused):
        await journal.settle()
    assert "a room's journal failed" in caplog.text
    await journal.close()
