"""Who talks in the show of the cluster where there is no browser: a client, and it is said that there is no page."""

from __future__ import annotations

import pytest

from lab.cluster import by_page
from lab.cluster.show import talking
from lab.cluster.talker import node_of
from tests.conftest import running_server


async def test_without_a_browser_a_client_talks_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_page, "PROGRAMS", ("no-such-browser",))
    said: list[str] = []
    async with (
        running_server("--model", "echo", "--node", "here") as server,
        talking(f"http://127.0.0.1:{server.port}", said.append) as talker,
    ):
        assert "no page" in said[0]
        assert node_of(talker.session) == "here"
        await talker.ask()
        await talker.hear()
        before = len(talker.events)
        await talker.begin()
        assert any(event.get("reason") == "reset" for event in talker.events[before:])
