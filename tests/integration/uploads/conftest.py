"""What all tests of files that are sent have: a server for each, and a look at what it leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.uploads import Held, leaving_nothing, serving


@pytest.fixture(autouse=True)
def nothing_stays(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with leaving_nothing(caplog, monkeypatch):
        yield


@pytest.fixture
async def server() -> AsyncIterator[Held]:
    async with serving() as running:
        yield running
