"""``python -m fuzz.fuzz_datagrams``: raw datagrams into a live connection, of strangers and of its peer's address.

The input is a program; see :func:`fuzz.attacks.attack_with_datagrams`. Whatever it does, both ends take on what the
other sends, hold little, and nothing reaches the event loop's handler of exceptions, which would be a line of log.
"""

from __future__ import annotations

import asyncio

import atheris

from fuzz.harness import fuzz

with atheris.instrument_imports(include=["rtc_server", "aioice", "aiortc"]):
    from fuzz.attacks import Program, attack_with_datagrams
    from lab.network.wired import Wired

_SEEDS = tuple(
    bytes([side | source << 1 | number << 3, manner, 7, 0, 20, *range(20)]) * 3
    for side in range(2)
    for source in range(3)
    for number in range(0, 32, 5)
    for manner in range(8)
)
_WORDS = (
    b"\x21\x12\xa4\x42",
    b"\x00\x24\x00\x04",
    b"\x00\x25\x00\x00",
    b"\x80\x29\x00\x08",
    b"\x16\xfe\xfd",
    b"\x15\xfe\xfd",
)


def main() -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    wired = loop.run_until_complete(Wired.connected())

    def test_one(data: bytes) -> None:
        loop.run_until_complete(attack_with_datagrams(Program(data), wired))
        loop.run_until_complete(wired.assert_lives())

    fuzz(test_one, _SEEDS, _WORDS)


if __name__ == "__main__":
    main()
