"""Who talks in the show of the cluster: the page in a browser, or a client where there is none, and that is said."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from lab.cluster import by_page
from lab.cluster.show import talking
from lab.cluster.talker import Talker, node_of
from lab.waiting import until
from tests.conftest import need_commands, running_server

_SAID_S: Final = 2.0
"""The question takes as long."""


async def test_without_a_browser_a_client_talks_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_page, "PROGRAMS", ("no-such-browser",))
    assert "no page" in await talked("127.0.0.1")


@pytest.mark.browser
async def test_the_page_talks_in_a_browser() -> None:
    need_commands("chromium")
    assert "the page, in " in await talked("localhost")


async def talked(host: str) -> str:
    """To a server by this name; what was said first of who does."""
    said: list[str] = []
    async with (
        running_server("--model", "echo", "--node", "here") as server,
        talking(f"http://{host}:{server.port}", said.append) as talker,
    ):
        await talk(talker)
    return said[0]


async def talk(talker: Talker) -> None:
    """With a model that repeats what it hears; on a busy machine it may have to be said again."""
    assert node_of(talker.session) == "here"
    hearing = asyncio.create_task(talker.hear(), name="hearing")
    while not hearing.done():
        await talker.ask()
        await asyncio.wait([hearing], timeout=_SAID_S)
    await hearing
    before = len(talker.events)
    await talker.begin()
    await until(lambda: any(event.get("reason") == "reset" for event in talker.events[before:]), "it is told")
