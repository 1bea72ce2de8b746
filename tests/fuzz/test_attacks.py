"""A brief, seeded run of what the fuzzers of ``fuzz/`` do for hours: datagrams and SCTP into a live connection."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest

from fuzz.attacks import Program, attack_with_datagrams, attack_with_sctp
from lab.network.wired import Wired

ROUNDS = 60
PROGRAM_BYTES = 400


@pytest.mark.parametrize("attack", [attack_with_datagrams, attack_with_sctp])
@pytest.mark.parametrize("seed", range(3))
async def test_a_connection_lives_on(attack: Callable[[Program, Wired], Awaitable[None]], seed: int) -> None:
    chance = random.Random(seed)
    wired = await Wired.connected()
    try:
        await wired.assert_lives()
        for _ in range(ROUNDS):
            await attack(Program(chance.randbytes(PROGRAM_BYTES)), wired)
            await wired.assert_lives()
    finally:
        await wired.close()
