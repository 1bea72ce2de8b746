"""``python -m fuzz.fuzz_sctp``: SCTP and data channel messages of a connected client, with checksums that are right.

The input is a program; see :func:`fuzz.attacks.attack_with_sctp`. Whatever it does, each packet comes to an end, the
audio goes on, little is held, and nothing reaches the event loop's handler of exceptions. An association that is ended
by it is the client's own affair: the next input gets another.
"""

from __future__ import annotations

import asyncio
from typing import Any

import atheris

from fuzz.harness import fuzz

with atheris.instrument_imports(include=["rtc_server", "aiortc"]):
    from fuzz.attacks import Program, attack_with_sctp
    from lab.network.wired import Wired

_SEEDS = tuple(
    bytes([128, kind, flags, 20, *range(20), 129, kind, flags, 12, 3, *range(11)])
    for kind in (0, 1, 3, 4, 7, 9, 10, 11, 128, 129, 130, 136, 192)
    for flags in (3, 7, 11, 0x13, 0x23)
)
_WORDS = (b"\x00\x07\x00\x00", b"\x00\x0d\x00\x10", b"\x80\x08\x00\x04", b"\x03\x00\x00\x00", b"\xff\xff\xff\xff")


def main() -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    wired = loop.run_until_complete(Wired.connected())

    def test_one(data: bytes) -> None:
        nonlocal wired
        loop.run_until_complete(attack_with_sctp(Program(data), wired))
        loop.run_until_complete(wired.assert_lives())
        sctp: Any = wired.server.pc.sctp
        if sctp._association_state is not sctp.State.ESTABLISHED or len(sctp._data_channels) > 8:
            loop.run_until_complete(wired.close())
            wired = loop.run_until_complete(Wired.connected())

    fuzz(test_one, _SEEDS, _WORDS)


if __name__ == "__main__":
    main()
