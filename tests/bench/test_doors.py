"""The measuring clients of all doors: each hears what it said, and knows how late."""

from __future__ import annotations

import numpy as np
import pytest

from bench.analysis import judge
from bench.clients import make_client
from bench.doors import ECHOING, Door
from bench.tape import Tape, warble_tape
from lab.waiting import until
from rtc_server.app import Server

pytestmark = pytest.mark.alone

SPOKEN_S = 3.0


@pytest.fixture(scope="module")
def tape() -> Tape:
    return warble_tape(8.0)


@pytest.mark.parametrize("door", ECHOING, ids=lambda door: door.name)
async def test_each_door_gives_back_what_was_said(server: Server, base_url: str, tape: Tape, door: Door) -> None:
    client = make_client(base_url, door.way, tape, door.pieces)
    try:
        await client.call()
        log = client.log
        await until(lambda: log.arrivals and log.arrivals[-1].at > log.sent[0] + SPOKEN_S, "some seconds of voice")
    finally:
        await client.hang_up()
    verdict = judge(client.log, tape, since=client.log.sent[0] + 1.0)
    assert verdict.likeness > 0.85
    assert verdict.delays.seconds.size > 20
    assert 0.0 < np.median(verdict.delays.seconds) < 0.5
